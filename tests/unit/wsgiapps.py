"""What the tests of workers/wsgi.py share: an output that records, and small applications."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

from workers.environ import ErrorStream, make_environ
from workers.wsgi import PeerGone, Result, respond, server_keys

TEXT = [("Content-Type", "text/plain")]
LOG = logging.getLogger("test.wsgi")


class FakeOutput:
    """Records; from the ``dies_at``-th send on (0 is the first) raises ``death``."""

    def __init__(self, dies_at: int | None = None, death: BaseException | None = None) -> None:
        self.sends: list[tuple[bytes, bool]] = []
        self.steps: list[str] = []
        self.errors = ""
        self.dies_at = dies_at
        self.death = death or PeerGone()

    def send(self, data: list[bytes], end: bool) -> None:
        assert all(type(part) is bytes and part for part in data)
        assert data or end, "a send that says nothing"
        assert not (self.sends and self.sends[-1][1]), "something was sent after the end"
        if self.dies_at is not None and len(self.sends) >= self.dies_at:
            raise self.death
        self.sends.append((b"".join(data), end))
        self.steps.append("end" if end else "send")

    def error(self, text: str) -> None:
        self.errors += text

    @property
    def answer(self) -> bytes:
        return b"".join(data for data, _ in self.sends)

    @property
    def head(self) -> list[str]:
        return self.answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")

    @property
    def body(self) -> bytes:
        return self.answer.partition(b"\r\n\r\n")[2]

    @property
    def ended(self) -> bool:
        return bool(self.sends) and self.sends[-1][1]


def environ_for(output: FakeOutput, method: str = "GET", body: bytes = b"") -> dict[str, object]:
    params = {"REQUEST_METHOD": method, "SCRIPT_NAME": "/trac", "PATH_INFO": "/wiki",
              "REQUEST_URI": "/trac/wiki?a=b"}  # fmt: skip
    if body:
        params["CONTENT_LENGTH"] = str(len(body))
    return make_environ(params, io.BytesIO(body), ErrorStream(output.error), server_keys())


def run(
    application: Callable[..., Any], output: FakeOutput | None = None, method: str = "GET"
) -> tuple[Result, FakeOutput]:
    output = output or FakeOutput()
    result = respond(application, environ_for(output, method), output, LOG)
    assert result.clean == output.ended
    assert result.sent == len(output.body)
    return result, output


class Blocks:
    """An iterable with close() that notes its steps; an exception among the blocks is raised."""

    def __init__(self, *blocks: Any, steps: list[str] | None = None) -> None:
        self.blocks = blocks
        self.steps = steps if steps is not None else []
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        for block in self.blocks:
            if isinstance(block, BaseException):
                raise block
            self.steps.append("yield")
            yield block

    def close(self) -> None:
        self.closed += 1
        self.steps.append("close")


def answering(
    blocks: Any, headers: list[tuple[str, str]] = TEXT, status: str = "200 OK"
) -> Callable[..., Any]:
    def application(environ: dict[str, object], start_response: Callable[..., Any]) -> Any:
        start_response(status, list(headers))
        return blocks

    return application


def length(size: int) -> list[tuple[str, str]]:
    return [*TEXT, ("Content-Length", str(size))]

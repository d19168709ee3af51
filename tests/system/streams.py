"""A WSGI application whose answers take their time: ``--app tests.system.streams:application``.

It tells what happens through files in the directory TEST_MARKS.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from .processes import PATIENCE, wait_until

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def mark(name: str) -> None:
    with open(Path(os.environ["TEST_MARKS"], name), "a") as file:
        file.write("x")


def wait_for(name: str) -> None:
    """Until the test has made that file."""
    path = Path(os.environ["TEST_MARKS"], name)
    wait_until(path.exists, 3 * PATIENCE, f"file {name}")


class Stream:
    """``count`` blocks of ``size`` bytes, the first ``steps`` each when the test has allowed it."""

    def __init__(self, count: int, size: int, steps: int) -> None:
        self.left = count
        self.size = size
        self.step = 0
        self.steps = steps

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.left == 0:
            raise StopIteration
        if 0 < self.step <= self.steps:
            wait_for(f"go{self.step}")
        self.left -= 1
        self.step += 1
        return b"x" * self.size

    def close(self) -> None:
        mark("closed")


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    query = {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    action = environ["PATH_INFO"]
    headers = [("Content-Type", "text/plain")]
    if "length" in query:
        headers.append(("Content-Length", query["length"]))
    if action == "/hold":
        mark("held")
        wait_for("release")
    elif action == "/errors":
        environ["wsgi.errors"].write(query["text"])
    elif action == "/exit":
        raise SystemExit(3)
    start_response("200 OK", headers)
    if action == "/stream":
        return Stream(int(query["count"]), int(query.get("size", "10")), int(query.get("steps", "0")))
    if action == "/fail":
        return failing()
    return [f"pid={os.getpid()}\n".encode()]


def failing() -> Iterator[bytes]:
    yield b"half of it"
    raise RuntimeError("in the middle of the answer")

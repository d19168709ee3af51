"""Trac's own way of answering: start_response()'s write() and then [], file_wrapper, errors."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trac.env import Environment, open_environment
from trac.web.main import dispatch_request

from tests.unit.wsgiapps import LOG, FakeOutput
from workers.environ import ErrorStream, make_environ
from workers.wsgi import Result, respond, server_keys


@pytest.fixture(scope="module")
def trac_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("trac") / "env"
    Environment(str(path), create=True).shutdown()
    yield path
    # dispatch_request() keeps what it opened, log file included, for the life of the process.
    opened = open_environment(str(path), use_cache=True)
    opened.shutdown()
    for handler in list(opened.log.handlers):
        opened.log.removeHandler(handler)
        handler.close()


def ask(
    env: Path, path: str, output: FakeOutput | None = None, body: bytes = b"", **params: str
) -> tuple[Result, FakeOutput]:
    output = output or FakeOutput()
    environ = make_environ(
        {
            "REQUEST_METHOD": "GET", "SCRIPT_NAME": "/trac", "PATH_INFO": path,
            "SERVER_NAME": "example.org", "SERVER_PORT": "80", "HTTP_HOST": "example.org",
            "REMOTE_ADDR": "127.0.0.1", "CONTENT_LENGTH": str(len(body) or ""), **params,
        },
        io.BytesIO(body),
        ErrorStream(output.error),
        {**server_keys(), "trac.env_path": str(env)},
    )  # fmt: skip
    result = respond(dispatch_request, environ, output, LOG)
    assert result.clean == output.ended
    return result, output


def test_a_wiki_page(trac_env: Path) -> None:
    result, output = ask(trac_env, "/wiki/WikiStart")
    assert result == Result(200, len(output.body), True)
    assert output.head[0] == "Status: 200 Ok"
    # The page goes out as Trac writes it; what waits for Trac's cleaning up is only the end.
    assert output.sends[-1] == (b"", True)
    assert output.body.rstrip().endswith(b"</html>")
    assert b"Welcome to Trac" in output.body
    assert output.errors == ""


def test_head_of_a_wiki_page(trac_env: Path) -> None:
    result, output = ask(trac_env, "/wiki/WikiStart", REQUEST_METHOD="HEAD")
    assert (result, len(output.sends)) == (Result(200, 0, True), 1)


def test_a_static_file_is_one_send(trac_env: Path) -> None:
    result, output = ask(trac_env, "/chrome/common/css/trac.css")
    assert len(output.sends) == 1
    assert f"Content-Length: {result.sent}" in output.head
    modified = next(line.split(": ")[1] for line in output.head if line.startswith("Last-Mod"))
    result, output = ask(
        trac_env, "/chrome/common/css/trac.css", HTTP_IF_MODIFIED_SINCE=modified
    )
    assert (result, len(output.sends)) == (Result(304, 0, True), 1)


def test_a_page_that_is_not_there(trac_env: Path) -> None:
    result, output = ask(trac_env, "/nothing/here")
    assert result.status == 404 and result.clean
    assert b"No handler matched request" in output.body


def test_a_form_is_posted(trac_env: Path) -> None:
    page = ask(trac_env, "/prefs", REQUEST_METHOD="GET")[1]
    cookie = "; ".join(
        line.split(": ")[1].split(";")[0] for line in page.head if line.startswith("Set-Cookie")
    )
    token = re.search(rb'name="__FORM_TOKEN" value="(\w+)"', page.body)
    assert token
    result, output = ask(
        trac_env,
        "/prefs",
        body=b"action=save&name=Ann&email=&__FORM_TOKEN=" + token[1],
        REQUEST_METHOD="POST",
        CONTENT_TYPE="application/x-www-form-urlencoded",
        HTTP_COOKIE=cookie,
    )
    assert result.status == 303
    assert "Location: http://example.org/trac/prefs" in output.head


def test_a_visitor_who_leaves_is_no_error_to_trac(
    trac_env: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trac logs a traceback for whatever comes out of write() but an OSError with EPIPE."""
    logged: list[Any] = []
    monkeypatch.setattr("trac.web.main.send_internal_error", lambda *args: logged.append(args))
    result, _ = ask(trac_env, "/wiki/WikiStart", FakeOutput(dies_at=0))
    assert result == Result(200, 0, False)
    assert logged == []


def test_an_interrupt_that_trac_swallows_is_never_a_clean_end(trac_env: Path) -> None:
    """dispatch_request() returns from its ``finally``, which ends any exception."""
    result, _ = ask(trac_env, "/wiki/WikiStart", FakeOutput(0, KeyboardInterrupt()))
    assert not result.clean

"""Lines of the program's own log."""

from __future__ import annotations

import json
import logging
import os
import selectors
from collections.abc import Iterator
from pathlib import Path

import pytest

from spawner import logs, slowlog
from spawner.capture import LINE_CEILING, Capture
from spawner.settings import Settings
from workers import requestid

log = logging.getLogger("trac-spawn")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = log.handlers[:], log.level, log.propagate, logging.raiseExceptions
    yield
    log.handlers[:], log.level, log.propagate, logging.raiseExceptions = before
    requestid.current = ""


def configured(path: Path, form: str = "text") -> logging.Handler:
    logs.configure(Settings(log_file=str(path), log_format=form))
    return log.handlers[0]


def test_text_says_which_request_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log"
    configured(path)
    log.info("before")
    requestid.current = "an-id"
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("it failed")
    before, during, *traceback = path.read_text().splitlines()
    assert before.endswith(f"[{os.getpid()}] INFO: before")
    assert during.endswith("ERROR: it failed (request an-id)")
    assert traceback[-1] == "  ValueError: no"


def test_what_a_visitor_has_got_into_a_message_looks_like_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log"
    configured(path)
    log.error("%s", "an application's\ttext\n2026-11-26 12:00:00,000 [1] ERROR: forged\r\x1b[2J\x9b\u2028")
    first, second = path.read_text().split("\n")[:-1]
    assert first.endswith("ERROR: an application's\ttext")
    assert second == "  2026-11-26 12:00:00,000 [1] ERROR: forged\\r\\x1b[2J\\x9b\\u2028"


def test_json_is_an_object_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    configured(path, "json")
    log.warning("two\nlines and a %s", '"quote"')
    requestid.current = "an-id"
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("it failed")
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["level"], first["message"], first["pid"]) == (
        "warning", 'two\nlines and a "quote"', os.getpid(),
    )  # fmt: skip
    assert "request_id" not in first
    assert second["request_id"] == "an-id" and second["traceback"].endswith("ValueError: no")


def test_the_journal_gets_priorities(monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    logs.configure(Settings())
    formatter = log.handlers[0].formatter
    assert formatter is not None
    record = log.makeRecord("x", logging.ERROR, "f", 1, "one\ntwo", (), None)
    assert formatter.format(record) == "<3>ERROR: one\n<3>  two"


def test_another_file_is_not_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for what is started in a service, with its output led elsewhere."""
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    logs.configure(Settings(log_file="-"))
    formatter = log.handlers[0].formatter
    record = log.makeRecord("x", logging.ERROR, "f", 1, "one", (), None)
    assert formatter is not None and not formatter.format(record).startswith("<")


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def heard() -> Heard:
    handler = Heard()
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    return handler


def test_what_a_worker_prints_is_logged_line_by_line(heard: Heard) -> None:
    capture = Capture(selectors.DefaultSelector(), lambda: "worker 3")
    os.write(capture.writing, b"one\ntw")
    assert capture.hear() and heard.lines == ["worker 3 says: one"]
    os.write(capture.writing, b"o\n\x1b[2Jend")
    capture.close()
    assert heard.lines[1:] == ["worker 3 says: two", "worker 3 says: \\x1b[2Jend"]
    capture.hear()
    capture.close()


def test_output_without_an_end_of_line_does_not_gather(heard: Heard) -> None:
    capture = Capture(selectors.DefaultSelector(), lambda: "w")
    os.write(capture.writing, b"x" * (LINE_CEILING + 1))
    capture.hear()
    assert sum(map(len, heard.lines)) == LINE_CEILING + 1 + 2 * len("w says: ")
    capture.close()


def test_a_closed_pipe_is_let_go_of(heard: Heard) -> None:
    selector = selectors.DefaultSelector()
    capture = Capture(selector, lambda: "w")
    capture.given()
    assert not capture.hear()
    assert not selector.get_map()
    capture.forget()


# -- the slow log --------------------------------------------------------------------------------


def test_the_slow_log_has_every_character(tmp_path: Path) -> None:
    path = tmp_path / "slow.log"
    for what in ("GET /wiki/Kö", "GET /wiki/\u6f22"):
        slowlog.write(str(path), what, "its stack")
    text = path.read_text(encoding="utf-8")
    assert "Kö\nits stack\n\n" in text and "\u6f22" in text
    assert not path.stat().st_mode & 0o007


def test_the_slow_log_waits_for_nobody(tmp_path: Path, heard: Heard) -> None:
    os.mkfifo(tmp_path / "fifo")
    slowlog.write(f"{tmp_path}/fifo", "what", None)
    assert heard.lines == [f"--slow-log {tmp_path}/fifo: No such device or address"]

"""Writing the access log."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.entries import PARAMS, entry
from workers.accessformat import Entry, compile_format
from workers.accesslog import LINE_CEILING, AccessLog, take_files
from workers.requestid import RequestIds

EVIL = '"\\\n\r\x1b[2J\x00\x7f\x85\xff GET'


@pytest.mark.parametrize("form", ["combined", "json", "%u %r %q %{HTTP_USER_AGENT}e %f %m %R %l %H %{X}o"])
def test_a_request_cannot_forge_a_line(form: str, tmp_path: Path) -> None:
    params = {name: EVIL for name in (*PARAMS, "HTTP_REFERER", "HTTP_HOST", "SCRIPT_FILENAME")}
    data = written(tmp_path, form, entry(params=params, head=b"X: \"\x1b\\\x01\r\n"))
    assert data.count(b"\n") == 1 and data.endswith(b"\n")
    line = data[:-1]
    assert all(32 <= byte < 127 for byte in line)
    if form == "combined":
        assert line.count(b'"') == 6
    if form == "json":
        json.loads(line)


@pytest.mark.parametrize("form", ["combined", "json"])
def test_a_long_request_makes_no_long_line(form: str, tmp_path: Path) -> None:
    params = {name: "\x01" * 100_000 for name in PARAMS} | {"HTTP_REFERER": "x" * 5000}
    data = written(tmp_path, form, entry(params=params))
    assert len(data) <= LINE_CEILING and data.endswith(b"\n")
    # What stands behind the long texts is still there.
    assert b" 200 34 " in data if form == "combined" else json.loads(data)["status"] == 200


def test_a_line_has_the_time_of_the_clock(tmp_path: Path) -> None:
    earliest = int(time.time())
    begun = time.monotonic_ns()
    data = written(tmp_path, "%{%s}t %{%s}T", entry(begun=begun, took=3600 * 10**9))
    begins, ends = map(int, data.split())
    assert earliest - 1 <= begins <= time.time() and 3599 <= ends - begins <= 3601


def test_a_format_that_is_too_long_by_itself_is_cut(tmp_path: Path) -> None:
    assert written(tmp_path, "x" * 5000, entry()) == b"x" * (LINE_CEILING - 1) + b"\n"


def test_a_full_pipe_that_does_not_block_is_waited_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.accesslog.log.propagate", True)
    waits = threading.Event()
    select_ = select.select
    monkeypatch.setattr("workers.accesslog.select.select", lambda *ends: (waits.set(), select_(*ends)))
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    with open(reading, "rb") as pipe, ThreadPoolExecutor() as others:
        with open(writing, "wb", buffering=0):
            writes = others.submit(AccessLog(writing, compile_format("%s")).write, entry())
            assert waits.wait(20) and not writes.done()
            pipe.read(4096)
            writes.result(timeout=20)
        assert pipe.read().endswith(b"x200\n")
    assert not caplog.records


def written(tmp_path: Path, form: str, *entries: Entry, suppressed: tuple[str, ...] = ()) -> bytes:
    path = tmp_path / "access"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    log = AccessLog(descriptor, compile_format(form), suppressed)
    for one in entries:
        log.write(one)
    os.close(descriptor)
    return path.read_bytes()


SEEN = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/ping"}


@pytest.mark.parametrize(
    ("more", "status", "hidden"),
    [
        ({}, 200, True),
        ({"REQUEST_METHOD": "HEAD", "CONTENT_LENGTH": "0"}, 204, True),
        ({"REQUEST_METHOD": "POST"}, 200, False),
        ({"CONTENT_LENGTH": "1"}, 200, False),
        ({"QUERY_STRING": "x"}, 200, False),
        ({"PATH_INFO": "/ping/"}, 200, False),
        ({}, 302, False),
        ({}, 0, False),
    ],
)
def test_only_what_tells_nothing_can_be_left_out(
    tmp_path: Path, more: dict[str, str], status: int, hidden: bool
) -> None:
    data = written(
        tmp_path, "%s", entry(params={**SEEN, **more}, status=status), suppressed=("/ping", "/status")
    )
    assert (data == b"") is hidden


def test_syslog_gets_a_message_a_line() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with theirs:
        AccessLog(ours.detach(), compile_format("%s"), syslog=True).write(entry())
        message = theirs.recv(4096).decode()
    assert re.fullmatch(rf"<30>[A-Z][a-z]{{2}} [ \d]\d [\d:]{{8}} trac-spawn\[{os.getpid()}\]: 200", message)


def test_a_log_that_cannot_be_written_is_complained_about_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.accesslog.log.propagate", True)
    full = os.open("/dev/full", os.O_WRONLY)
    log = AccessLog(full, compile_format("%s"))
    for _ in range(3):
        log.write(entry())
    os.close(full)
    assert [record.getMessage() for record in caplog.records] == [
        "the access log cannot be written: No space left on device"
    ]


def test_a_fresh_file_takes_the_old_ones_place(tmp_path: Path) -> None:
    old, fresh, other = (os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT) for name in ("a", "b", "c"))
    log = AccessLog(old, compile_format("%s"))
    take_files({"access": fresh}, log)
    log.write(entry())
    assert (tmp_path / "b").read_text() == "200\n" and (tmp_path / "a").read_text() == ""
    take_files({"access": other}, None)
    for closed in (fresh, other):
        with pytest.raises(OSError):
            os.fstat(closed)
    os.close(old)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"HTTP_X_REQUEST_ID": "a.b-c_1", "UNIQUE_ID": "no"}, "a.b-c_1"),
        ({"HTTP_X_REQUEST_ID": "two words", "UNIQUE_ID": "Y1@x+/="}, "Y1@x+/="),
        ({"REQUEST_ID": "0" * 64}, "0" * 64),
    ],
)
def test_the_id_that_came_with_a_request(params: dict[str, str], expected: str) -> None:
    assert RequestIds().of(params) == expected


@pytest.mark.parametrize("bad", ["", "a\r\nSet-Cookie: x", "x" * 65, '"', "\xe9"])
def test_an_id_that_could_forge_something_is_not_taken(bad: str) -> None:
    ids = RequestIds()
    made = [ids.of({"HTTP_X_REQUEST_ID": bad}), ids.of({}), RequestIds().of({})]
    assert len(set(made)) == 3
    assert all(re.fullmatch("[0-9a-f]{18}", one) for one in made)

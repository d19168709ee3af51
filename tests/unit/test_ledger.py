"""What a worker notes of its requests."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from workers.accessformat import compile_format
from workers.accesslog import AccessLog
from workers.ledger import Ledger, waited
from workers.scoreboard import Scoreboard
from workers.wsgi import Result


def test_a_request_is_counted_with_its_time() -> None:
    slot = Scoreboard(1).slot(1)
    ledger = Ledger(slot, None, "trac", 1)
    begun = ledger.begin({"REQUEST_METHOD": "POST", "REQUEST_URI": "/x"})
    assert slot.snapshot().request_started == begun
    took = ledger.end(Result(302, 11, True))
    found = slot.snapshot()
    assert (found.last_duration, found.last_status, found.sent) == (took, 302, 11)
    assert [kind for kind in found.counters.answers() if kind[2]] == [("POST", "3xx", 1)]


def test_a_line_is_written_with_what_is_known_of_the_request(tmp_path: Path) -> None:
    with open(tmp_path / "access", "ab") as file:
        log = AccessLog(file.fileno(), compile_format("%m %s %b %i %n %w %{user}C %{system}C %M"))
        ledger = Ledger(Scoreboard(1).slot(1), log, "trac", 7)
        ledger.begin({"REQUEST_METHOD": "POST", "UNIQUE_ID": "an-id"})
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        ledger.end(Result(302, 11, True))
    *words, user, system, memory = (tmp_path / "access").read_text().split()
    assert words == ["POST", "302", "11", "an-id", "trac", "7"]
    assert float(user) + float(system) > 0 and int(memory) > 0


def test_memory_is_looked_at_now_and_then() -> None:
    slot = Scoreboard(1).slot(1)
    ledger = Ledger(slot, None, "trac", 1)
    ledger.begin({})
    ledger.end(Result(200, 0, True))
    found = slot.snapshot()
    assert found.resident > found.proportional >= found.private > 0


def test_the_size_alone_is_known_at_once() -> None:
    slot = Scoreboard(1).slot(1)
    Ledger(slot, None, "trac", 1).measure_size()
    found = slot.snapshot()
    assert found.resident > 0
    assert found.proportional == found.private == 0


def test_memory_of_a_worker_without_requests_is_looked_at_once() -> None:
    slot = Scoreboard(1).slot(1)
    ledger = Ledger(slot, None, "trac", 1)
    ledger.look_at_memory()
    assert slot.snapshot().resident > 0
    slot.memory(0, 0, 0)
    ledger.look_at_memory()
    assert slot.snapshot().resident == 0


@pytest.mark.parametrize(
    ("since", "wait"),
    [
        ("t=1700000000.25", 1.75),
        ("1700000000.25", 1.75),
        ("t=1700000000250", 1.75),
        ("t=1700000000250000", 1.75),
        ("t=1700000002.5", None),
        ("t=1", None),
        ("", None),
        ("t=", None),
        ("nan", None),
        ("-inf", None),
        ("1" * 100_000, None),
    ],
)
def test_since_when_a_request_waits(since: str, wait: float | None) -> None:
    found = waited(since, now=1700000002.0)
    assert found == (None if wait is None else pytest.approx(wait * 1e9))


def test_what_the_web_server_says_of_the_wait_is_more_than_what_the_kernel_says() -> None:
    slot = Scoreboard(1).slot(1)
    ledger = Ledger(slot, None, "trac", 1)
    for params in ({}, {"HTTP_X_REQUEST_START": f"t={time.time() - 100}"}):
        ledger.begin(params, 2_000_000)
        ledger.end(Result(200, 0, True))
    waits = slot.snapshot().counters.waits
    assert waits.count == 2 and 100e9 < waits.sum_ns < 200e9

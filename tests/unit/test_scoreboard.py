"""Slots in shared memory."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time

import pytest

from workers.scoreboard import Scoreboard, Slot
from workers.snapshot import SLOT_BYTES, WORDS, Counters, Gauge, PoolGauge, Snapshot, Stage

GET = {"REQUEST_METHOD": "GET", "REQUEST_URI": "/wiki?a=1", "REMOTE_USER": "joe", "REMOTE_ADDR": "::1"}


def answer(slot: Slot, status: int = 200, sent: int = 10, method: str = "GET", took: int = 10**6) -> None:
    slot.begin(time.monotonic_ns(), {**GET, "REQUEST_METHOD": method})
    slot.end(method, status, sent, took, took // 2)


def test_a_new_slot_is_empty_and_idle() -> None:
    found = Scoreboard(2).slot(1).snapshot()
    assert (found.stage, found.busy, found.requests, found.request) == (Stage.EMPTY, False, 0, "")
    assert found.letter == "."


def test_a_worker_from_beginning_to_end() -> None:
    slot = Scoreboard(1).slot(1)
    slot.occupy(4711, 3, 10**18)
    assert slot.snapshot().letter == "_"
    now = time.monotonic_ns()
    slot.begin(now, {**GET, "CONTENT_LENGTH": "77", "SCRIPT_NAME": "/trac"}, "id-1")
    found = slot.snapshot()
    assert (found.pid, found.generation, found.born, found.letter) == (4711, 3, 10**18, "W")
    assert (found.busy, found.request_started, found.content_length) == (True, now, 77)
    assert (found.method, found.uri, found.user) == ("GET", "/wiki?a=1", "joe")
    assert (found.address, found.script, found.request_id) == ("::1", "/trac", "id-1")
    slot.end("GET", 404, 500, 7_000_000, 2_000_000)
    found = slot.snapshot()
    assert (found.busy, found.requests, found.letter) == (False, 1, "_")
    assert (found.last_status, found.sent) == (404, 500)
    assert (found.last_duration, found.last_cpu) == (7_000_000, 2_000_000)
    assert found.request == "GET /wiki?a=1 user='joe' id=id-1"
    slot.leave()
    assert slot.snapshot().letter == "G"


def test_what_is_counted() -> None:
    slot = Scoreboard(1).slot(1)
    answer(slot, 200, 10, "GET", 900_000)
    answer(slot, 304, 0, "GET", 1_000_000)
    answer(slot, 404, 20, "BREW", 4_000_000_000)
    slot.begin(1, {**GET, "CONTENT_LENGTH": "5"})
    slot.end("POST", 200, 1, 10**12, 0, whole=False)
    slot.waited(3_000_000)
    counted = slot.snapshot().counters
    assert (counted.requests, counted.bytes_out, counted.bytes_in) == (4, 31, 5)
    assert [found for found in counted.answers() if found[2]] == [
        ("GET", "2xx", 1), ("GET", "3xx", 1), ("POST", "cut", 1), ("other", "4xx", 1),
    ]  # fmt: skip
    assert counted.of_class("2xx") == 1
    cumulative = dict(counted.durations.cumulative())
    # A bound belongs to its bucket, as Prometheus has it.
    assert (cumulative["0.001"], cumulative["2.5"], cumulative["5"], cumulative["+Inf"]) == (2, 2, 3, 4)
    assert counted.durations.sum_ns == 900_000 + 1_000_000 + 4 * 10**9 + 10**12
    assert (counted.waits.count, counted.waits.sum_ns) == (1, 3_000_000)


def test_slots_are_apart_up_to_the_last() -> None:
    board = Scoreboard(3)
    for number in (1, 2, 3):
        for _ in range(number):
            answer(board.slot(number))
    board.slot(2).begin(7, {"REQUEST_METHOD": "PUT", "REQUEST_URI": "/2"})
    found = [board.slot(number).snapshot() for number in (1, 2, 3)]
    assert [(slot.requests, slot.busy) for slot in found] == [(1, False), (2, True), (3, False)]
    assert found[1].request == "PUT /2"


def test_what_a_worker_has_counted_outlives_it() -> None:
    board = Scoreboard(2)
    for number in (1, 2):
        board.assign(number).occupy(number, 1, 1)
        answer(board.slot(number))
        board.slot(number).memory(number * 1000, 0, 0)
    before = board.snapshot()
    board.release(2)
    after = board.snapshot()
    assert before.totals == after.totals
    assert after.totals.requests == 2
    assert [worker.number for worker in after.workers] == [1]
    assert after.resident_peak == 2000
    assert board.slot(2).snapshot() == Scoreboard(2).slot(2).snapshot()
    # Whoever comes next begins at nothing, and the sum goes on.
    board.assign(2).occupy(3, 1, 1)
    answer(board.slot(2))
    assert board.snapshot().totals.requests == 3


def test_how_many_were_busy_at_once_never_falls() -> None:
    """Whoever has told it: a worker, also one that is gone, the status process, or the master."""
    board = Scoreboard(3)
    slots = [board.assign(number) for number in (1, 2, 3)]
    for slot in slots:
        slot.occupy(1, 1, 0)
        slot.begin(1, {})
    told = board.snapshot().active_peak
    slots[0].show_peak(told)
    for slot in slots:
        slot.end("GET", 200, 0, 1, 1)
    found = board.snapshot()
    assert (told, found.active, found.active_peak) == (3, 0, 3)
    board.release(1)
    assert board.snapshot().active_peak == 3
    board.note(PoolGauge.ACTIVE_SHOWN, 5)
    assert board.snapshot().active_peak == 5
    board.note_peak(PoolGauge.ACTIVE_PEAK, 7)
    board.note_peak(PoolGauge.ACTIVE_PEAK, 6)
    assert board.snapshot().active_peak == 7


def test_a_request_in_progress_is_accepted_but_not_answered() -> None:
    board = Scoreboard(1)
    board.assign(1).occupy(1, 1, 1)
    board.slot(1).begin(1, GET)
    found = board.snapshot()
    assert (found.active, found.totals.accepted, found.totals.requests) == (1, 1, 0)


def test_the_pools_own_values_are_not_counted() -> None:
    board = Scoreboard(1)
    board.note(PoolGauge.QUEUE, 12)
    assert board.noted(PoolGauge.QUEUE) == 12
    assert board.snapshot().gauges[PoolGauge.QUEUE] == 12
    assert board.snapshot().totals.requests == 0


def test_another_master_goes_on_from_the_same_sums() -> None:
    board = Scoreboard(1)
    board.assign(1)
    answer(board.slot(1), 503, 9, "POST", 10**10)
    board.slot(1).waited(10**8)
    told = json.loads(json.dumps(board.snapshot().totals.to_json()))
    other = Scoreboard(1)
    other.add(Counters.from_json(told))
    assert other.snapshot().totals == board.snapshot().totals


def test_what_another_version_does_not_tell_is_nothing() -> None:
    known = Counters.from_json({"requests": 3, "moons": 2, "answers": {"GET 2xx": 3, "FLY 9xx": 1}})
    assert (known.requests, known.bytes_out, known.of_class("2xx")) == (3, 0, 3)


def test_two_views_of_one_slot_see_the_same() -> None:
    board = Scoreboard(1)
    board.slot(1).begin(2**63, {})
    assert board.slot(1).snapshot().request_started == 2**63


@pytest.mark.parametrize(
    "params",
    [
        {name: "x" * 100_000 for name in (*GET, "SCRIPT_NAME")},
        {**GET, "REQUEST_METHOD": "G\0ET", "REMOTE_USER": "\0" * 50, "REQUEST_URI": "/\0"},
        {**GET, "REQUEST_URI": "/\u20ac", "CONTENT_LENGTH": "9" * 400},
        {**GET, "CONTENT_LENGTH": "-1"},
    ],
    ids=["long", "NUL", "not latin-1", "negative"],
)
def test_parameters_of_all_kinds_stay_in_their_slot(params: dict[str, str]) -> None:
    board = Scoreboard(2)
    board.slot(2).begin(1, {"REQUEST_METHOD": "GET", "REQUEST_URI": "/2"})
    board.slot(1).begin(1, params, "the-id")
    found = board.slot(1).snapshot()
    assert found.request_id == "the-id"
    assert len(found.uri) <= 255 and found.content_length == 0
    assert found.request.isprintable()
    assert board.slot(2).snapshot().request == "GET /2"


def test_a_request_whose_text_was_just_being_written_is_not_misread() -> None:
    """Killed at any point of begin(): the reader gets all of a text or nothing of it."""
    board = Scoreboard(1)
    slot = board.assign(1)
    slot.occupy(1, 1, 1)
    slot.begin(1, GET)
    slot.end("GET", 200, 0, 1, 1)
    words = slot._words
    words[Gauge.SEQUENCE] += 1  # as begin() does first
    slot._text[:4] = b"half"
    for found in (slot.snapshot(), *board.snapshot().workers):
        assert (found.request, found.requests, found.busy) == ("", 1, False)


def test_garbage_is_read_without_an_error() -> None:
    """A C extension that has gone wild can write here too, and the master reads it."""
    for byte in (b"\xff", b"\xfe", b"\0", b"A"):
        Snapshot.parse(byte * SLOT_BYTES)
        found = Snapshot.parse(bytes(8) + byte * (SLOT_BYTES - 8))
        assert found.request.isprintable()
    assert WORDS % 8 == 0


def test_killed_writers_leave_no_half_text_behind() -> None:
    """Real processes, killed at a random moment of writing without a pause."""
    board = Scoreboard(1)
    fork = multiprocessing.get_context("fork")
    for _ in range(20):
        slot = board.assign(1)
        child = fork.Process(target=_write_for_ever, args=(slot,))
        child.start()
        while slot.snapshot().requests < 50:
            pass
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        found = slot.snapshot()
        if found.uri:
            assert len(set(found.uri)) == 1 and found.user == found.uri[:64], found.request
        before = board.snapshot().totals.requests
        board.release(1)
        assert board.snapshot().totals.requests == before


def _write_for_ever(slot: Slot) -> None:
    texts = [{"REQUEST_URI": letter * 200, "REMOTE_USER": letter * 64} for letter in "abc"]
    while True:
        for params in texts:
            slot.begin(1, params)
            slot.end("GET", 200, 1, 1, 1)


def test_readers_never_see_a_sum_fall() -> None:
    """While workers come and go as fast as they can."""
    board = Scoreboard(4)
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=_come_and_go, args=(board,))
    child.start()
    try:
        latest = 0
        until = time.monotonic() + 0.3
        while time.monotonic() < until or latest < 100:
            found = board.snapshot().totals.requests
            assert found >= latest
            latest = found
    finally:
        child.kill()
        child.join()


def _come_and_go(board: Scoreboard) -> None:
    while True:
        for number in (1, 2, 3, 4):
            slot = board.assign(number)
            slot.occupy(1, 1, 1)
            answer(slot)
        # As a real master, it is not always at it.
        time.sleep(0.0005)


def test_idle_since_when_and_with_what() -> None:
    board = Scoreboard(1)
    slot = board.assign(1)
    assert (slot.busy, slot.requests, slot.idle_since, slot.connections) == (False, 0, 0, 0)
    slot.begin(1000, GET)
    slot.hold(3)
    assert (slot.busy, slot.connections) == (True, 3)
    slot.end("GET", 200, 1, 7, 1)
    assert (slot.busy, slot.requests, slot.idle_since) == (False, 1, 1007)
    board.release(1)
    assert (slot.idle_since, slot.connections) == (0, 0)

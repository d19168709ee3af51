"""Slots in shared memory."""

from __future__ import annotations

import time

from workers.scoreboard import TEXT_CEILING, Scoreboard, Snapshot


def test_a_new_slot_is_idle() -> None:
    assert Scoreboard(2).slot(1).snapshot() == Snapshot(False, 0, 0)


def test_a_request_from_beginning_to_end() -> None:
    slot = Scoreboard(1).slot(1)
    now = time.monotonic_ns()
    slot.begin(now, "GET /wiki")
    assert slot.snapshot() == Snapshot(True, 0, now, "GET /wiki")
    slot.end()
    assert slot.snapshot() == Snapshot(False, 1, 0, "GET /wiki")


def test_slots_are_apart_up_to_the_last() -> None:
    board = Scoreboard(3)
    for number in (1, 2, 3):
        for _ in range(number):
            board.slot(number).begin(number, f"GET /{number}")
            board.slot(number).end()
    board.slot(2).begin(7, "PUT /2")
    assert [board.slot(n).snapshot() for n in (1, 2, 3)] == [
        Snapshot(False, 1, 0, "GET /1"),
        Snapshot(True, 2, 7, "PUT /2"),
        Snapshot(False, 3, 0, "GET /3"),
    ]


def test_a_slot_is_clean_for_the_next_worker() -> None:
    board = Scoreboard(2)
    for number in (1, 2):
        board.slot(number).begin(1, "GET /")
    board.slot(1).clear()
    assert board.slot(1).snapshot() == Snapshot(False, 0, 0)
    assert board.slot(2).snapshot() == Snapshot(True, 0, 1, "GET /")


def test_two_views_of_one_slot_see_the_same() -> None:
    board = Scoreboard(1)
    board.slot(1).begin(2**63, "")
    assert board.slot(1).snapshot().request_started == 2**63


def test_a_request_in_too_many_words_is_cut() -> None:
    board = Scoreboard(2)
    board.slot(2).begin(1, "GET /2")
    board.slot(1).begin(1, "GET /" + "x" * 10_000)
    assert board.slot(1).snapshot().request == ("GET /" + "x" * 10_000)[:TEXT_CEILING]
    assert board.slot(2).snapshot().request == "GET /2"

"""Slots in shared memory."""

from __future__ import annotations

import time

from workers.scoreboard import Scoreboard, Snapshot


def test_a_new_slot_is_idle() -> None:
    assert Scoreboard(2).slot(1).snapshot() == Snapshot(False, 0, 0)


def test_a_request_from_beginning_to_end() -> None:
    slot = Scoreboard(1).slot(1)
    now = time.monotonic_ns()
    slot.begin(now)
    assert slot.snapshot() == Snapshot(True, 0, now)
    slot.end()
    assert slot.snapshot() == Snapshot(False, 1, 0)


def test_slots_are_apart_up_to_the_last() -> None:
    board = Scoreboard(3)
    for number in (1, 2, 3):
        for _ in range(number):
            board.slot(number).begin(number)
            board.slot(number).end()
    board.slot(2).begin(7)
    assert [board.slot(n).snapshot() for n in (1, 2, 3)] == [
        Snapshot(False, 1, 0),
        Snapshot(True, 2, 7),
        Snapshot(False, 3, 0),
    ]


def test_a_slot_is_clean_for_the_next_worker() -> None:
    board = Scoreboard(2)
    for number in (1, 2):
        board.slot(number).begin(1)
    board.slot(1).clear()
    assert board.slot(1).snapshot() == Snapshot(False, 0, 0)
    assert board.slot(2).snapshot() == Snapshot(True, 0, 1)


def test_two_views_of_one_slot_see_the_same() -> None:
    board = Scoreboard(1)
    board.slot(1).begin(2**63)
    assert board.slot(1).snapshot().request_started == 2**63

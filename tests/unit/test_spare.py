"""When a worker is forked ahead, and what it is told; real ones are for the system tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from spawner.children import SPARE, WorkerHandle
from spawner.pool import WorkerState
from spawner.spare import CALM, Spare
from workers.channel import Channel
from workers.scoreboard import Scoreboard


class Pool:
    """One that is as it should be, with a clock of its own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.board = Scoreboard(3)
        self.workers: dict[int, WorkerHandle] = {}
        self.spare = Spare(self.workers, lambda: self.now)
        self.ends: list[Channel] = []

    def fork(self, number: int = SPARE) -> WorkerHandle:
        ours, theirs = Channel.pair()
        self.ends += [ours, theirs]
        state = WorkerState.STARTING if number else WorkerState.SPARE
        worker = WorkerHandle(number, 1, ours, self.board.slot(number), state, 700 + number)
        self.workers[number] = worker
        return worker

    def told(self) -> list[object]:
        """What the worker that was forked last has heard."""
        found: list[object] = []
        while self.ends[-1].waits():
            found.append(self.ends[-1].receive()[0])
        return found


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    for end in pool.ends:
        end.close()


def test_it_becomes_a_worker_by_being_given_a_number(pool: Pool) -> None:
    assert pool.spare.lacking and pool.spare.employ(1, pool.board.slot(1)) is None
    worker = pool.fork()
    assert not pool.spare.lacking and pool.spare.worker is worker
    assert worker.describe() == "spare gen 1 (pid 700)"
    pool.now += 50
    slot = pool.board.slot(2)
    assert pool.spare.employ(2, slot) is worker
    assert pool.told() == [{"command": "serve", "number": 2}]
    assert (worker.number, worker.state, worker.born) == (2, WorkerState.STARTING, pool.now)
    assert worker.slot is slot
    assert worker.describe() == "worker 2 gen 1 (pid 700)"
    assert pool.workers == {}
    # The next one lets it answer first.
    assert pool.spare.due == pool.now + CALM


def test_none_is_forked_while_workers_are_on_their_way(pool: Pool) -> None:
    worker = pool.fork(1)
    assert not pool.spare.lacking
    worker.state = WorkerState.READY
    assert pool.spare.lacking


def test_one_that_is_gone_cannot_be_employed(pool: Pool) -> None:
    worker = pool.fork()
    pool.ends[-1].close()
    assert pool.spare.employ(1, pool.board.slot(1)) is None
    assert pool.workers == {SPARE: worker} and worker.number == SPARE


def test_one_that_is_dismissed_is_told_once(pool: Pool) -> None:
    worker = pool.fork()
    for _ in range(2):
        pool.spare.dismiss()
    assert pool.told() == [{"command": "retire"}]
    assert worker.state is WorkerState.LEAVING and pool.spare.worker is None
    assert pool.spare.employ(1, pool.board.slot(1)) is None
    # It is in the way until it has been reaped, which keeps nobody waiting.
    assert not pool.spare.lacking
    del pool.workers[SPARE]
    pool.spare.ended(worker, 0)
    assert pool.spare.due <= pool.now


def test_those_that_keep_dying_are_forked_later_and_later(pool: Pool) -> None:
    delays = []
    for _ in range(5):
        worker = pool.fork()
        worker.born = pool.now = pool.spare.due + 1
        del pool.workers[SPARE]
        pool.spare.ended(worker, signal.SIGKILL)
        delays.append(round(pool.spare.due - pool.now, 3))
    assert delays == [CALM, CALM, 0.4, 0.8, 1.6]
    pool.fork()
    assert pool.spare.employ(1, pool.board.slot(1)) is not None
    worker = pool.fork()
    worker.born = pool.now = pool.spare.due + 1
    pool.spare.ended(worker, None)
    assert round(pool.spare.due - pool.now, 3) == CALM

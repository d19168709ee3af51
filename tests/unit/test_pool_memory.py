"""--pool-memory: who has to go, measured on a real process: this one."""

from __future__ import annotations

import os

import pytest

from spawner.children import WorkerHandle
from spawner.pool import WorkerState
from spawner.poolmemory import INTERVAL, PoolMemory
from workers.channel import Channel
from workers.recycling import private_memory, resident_memory, shares_of_memory
from workers.scoreboard import Scoreboard

NOW = 1000.0


def worker(number: int, requests: int = 1, pid: int = os.getpid()) -> WorkerHandle:
    ours, theirs = Channel.pair()
    ours.close()
    theirs.close()
    slot = Scoreboard(1).slot(1)
    for _ in range(requests):
        slot.end("GET", 200, 1, 1, 1)
    return WorkerHandle(number, 1, ours, slot, WorkerState.READY, pid)


def test_what_counts_is_between_private_and_resident() -> None:
    pid = os.getpid()
    assert 0 < private_memory(pid) <= shares_of_memory(pid)[0] <= resident_memory(pid)


def test_below_the_limit_nobody_goes() -> None:
    memory = PoolMemory(1 << 40)
    assert memory.check([worker(1)], [], NOW) is None
    assert not memory.over


def test_without_a_limit_it_never_looks() -> None:
    assert PoolMemory(0).due == float("inf")


def test_the_fattest_idle_one_goes() -> None:
    fat = worker(2)
    gone = worker(1, pid=2**22 + 1)  # above the highest pid there is
    memory = PoolMemory(1)
    found = memory.check([gone, fat], [], NOW)
    assert memory.over and found is not None
    assert found[0] is fat
    assert found[1].startswith("pool-memory (")


def test_busy_new_and_leaving_ones_are_left_alone() -> None:
    busy, new, leaving = worker(1), worker(2, requests=0), worker(3)
    busy.slot.begin(1, {})
    leaving.state = WorkerState.LEAVING
    memory = PoolMemory(1)
    assert memory.check([busy, new, leaving], [], NOW) is None
    assert memory.over


def test_one_at_a_time_and_once_in_a_while() -> None:
    first, second = worker(1), worker(2)
    memory = PoolMemory(1)
    found = memory.check([first, second], [], NOW)
    assert found is not None
    found[0].reason = found[1]
    assert memory.due == NOW + INTERVAL
    assert memory.check([first, second], [], NOW + INTERVAL / 2) is None
    assert memory.check([first, second], [], NOW + INTERVAL) is None
    found[0].reason = ""
    assert memory.check([first, second], [], NOW + 2 * INTERVAL) is not None


def test_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    memory = PoolMemory(1)
    for look in range(3):
        memory.check([worker(1)], [], NOW + look * INTERVAL)
    assert [record.levelname for record in caplog.records] == ["WARNING"]

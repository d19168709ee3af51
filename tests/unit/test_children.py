"""What the master knows of its children; forking them is for the system tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from spawner.children import (
    TemplateHandle,
    WorkerHandle,
    describe_status,
    send_signal,
)
from spawner.hardmemory import INTERVAL, HardMemory
from workers.channel import Channel
from workers.scoreboard import Scoreboard

NOBODY = 2**22 + 1  # above the kernel's largest pid
MIB = 1 << 20


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def worker(ends: tuple[Channel, Channel]) -> WorkerHandle:
    return WorkerHandle(3, 2, ends[0], Scoreboard(3).slot(3))


@pytest.mark.parametrize(
    "status, words",
    [
        (0, "exit status 0"),
        (70 << 8, "exit status 70"),
        (9, "SIGKILL"),
        (11 | 0x80, "SIGSEGV"),  # with a core file
        (40, "signal 40"),  # a real-time signal has no name
    ],
)
def test_how_a_child_ended_in_words(status: int, words: str) -> None:
    assert describe_status(status) == words


def test_a_worker_describes_itself(worker: WorkerHandle) -> None:
    assert worker.describe() == "worker 3 gen 2 (pid unknown)"
    worker.pid = 812
    assert worker.describe() == "worker 3 gen 2 (pid 812)"


def test_a_template_describes_itself(ends: tuple[Channel, Channel]) -> None:
    assert TemplateHandle(2, ends[0], 812).describe() == "template gen 2 (pid 812)"


def test_a_reason_makes_a_worker_worn(worker: WorkerHandle) -> None:
    assert not worker.worn
    worker.reason = "max-age"
    assert worker.worn


def test_a_worker_is_told(worker: WorkerHandle, ends: tuple[Channel, Channel]) -> None:
    worker.tell("drain")
    assert ends[1].receive() == ({"command": "drain"}, [])


def test_a_worker_without_a_pid_is_not_signalled(worker: WorkerHandle) -> None:
    worker.signal(signal.SIGKILL)


def test_a_signal_to_nobody_is_no_error() -> None:
    send_signal(NOBODY, signal.SIGKILL)


def test_hard_memory_names_who_is_over_it(worker: WorkerHandle) -> None:
    worker.pid = os.getpid()
    limit = HardMemory(MIB)
    ((who, size),) = limit.exceeding([worker], now=10.0)
    assert who is worker
    assert size.endswith(" MiB private")


def test_hard_memory_looks_now_and_then(worker: WorkerHandle) -> None:
    worker.pid = os.getpid()
    limit = HardMemory(MIB)
    assert list(limit.exceeding([worker], now=10.0))
    assert limit.due == 10.0 + INTERVAL
    assert list(limit.exceeding([worker], now=10.1)) == []
    assert list(limit.exceeding([worker], now=10.0 + INTERVAL))


def test_hard_memory_spares_the_others(worker: WorkerHandle) -> None:
    worker.pid = os.getpid()
    assert list(HardMemory(1 << 50).exceeding([worker], now=10.0)) == []
    worker.kill_at = 11.0
    assert list(HardMemory(MIB).exceeding([worker], now=10.0)) == []  # it is being killed
    worker.kill_at, worker.pid = None, NOBODY
    assert list(HardMemory(MIB).exceeding([worker], now=10.0)) == []
    worker.pid = None
    assert list(HardMemory(MIB).exceeding([worker], now=10.0)) == []


def test_without_hard_memory_nobody_looks(worker: WorkerHandle) -> None:
    worker.pid = os.getpid()
    limit = HardMemory(0)
    assert limit.due == float("inf")
    assert list(limit.exceeding([worker], now=10.0)) == []

"""What children may take of time, by a fake clock; nobody is signalled, since nobody has these pids."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from spawner import limits
from spawner.children import TemplateHandle, WorkerHandle
from spawner.limits import STOPPED_GRACE, Limits
from spawner.losttime import LostTime
from spawner.pool import WorkerState
from spawner.settings import Settings
from workers.channel import Channel
from workers.scoreboard import Scoreboard

NOBODY = 2**22 + 1  # above the kernel's largest pid


class Pool:
    """Its Limits, and what they have ordered: who was retired and who was killed."""

    def __init__(self, settings: Settings, channel: Channel) -> None:
        self.now = 1000.0
        self.retired: list[str] = []
        self.killed: list[int] = []
        self.templates: list[TemplateHandle] = []
        self.worker = WorkerHandle(
            1, 1, channel, Scoreboard(1).slot(1), WorkerState.READY, NOBODY, born=self.now
        )
        self.limits = Limits(settings, self.retire, lambda worker: None)

    def monotonic(self) -> float:
        return self.now

    def retire(self, worker: WorkerHandle, reason: str) -> None:
        self.retired.append(reason)
        worker.reason, worker.state = reason, WorkerState.LEAVING

    def run(self, seconds: float) -> None:
        """The master's loop for so long: it sleeps until the next deadline, and is on time."""
        until = self.now + seconds
        while True:
            deadline = self.limits.next_deadline([self.worker], self.templates)
            self.now = min(until, max(self.now, deadline))
            if deadline > until:
                return
            self.limits.check([self.worker], self.templates)

    def freeze(self, seconds: float) -> None:
        """Nobody runs, and the clock does; then the master's sleep is over."""
        self.limits.next_deadline([self.worker], self.templates)
        self.now += seconds
        self.limits.check([self.worker], self.templates)

    def begin_request(self) -> None:
        self.worker.slot.begin(int(self.now * 1e9), {"REQUEST_METHOD": "GET", "REQUEST_URI": "/slow"})


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    ours, theirs = Channel.pair()
    with ours, theirs:
        pool = Pool(Settings(request_timeout=10.0, kill_after=5.0, startup_timeout=60.0), ours)
        monkeypatch.setattr(limits, "time", pool)
        monkeypatch.setattr(limits, "send_signal", lambda pid, number: pool.killed.append(pid))
        monkeypatch.setattr(
            WorkerHandle, "signal", lambda worker, number: pool.killed.append(int(number))
        )
        yield pool


def test_a_request_is_ended_when_its_time_is_over(pool: Pool) -> None:
    pool.run(3.0)
    pool.begin_request()
    pool.run(9.5)
    assert pool.retired == []
    pool.run(1.0)
    (reason,) = pool.retired
    assert reason.startswith("request-timeout (10.")
    assert len(pool.killed) == 1  # told to end the request
    pool.run(4.0)
    assert len(pool.killed) == 1
    pool.run(1.0)
    assert pool.killed[1:] == [9]


def test_frozen_time_is_no_requests_fault(pool: Pool) -> None:
    pool.run(1.0)
    pool.begin_request()
    pool.run(4.0)
    pool.freeze(3600.0)
    pool.run(5.0)
    assert pool.retired == []
    pool.run(1.5)
    assert len(pool.retired) == 1
    # Nor that of a worker which has begun to end.
    pool.freeze(3600.0)
    pool.run(3.0)
    assert len(pool.killed) == 1


def test_a_request_that_came_when_all_went_on_is_not_excused(pool: Pool) -> None:
    pool.run(1.0)
    pool.freeze(3600.0)
    pool.begin_request()
    pool.run(10.5)
    assert len(pool.retired) == 1


def test_frozen_time_is_no_fault_of_who_loads(pool: Pool) -> None:
    pool.worker.state = WorkerState.STARTING
    pool.run(30.0)
    pool.freeze(3600.0)
    pool.run(29.0)
    assert pool.killed == []
    pool.run(2.0)
    assert pool.killed == [NOBODY]
    assert "--startup-timeout" in str(pool.worker.failure)


def test_a_glance_at_a_stopped_worker_costs_nothing(pool: Pool) -> None:
    pool.worker.stopped = pool.now
    pool.run(STOPPED_GRACE / 2)
    pool.worker.stopped = None
    pool.run(60.0)
    assert (pool.retired, pool.killed) == ([], [])


def test_a_stopped_worker_is_retired_then_killed(pool: Pool) -> None:
    pool.worker.stopped = pool.now
    pool.run(STOPPED_GRACE)
    assert pool.retired == ["stopped by a signal"]
    pool.run(4.9)
    assert pool.killed == []
    pool.run(0.2)
    assert pool.killed == [NOBODY]


def test_a_stopped_template_is_killed(pool: Pool) -> None:
    template = TemplateHandle(1, pool.worker.channel, NOBODY + 1, ready=True, stopped=pool.now)
    pool.templates.append(template)
    pool.run(STOPPED_GRACE + 4.9)
    assert pool.killed == []
    pool.run(0.2)
    assert pool.killed == [NOBODY + 1]


def test_a_template_in_which_a_fork_hangs_is_killed(pool: Pool) -> None:
    pool.templates.append(TemplateHandle(1, pool.worker.channel, NOBODY + 1, ready=True))
    pool.worker.state, pool.worker.pid = WorkerState.STARTING, None
    pool.run(61.0)
    assert pool.killed == [NOBODY + 1]
    assert pool.worker.failure is not None


def test_lost_time() -> None:
    lost = LostTime()
    assert lost.noticed(10.0, 10.9) == 0.0
    assert lost.noticed(10.0, 9.0) == 0.0  # woken by something else
    assert lost.since(0.0) == 0.0
    assert lost.noticed(20.0, 30.0) == 10.0
    assert lost.noticed(40.0, 42.0) == 2.0
    assert lost.since(15.0) == 12.0
    assert lost.since(25.0) == 7.0  # it began meanwhile
    assert lost.since(35.0) == 2.0
    assert lost.since(50.0) == 0.0

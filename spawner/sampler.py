"""The master's look at its pools once a second, for whoever shows their status: what only it can see goes
onto the scoreboard, from where workers and others read it."""

from __future__ import annotations

import time
from typing import Callable, Iterable

from spawner.listenqueue import queues_of
from spawner.pool import WorkerState
from spawner.supervisor import Supervisor
from workers.poolstatus import UNKNOWN
from workers.snapshot import PoolGauge

#: Seconds from one look to the next, as php-fpm has it: peaks between two are not seen.
INTERVAL = 1.0


class Sampler:
    """Has nothing to do, and no deadline, while no pool's status is to be seen.

    ``seen_apart``: all pools can be seen otherwise than by their own --status-path; then ``tell``
    passes on what else the master knows.
    """

    def __init__(
        self,
        pools: Callable[[], Iterable[Supervisor]],
        seen_apart: Callable[[], bool],
        tell: Callable[[], None],
    ) -> None:
        self._pools = pools
        self._seen_apart = seen_apart
        self._tell = tell
        self._due = 0.0
        #: Whether somebody could see all pools at the last look.
        self._told = False

    def next_deadline(self) -> float:
        """When check_clock() is due, on the monotonic clock; infinity when nothing is."""
        return self._due if any(self._watched()) else float("inf")

    def check_clock(self) -> None:
        now = time.monotonic()
        apart = self._seen_apart()
        # Whoever begins to look, as after an upgrade, is told at once.
        if now < self._due and apart <= self._told:
            return
        self._due = now + INTERVAL
        self._told = apart
        for pool in self._watched():
            waiting = sample(pool)
            if apart:
                remember(pool, waiting)
        if apart:
            self._tell()

    def _watched(self) -> Iterable[Supervisor]:
        apart = self._seen_apart()
        return (pool for pool in self._pools() if apart or pool.workplace.settings.status_path)


def sample(pool: Supervisor) -> int:
    """Write down what the pool is now; how many connections wait."""
    board = pool.workplace.scoreboard
    queues = queues_of([listener.socket for listener in pool.workplace.listeners])
    known = [queue for queue in queues if queue is not None]
    waiting = sum(queue.waiting for queue in known)
    busy = sum(worker.slot.busy for worker in pool.workers if worker.state is not WorkerState.STARTING)
    for gauge, value in (
        (PoolGauge.GENERATION, pool.current.number),
        (PoolGauge.TARGET, pool.target),
        (PoolGauge.CEILING_REACHED, pool.scaling.max_reached),
        (PoolGauge.QUEUE, waiting if known else UNKNOWN),
        (PoolGauge.QUEUE_LIMIT, sum(queue.limit for queue in known)),
        (PoolGauge.SLOW, pool.slow_requests),
        (PoolGauge.CEILING, pool.scaling.maximum),
        (PoolGauge.SAMPLED, time.time_ns()),
    ):
        board.note(gauge, value)
    board.note_peak(PoolGauge.QUEUE_PEAK, waiting)
    board.note_peak(PoolGauge.ACTIVE_PEAK, busy)
    return waiting


def remember(pool: Supervisor, waiting: int) -> None:
    """For the graphs. Not in a master that has not taken over yet: it does not know so far what the one
    before it has counted, and the next point would have all that at once."""
    now = time.time()
    if pool.workplace.history.due(now):
        pool.workplace.history.note(now, pool.workplace.scoreboard.snapshot(), waiting)

"""--request-timeout and --slow-after: the master's look at how long requests take.

It goes by the scoreboard, so it needs no word from a worker that is stuck.
"""

from __future__ import annotations

from typing import Iterable, Iterator

from spawner.children import WorkerHandle
from spawner.losttime import LostTime
from spawner.settings import Settings
from workers.snapshot import Snapshot

#: How often it looks, in seconds.
INTERVAL = 0.25


class Overdue:
    """Which requests are over one of the two limits. Times are on the monotonic clock."""

    def __init__(self, settings: Settings, lost: LostTime) -> None:
        self._lost = lost
        self._timeout = settings.request_timeout or float("inf")
        self._slow = settings.slow_after or float("inf")
        #: When to look next.
        self.due = 0.0 if settings.request_timeout or settings.slow_after else float("inf")
        #: The start of the last request of each worker that was found slow, and timed out.
        self._told: dict[WorkerHandle, int] = {}
        self._ended: dict[WorkerHandle, int] = {}

    def find(
        self, workers: Iterable[WorkerHandle], now: float
    ) -> Iterator[tuple[WorkerHandle, Snapshot, float, bool]]:
        """Each worker with a request over a limit, once for each limit and request: the slot, the
        request's age in seconds, and whether it is to be ended."""
        if now < self.due:
            return
        self.due = now + INTERVAL
        for worker in workers:
            slot = worker.slot.snapshot()
            if not slot.busy or worker.pid is None:
                continue
            started = slot.request_started / 1e9
            age = now - started - self._lost.since(started)
            if age >= self._timeout and self._ended.get(worker) != slot.request_started:
                self._ended[worker] = slot.request_started
                yield worker, slot, age, True
            elif age >= self._slow and self._told.get(worker) != slot.request_started:
                self._told[worker] = slot.request_started
                yield worker, slot, age, False

    def forget(self, worker: WorkerHandle) -> None:
        """The worker is gone."""
        self._told.pop(worker, None)
        self._ended.pop(worker, None)

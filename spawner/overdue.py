"""--request-timeout and --slow-after: the master's look at how long requests take.

It goes by the scoreboard, so it needs no word from a worker that is stuck.
"""

from __future__ import annotations

import os
from typing import Iterable, Iterator, Optional

from spawner.children import WorkerHandle
from spawner.losttime import LostTime
from spawner.settings import Settings
from workers.snapshot import Snapshot

#: How often it looks, in seconds.
INTERVAL = 0.25
#: Of all threads together; faulthandler itself stops at 100 frames a thread.
STACK_CEILING = 65_536


class Overdue:
    """Which requests are over one of the two limits. Times are on the monotonic clock."""

    def __init__(self, settings: Settings, lost: LostTime) -> None:
        self._lost = lost
        self._timeout = settings.request_timeout or float("inf")
        self._slow = settings.slow_after or float("inf")
        #: When to look next.
        self.due = 0.0 if stacks_wanted(settings) else float("inf")
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


def stacks_wanted(settings: Settings) -> bool:
    """Whether workers are to be made so that their stack can be looked at."""
    return bool(settings.request_timeout or settings.slow_after)


def clear_stack(worker: WorkerHandle) -> None:
    """Before the worker is told to write it: its offset is ours too."""
    if worker.stacks is not None:
        os.lseek(worker.stacks, 0, os.SEEK_SET)
        os.ftruncate(worker.stacks, 0)


def read_stack(worker: WorkerHandle) -> Optional[str]:
    """What the worker has written; None for nothing, as when it has blocked all signals."""
    if worker.stacks is None:
        return None
    text = os.pread(worker.stacks, STACK_CEILING, 0).decode("utf-8", "replace")
    return text.strip() or None

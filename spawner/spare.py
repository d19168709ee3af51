"""A worker that is forked ahead, and only waits for its number: whoever dies is replaced without a fork."""

from __future__ import annotations

import logging
import time
from typing import Callable, Optional

from spawner.children import SPARE, WorkerHandle, describe_status
from spawner.pool import Backoff, WorkerState
from workers.scoreboard import Slot

log = logging.getLogger("trac-spawn")

#: So long (seconds) after the last one was employed the next is forked: that one has visitors to answer now.
CALM = 0.2


class Spare:
    """That of one pool. Among ``workers``, which are the pool's by number, it is the one with the number
    SPARE, until it is employed or has left. It is none of the pool's capacity, and has no slot."""

    def __init__(
        self, workers: dict[int, WorkerHandle], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._workers = workers
        self._clock = clock
        self._backoff = Backoff()
        #: When one may be forked, on the monotonic clock.
        self.due = 0.0

    @property
    def worker(self) -> Optional[WorkerHandle]:
        """The one that could be employed."""
        worker = self._workers.get(SPARE)
        return worker if worker is not None and worker.state is WorkerState.SPARE else None

    @property
    def lacking(self) -> bool:
        """Whether there is room for one, and nobody is about to become ready."""
        starting = any(worker.state is WorkerState.STARTING for worker in self._workers.values())
        return SPARE not in self._workers and not starting

    def employ(self, number: int, slot: Slot) -> Optional[WorkerHandle]:
        """Give it that number, at which it starts as any other; None when there is none."""
        worker = self.worker
        if worker is None or not worker.channel.send({"command": "serve", "number": number}):
            return None
        del self._workers[SPARE]
        worker.number, worker.slot = number, slot
        worker.state, worker.born = WorkerState.STARTING, self._clock()
        self._backoff.succeeded()
        self.rest()
        return worker

    def rest(self) -> None:
        """Fork none for a while."""
        self.due = self._clock() + CALM

    def dismiss(self) -> Optional[WorkerHandle]:
        """It is not wanted any more, or has what a reload has replaced: tell it so, if there is one."""
        worker = self.worker
        if worker is not None:
            worker.state = WorkerState.LEAVING
            worker.tell("retire")
        return worker

    def ended(self, worker: WorkerHandle, status: Optional[int]) -> None:
        """It has; ``status`` is waitpid(2)'s, None for one that was not even born. Nobody has lost anything
        by it, and there will be another."""
        if worker.state is WorkerState.SPARE:
            how = "was not born" if status is None else f"ended: {describe_status(status)}"
            how = f"cannot start: {worker.failure}" if worker.failure else how
            log.info("%s %s", worker.describe(), how)
            now = self._clock()
            self.due = now + max(CALM, self._backoff.failed(now, worker.born))

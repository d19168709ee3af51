"""A generation on its way to replace the one that serves: on trial, then taking over, worker by worker."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Callable, Optional

from spawner.children import WorkerHandle
from spawner.generation import Generation
from spawner.pool import WorkerState
from spawner.workplace import Workplace
from workers.errors import BootError

if TYPE_CHECKING:
    from spawner.supervisor import Supervisor

log = logging.getLogger("trac-spawn")

#: The reason of workers that a reload replaces.
RELOAD = "reload"

#: How long a reload waits, in seconds, for an old worker in the middle of a request to have heard
#: that it takes up no other.
PATIENCE = 5.0

#: Called with the failure when the old generation serves on.
Reloaded = Callable[[Optional[BootError]], None]


class Replacement:
    """``candidate`` is there until a worker of it is ready; the replacement ends when no worker of the
    old generation takes up a request any more: who has waited for that meets the new one."""

    def __init__(self, pool: Supervisor) -> None:
        self._pool = pool
        self.candidate: Optional[Generation] = None
        self._done: Optional[Reloaded] = None
        self.counted: Counter[bool] = Counter()  # by success
        self.last_error = ""

    def begin(self, workplace: Workplace, done: Reloaded) -> None:
        """Load the application at ``workplace``; nothing else is on its way."""
        self.candidate = candidate = self._pool.next_generation(workplace)
        self._done = done
        log.info("reloading: generation %d", candidate.number)
        if candidate.without_template:
            return
        self._pool.start_template(candidate)
        if candidate.template is None:
            self.fail(BootError("cannot fork", os.EX_OSERR))

    def advance(self) -> None:
        """The next step: one worker on trial, then all the others, one by one."""
        if self.candidate is None:
            if self._done is not None and not self._old_workers_stay():
                log.info("reloaded: generation %d", self._pool.current.number)
                self._finish(None)
        elif self.candidate.can_spawn:
            trial = [worker for worker in self._pool.workers if self.is_tried_by(worker)]
            if not trial:
                self._pool.spawn(self.candidate)
            elif trial[0].state is WorkerState.READY:
                candidate, self.candidate = self.candidate, None
                self._pool.take_over(candidate)

    def is_tried_by(self, worker: WorkerHandle) -> bool:
        """Whether it is a worker of the candidate."""
        return self.candidate is not None and worker.generation == self.candidate.number

    def fail(self, failure: BootError) -> None:
        """The candidate does not work."""
        log.error("reload failed, the old generation serves on: %s", failure)
        if failure.unexpected:
            log.error("%s", failure.traceback.rstrip())
        assert self.candidate is not None
        for worker in self._pool.workers:
            if self.is_tried_by(worker):
                self._pool.terminate_worker(worker)
        self.candidate.dismiss_template()
        self.candidate.workplace.leave_access_file(self._pool.workplace)
        for listener in self.candidate.workplace.listeners:
            if listener not in self._pool.workplace.listeners:
                listener.close()  # nobody would answer there
        self.candidate = None
        self.last_error = str(failure)
        self._finish(failure)

    def abandon(self, why: str) -> None:
        """There is no time for it any more."""
        if self.candidate is not None:
            self.fail(BootError(f"{why} before this one was done", os.EX_TEMPFAIL))
        elif self._done is not None:
            self._finish(None)  # it has taken over; only old workers are left

    def next_deadline(self) -> float:
        """When advance() is due though nothing has happened, on the monotonic clock."""
        if self.candidate is not None or self._done is None:
            return float("inf")
        old = [worker.leaving_since for worker in self._pool.workers if _may_answer(worker)]
        return min(old, default=float("inf")) + PATIENCE

    def _old_workers_stay(self) -> bool:
        now = time.monotonic()
        old = [worker for worker in self._pool.workers if _may_answer(worker)]
        return any(now < worker.leaving_since + PATIENCE for worker in old)

    def _finish(self, failure: Optional[BootError]) -> None:
        done, self._done = self._done, None
        self.counted[failure is None] += 1
        if done is not None:
            done(failure)


def _may_answer(worker: WorkerHandle) -> bool:
    """Whether it belongs to the old generation and can still take up a request."""
    return worker.reason == RELOAD and worker.accepts

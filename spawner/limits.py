"""The limits that the master itself watches over: what children may take of time and memory."""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import Callable, Collection, Iterable, Union

from spawner import slowlog
from spawner.children import SPARE, TemplateHandle, WorkerHandle, send_signal
from spawner.hardmemory import HardMemory
from spawner.losttime import LostTime
from spawner.overdue import Overdue
from spawner.pool import WorkerState
from spawner.settings import Settings
from spawner.stacks import clear_stack, read_stack
from spawner.status import SlowRequest
from workers import interruption
from workers.errors import BootError

log = logging.getLogger("trac-spawn")

#: A child may be stopped by a signal for this long, as by somebody who takes a look (seconds).
STOPPED_GRACE = 1.0
#: The reasons of workers whose request took too long, and of those with too much memory.
TIMED_OUT = "request-timeout"
HARD_MEMORY = "hard-memory"

Child = Union[WorkerHandle, TemplateHandle]


class Limits:
    """--hard-memory, --request-timeout, --slow-after, --startup-timeout, and the time that a worker has
    to end once it was told to, or to go on once it was stopped. Times are on the monotonic clock.

    ``retire`` takes a worker that is over a limit out of the pool, for a reason in words;
    ``terminate`` then ends it.
    """

    def __init__(
        self,
        settings: Settings,
        retire: Callable[[WorkerHandle, str], None],
        terminate: Callable[[WorkerHandle], None],
        found_slow: Callable[[SlowRequest], None] = lambda found: None,
    ) -> None:
        self._settings = settings
        self._retire = retire
        self._terminate = terminate
        self._found_slow = found_slow
        self._memory = HardMemory(settings.hard_memory)
        self._lost = LostTime()
        self._overdue = Overdue(settings, self._lost)
        #: How many requests were found slow.
        self.slow = 0
        #: What next_deadline() has said, and not before it did.
        self._deadline = float("inf")
        #: Workers that write their stack for the slow log now, and what is known of the request.
        self._shown: list[tuple[WorkerHandle, str]] = []

    def next_deadline(
        self, workers: Collection[WorkerHandle], templates: Collection[TemplateHandle]
    ) -> float:
        """When check() is due; infinity when nothing is."""
        deadlines = [worker.kill_at for worker in workers if worker.kill_at is not None]
        deadlines += [self._start_limit(child) for child in _starting(workers, templates)]
        deadlines += [self._stop_limit(child) for child in _all(workers, templates)]
        if workers:
            deadlines += [self._memory.due, self._overdue.due]
        deadline = min(deadlines, default=float("inf"))
        self._deadline = max(deadline, time.monotonic())
        return deadline

    def check(
        self, workers: Collection[WorkerHandle], templates: Collection[TemplateHandle]
    ) -> None:
        """Act on whoever is over a limit."""
        now = time.monotonic()
        lost = self._lost.noticed(self._deadline, now)
        if lost:
            log.warning("the master could not run for %.1f s: no limit counts that time", lost)
        for worker in workers:
            if worker.kill_at is not None:
                worker.kill_at += lost
            if worker.kill_at is not None and worker.kill_at <= now:
                log.warning("%s does not end by itself: killed", worker.describe())
                worker.signal(signal.SIGKILL)
                worker.kill_at = float("inf")
        for child in _starting(workers, templates):
            if now >= self._start_limit(child):
                self._end_start(child, templates)
        for child in _all(workers, templates):
            if now >= self._stop_limit(child):
                self._end_stopped(child)
        employed = [worker for worker in workers if worker.number != SPARE]
        self._check_memory(employed, now)
        self._check_requests(employed, now)

    def forget(self, worker: WorkerHandle) -> None:
        """The worker is gone."""
        self._overdue.forget(worker)

    def _start_limit(self, child: Child) -> float:
        limit = self._settings.startup_timeout or float("inf")
        return child.born + limit + self._lost.since(child.born)

    def _end_start(self, child: Child, templates: Iterable[TemplateHandle]) -> None:
        limit = self._settings.startup_timeout
        child.failure = BootError(f"not ready within {limit:g} s (--startup-timeout)", os.EX_TEMPFAIL)
        # A worker that has not been born yet is in the hands of its template.
        hands = [one for one in templates if one.generation == child.generation]
        for blamed in hands if child.pid is None else [child]:
            if blamed.pid is not None:
                send_signal(blamed.pid, signal.SIGKILL)

    def _stop_limit(self, child: Child) -> float:
        if child.stopped is None:
            return float("inf")
        serves = isinstance(child, WorkerHandle) and child.state is WorkerState.READY
        limit = STOPPED_GRACE + (0.0 if serves else self._settings.kill_after)
        return child.stopped + limit + self._lost.since(child.stopped)

    def _end_stopped(self, child: Child) -> None:
        """Whoever waits for a stopped child waits in vain: visitors, or workers to be forked."""
        if isinstance(child, WorkerHandle) and child.state is WorkerState.READY:
            self._retire(child, "stopped by a signal")
        elif child.pid is not None:
            log.warning("%s is still stopped: killed", child.describe())
            send_signal(child.pid, signal.SIGKILL)
            child.stopped = None

    def _check_memory(self, workers: Iterable[WorkerHandle], now: float) -> None:
        for worker, size in self._memory.exceeding(workers, now):
            if worker.state is WorkerState.STARTING:
                # Loading alone takes more: to recycle it would be to try for ever.
                reason = f"{HARD_MEMORY} ({size}) before its first request"
                worker.failure = BootError(reason, os.EX_CONFIG)
                worker.signal(signal.SIGKILL)
                continue
            slot = worker.slot.snapshot()
            if slot.busy:
                size += f": {slot.request}"
                self._end(worker, interruption.SHOW_STACK)
            self._retire(worker, f"{HARD_MEMORY} ({size})")
            self._terminate(worker)

    def _check_requests(self, workers: Iterable[WorkerHandle], now: float) -> None:
        if now < self._overdue.due:
            return
        self._write_slow_log()
        for worker, slot, age, ended in self._overdue.find(workers, now):
            if ended:
                self._retire(worker, f"{TIMED_OUT} ({age:.1f} s: {slot.request})")
                worker.kill_at = now + self._settings.kill_after
                self._end(worker, interruption.END_REQUEST)
            elif not worker.ended:
                clear_stack(worker)
                self.slow += 1
                self._shown.append((worker, f"{worker.describe()}: {slot.request}: {age:.1f} s"))
                worker.signal(interruption.SHOW_STACK)

    @staticmethod
    def _end(worker: WorkerHandle, by: int) -> None:
        """The request that it answers is lost: by the signal ``by`` it says where it is."""
        worker.ended = True
        clear_stack(worker)
        worker.signal(by)

    def _write_slow_log(self) -> None:
        """Whoever was told to write its stack has had a moment to do so."""
        shown, self._shown = self._shown, []
        for worker, what in shown:
            stack = read_stack(worker)
            if not worker.ended:
                clear_stack(worker)
            slowlog.write(self._settings.slow_log, what, stack)
            self._found_slow(
                {"at": time.time(), "pool": self._settings.name, "what": what, "stack": stack}
            )


def _all(workers: Iterable[WorkerHandle], templates: Iterable[TemplateHandle]) -> list[Child]:
    return [*workers, *templates]


def _starting(
    workers: Iterable[WorkerHandle], templates: Iterable[TemplateHandle]
) -> list[Child]:
    """Children that are not ready yet, and may still come to be."""
    late: list[Child] = [template for template in templates if not template.ready]
    late += [worker for worker in workers if worker.state is WorkerState.STARTING]
    late += [worker for worker in workers if worker.state is WorkerState.SPARE and worker.pid is None]
    return [child for child in late if child.failure is None]

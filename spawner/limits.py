"""The limits that the master itself watches over: what children may take of time and memory."""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import Callable, Collection, Iterable, Iterator, Union

from spawner import slowlog
from spawner.children import TemplateHandle, WorkerHandle, send_signal
from spawner.hardmemory import HardMemory
from spawner.overdue import Overdue, clear_stack, read_stack
from spawner.pool import WorkerState
from spawner.settings import Settings
from workers import interruption
from workers.errors import BootError

log = logging.getLogger("trac-spawn")

#: The reason of workers whose request took too long.
TIMED_OUT = "request-timeout"

Starting = Union[WorkerHandle, TemplateHandle]


class Limits:
    """--hard-memory, --request-timeout, --slow-after, --startup-timeout, and the time that a worker has
    to end once it was told to. Times are on the monotonic clock.

    ``retire`` takes a worker that is over a limit out of the pool, for a reason in words;
    ``terminate`` then ends it.
    """

    def __init__(
        self,
        settings: Settings,
        retire: Callable[[WorkerHandle, str], None],
        terminate: Callable[[WorkerHandle], None],
    ) -> None:
        self._settings = settings
        self._retire = retire
        self._terminate = terminate
        self._memory = HardMemory(settings.hard_memory)
        self._overdue = Overdue(settings)
        #: Workers that write their stack for the slow log now, and what is known of the request.
        self._shown: list[tuple[WorkerHandle, str]] = []

    def next_deadline(
        self, workers: Collection[WorkerHandle], templates: Iterable[TemplateHandle]
    ) -> float:
        """When check() is due; infinity when nothing is."""
        deadlines = [worker.kill_at for worker in workers if worker.kill_at is not None]
        deadlines += [self._start_limit(child) for child in _starting(workers, templates)]
        if workers:
            deadlines += [self._memory.due, self._overdue.due]
        return min(deadlines, default=float("inf"))

    def check(
        self, workers: Collection[WorkerHandle], templates: Iterable[TemplateHandle]
    ) -> None:
        """Act on whoever is over a limit."""
        now = time.monotonic()
        for worker in workers:
            if worker.kill_at is not None and worker.kill_at <= now:
                log.warning("%s does not end by itself: killed", worker.describe())
                worker.signal(signal.SIGKILL)
                worker.kill_at = float("inf")
        for child in list(_starting(workers, templates)):
            self._check_start(child, now)
        self._check_memory(workers, now)
        self._check_requests(workers, now)

    def forget(self, worker: WorkerHandle) -> None:
        """The worker is gone."""
        self._overdue.forget(worker)

    def _start_limit(self, child: Starting) -> float:
        return child.born + (self._settings.startup_timeout or float("inf"))

    def _check_start(self, child: Starting, now: float) -> None:
        if now >= self._start_limit(child) and child.pid is not None:
            limit = self._settings.startup_timeout
            child.failure = BootError(
                f"not ready within {limit:g} s (--startup-timeout)", os.EX_TEMPFAIL
            )
            send_signal(child.pid, signal.SIGKILL)

    def _check_memory(self, workers: Iterable[WorkerHandle], now: float) -> None:
        for worker, reason in self._memory.exceeding(workers, now):
            if worker.state is WorkerState.STARTING:
                # Loading alone takes more: to recycle it would be to try for ever.
                worker.failure = BootError(f"{reason} before its first request", os.EX_CONFIG)
                worker.signal(signal.SIGKILL)
            else:
                self._retire(worker, reason)
                self._terminate(worker)

    def _check_requests(self, workers: Iterable[WorkerHandle], now: float) -> None:
        if now < self._overdue.due:
            return
        self._write_slow_log()
        for worker, slot, age, ended in self._overdue.find(workers, now):
            clear_stack(worker)
            if ended:
                self._retire(worker, f"{TIMED_OUT} ({age:.1f} s: {slot.request})")
                worker.kill_at = now + self._settings.kill_after
                worker.signal(interruption.END_REQUEST)
            else:
                self._shown.append((worker, f"{worker.describe()}: {slot.request}: {age:.1f} s"))
                worker.signal(interruption.SHOW_STACK)

    def _write_slow_log(self) -> None:
        """Whoever was told to write its stack has had a moment to do so."""
        shown, self._shown = self._shown, []
        for worker, what in shown:
            slowlog.write(self._settings.slow_log, what, read_stack(worker))


def _starting(
    workers: Iterable[WorkerHandle], templates: Iterable[TemplateHandle]
) -> Iterator[Starting]:
    """Children that are not ready yet, and may still come to be."""
    for template in templates:
        if not template.ready and template.failure is None:
            yield template
    for worker in workers:
        if worker.state is WorkerState.STARTING and worker.pid and worker.failure is None:
            yield worker

"""--pool-memory: how much a whole pool takes, its template included, each page counted once."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from typing import Callable, Optional, Union

from spawner.children import TemplateHandle, WorkerHandle
from workers.recycling import resident_memory, shares_of_memory, unshared_memory

log = logging.getLogger("trac-spawn")

#: How often it looks, in seconds.
INTERVAL = 1.0


class PoolMemory:
    """``limit`` is in bytes, 0 for none. Times are on the monotonic clock."""

    def __init__(self, limit: int, label: str = "") -> None:
        self._limit = limit
        self._label = label
        #: When to look next.
        self.due = 0.0 if limit else float("inf")
        #: The pool had more than its limit at the last look.
        self.over = False
        self._measure = _proportional_memory

    def check(
        self, workers: Collection[WorkerHandle], templates: Iterable[TemplateHandle], now: float
    ) -> Optional[tuple[WorkerHandle, str]]:
        """Whom to replace, and the reason in words, once it is time to look; None for nobody."""
        if now < self.due:
            return None
        self.due = now + INTERVAL
        children: list[Union[WorkerHandle, TemplateHandle]] = [*workers, *templates]
        pids = [child.pid for child in children if child.pid is not None]
        # Resident memory counts what is shared once for each process, so below the limit it is
        # answer enough, and much cheaper.
        if sum(self._taken(resident_memory, pid) for pid in pids) <= self._limit:
            self.over = False
            return None
        taken = {pid: self._taken_exactly(pid) for pid in pids}
        total = sum(taken.values())
        self._say_once(total)
        if not self.over or any(worker.worn for worker in workers):
            return None  # one at a time: what the last one gives back may be enough
        # One that has answered nothing is as small as its replacement would be.
        idle = [worker for worker in workers if worker.idle and worker.slot.requests]
        if not idle:
            return None
        fattest = max(idle, key=lambda worker: taken.get(worker.pid or 0, 0))
        return fattest, f"pool-memory ({total >> 20} MiB)"

    def _say_once(self, total: int) -> None:
        before, self.over = self.over, total > self._limit
        if self.over and not before:
            log.warning(
                "%sthe pool has %d MiB, more than --pool-memory, %d MiB",
                self._label, total >> 20, self._limit >> 20,
            )  # fmt: skip

    def _taken_exactly(self, pid: int) -> int:
        try:
            return self._taken(self._measure, pid)
        except PermissionError:
            self._measure = unshared_memory
            log.warning(
                "--pool-memory: the kernel does not show us how much of a worker's memory is shared"
                " (that takes CAP_SYS_PTRACE), so what the workers share counts for each of them"
            )
            return self._taken(self._measure, pid)

    @staticmethod
    def _taken(measure: Callable[[int], int], pid: int) -> int:
        try:
            return measure(pid)
        except PermissionError:
            raise
        except (OSError, IndexError):
            return 0  # it is ending


def _proportional_memory(pid: int) -> int:
    return shares_of_memory(pid)[0]

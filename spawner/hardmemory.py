"""--hard-memory: the master's own look at how much its workers take, requests or not."""

from __future__ import annotations

import logging
from typing import Iterable, Iterator

from spawner.children import WorkerHandle
from workers.recycling import private_memory, resident_memory, unshared_memory

log = logging.getLogger("trac-spawn")

#: How often it looks, in seconds.
INTERVAL = 0.5


class HardMemory:
    """``limit`` is in bytes of private memory, 0 for none. Times are on the monotonic clock."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: When to look next.
        self.due = 0.0 if limit else float("inf")
        self._exact = True

    def exceeding(
        self, workers: Iterable[WorkerHandle], now: float
    ) -> Iterator[tuple[WorkerHandle, str]]:
        """Who is over the limit, and how much it has in words, once it is time to look."""
        if now < self.due:
            return
        self.due = now + INTERVAL
        for worker in workers:
            # One that is about to be killed anyway has been told already.
            if worker.pid is not None and worker.kill_at is None:
                private = self._private(worker.pid)
                if private > self._limit:
                    yield worker, f"{private >> 20} MiB private"

    def _private(self, pid: int) -> int:
        try:
            # As in workers/recycling.py: the exact figure only where the cheap one gives cause.
            if resident_memory(pid) <= self._limit:
                return 0
            return private_memory(pid) if self._exact else unshared_memory(pid)
        except PermissionError:
            self._exact = False
            log.warning(
                "--hard-memory: the kernel does not show us how much of a worker's memory is shared"
                " (that takes CAP_SYS_PTRACE), so what the workers share counts too"
            )
            return self._private(pid)
        except (OSError, IndexError):
            return 0  # it is ending

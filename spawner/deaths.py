"""Post-mortems: how the workers that died last came to their end."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Iterator, Optional

from spawner.children import WorkerHandle
from spawner.status import Death

#: How many are kept.
KEPT = 50


class Deaths:
    """Those of one pool. Only who died unasked, or was ended for taking too long, is in it."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        #: By signal, exit status or reason.
        self.counted: Counter[str] = Counter()
        self._latest: deque[Death] = deque(maxlen=KEPT)

    def __iter__(self) -> Iterator[Death]:
        return iter(self._latest)

    def remember(self, worker: WorkerHandle, how: str, stack: Optional[str] = None) -> None:
        """``how`` it ended; ``stack`` is that of its last request, when it is known."""
        self.counted[how.partition(" (")[0]] += 1
        failure = worker.failure
        slot = worker.slot.snapshot()
        self._latest.append(
            {
                "at": time.time(),
                "pool": self._pool,
                "slot": worker.number,
                "generation": worker.generation,
                "pid": worker.pid,
                "reason": f"{how}: {failure}" if failure else how,
                "request": slot.request or None,
                "requests": slot.requests,
                # As it was when the worker last looked: one that is gone has none.
                "rss": slot.resident or None,
                "age_s": time.monotonic() - worker.born,
                "traceback": failure.traceback if failure else stack,
            }
        )

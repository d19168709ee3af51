"""What a pool makes of children that do not stay: when the next may be started, and what is said of it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Callable, Optional

from spawner.pool import Backoff, CrashLoop
from workers.errors import BootError

log = logging.getLogger("trac-spawn")

#: A start that fails this often in a row, without saying why, has failed for good at first start-up.
SILENT_FAILURES = 3


@dataclass(frozen=True)
class Setback:
    """A start that has failed, ``why`` in words; ``final``: another try is not likely to do better.
    ``delay`` is in seconds."""

    failure: BootError
    why: str
    final: bool
    delay: float


class Setbacks:
    """Of one pool, so that what fails again and again is started later and later."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._backoff = Backoff()
        self._crash_loop = CrashLoop()
        self._logged_traceback = ""

    def remaining(self) -> float:
        """Seconds until a child may be started."""
        now = self._clock()
        return max(self._backoff.remaining(now), self._crash_loop.remaining(now))

    def child_ready(self) -> None:
        self._backoff.succeeded()

    def forgive(self) -> None:
        """What follows is another generation: it has done nothing wrong yet."""
        self._backoff.succeeded()
        self._crash_loop.succeeded()

    def start_failed(
        self, who: str, born: float, failure: Optional[BootError], how: str
    ) -> Setback:
        """A child ended before it was ready, and said why (``failure``) or not (``how`` it ended).
        A traceback is logged once, however often it comes."""
        delay = self._backoff.failed(self._clock(), born)
        # Without a word it may have been killed by chance, so that gets another try.
        final = failure is not None or self._backoff.failures >= SILENT_FAILURES
        why = f"cannot start: {failure}" if failure else how
        failure = failure or BootError(f"{who} {how}")
        if failure.unexpected and failure.traceback != self._logged_traceback:
            self._logged_traceback = failure.traceback
            log.error("%s\n%s", failure, failure.traceback.rstrip())
        return Setback(failure, why, final, delay)

    def died(self, born: float, ready: float, requests: int) -> float:
        """As CrashLoop.died(): a worker that was ready has died."""
        return self._crash_loop.died(self._clock(), born, ready, requests)

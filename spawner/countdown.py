"""Time that runs out, as that of a stop: whatever of it is lost is given again."""

from __future__ import annotations

import logging
import time
from typing import Callable

from spawner.losttime import LostTime

log = logging.getLogger("trac-spawn")

#: How often it wants to be looked at (seconds): only who is late for something notices that time was lost.
APPOINTMENT = 0.5


class Countdown:
    """``over`` is called when it ends; until it is started, it does not."""

    def __init__(self, over: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._over = over
        self._clock = clock
        self._lost = LostTime()
        self._end = float("inf")
        #: What next_deadline() has said.
        self._due = float("inf")

    def start(self, seconds: float) -> None:
        """Anew, if it runs already."""
        self._end = self._clock() + seconds
        self._due = float("inf")

    def next_deadline(self) -> float:
        """When check_clock() is due, on the monotonic clock; infinity when nothing is."""
        now = self._clock()
        self._due = self._end if self._end == float("inf") else max(now, min(self._end, now + APPOINTMENT))
        return self._due

    def check_clock(self) -> None:
        if self._end == float("inf"):
            return
        now = self._clock()
        lost = self._lost.noticed(self._due, now)
        if lost:
            log.warning("the stop may take %.1f s longer: for so long, the master could not run", lost)
            self._end += lost
        if now >= self._end:
            self._end = float("inf")
            self._over()

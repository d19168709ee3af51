"""Time in which nothing could run: nobody has used it, so no limit counts it.

While the machine is suspended the monotonic clock stands still. It goes on while a virtual machine or a
container is paused, or the whole service is stopped by a signal; the master finds out by coming late
to its own appointments.
"""

from __future__ import annotations

from collections import deque

#: The master never blocks; on a busy machine it may be this late all the same (seconds).
LATE = 1.0
#: How many gaps are remembered: requests that are older than all of them have seen enough.
_KEPT = 16


class LostTime:
    """Gaps in time, on the monotonic clock."""

    def __init__(self) -> None:
        self._gaps: deque[tuple[float, float]] = deque(maxlen=_KEPT)

    def noticed(self, due: float, now: float) -> float:
        """It is ``now``, and something was ``due``: the seconds that were lost, usually none."""
        late = now - due
        if late <= LATE:
            return 0.0
        self._gaps.append((due, now))
        return late

    def since(self, start: float) -> float:
        """Of the time since ``start``, how much was lost."""
        return sum(end - max(begin, start) for begin, end in self._gaps if end > start)

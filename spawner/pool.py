"""How many workers to spawn and which to retire: pure decisions over a view of the pool, given a clock.

A worker goes through: starting → ready → (worn) → leaving → gone. A *worn* one has asked to be
replaced, or is one too many of an old generation; it serves until its replacement is ready.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, Protocol, Sequence, TypeVar

FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0
#: A worker has proved itself once it has answered a request, or been ready for so many seconds.
SETTLED = 1.0
#: For visitors who keep killing workers; the same as in s6, which starts nothing more often.
LONGEST_AFTER_READY = 1.0


class WorkerState(Enum):
    SPARE = "spare"  # forked ahead, and none of the capacity
    STARTING = "starting"  # asked for; not ready yet
    READY = "ready"
    LEAVING = "leaving"  # told to leave: no longer part of the capacity


class WorkerView(Protocol):
    """What a decision needs to know of a worker."""

    @property
    def state(self) -> WorkerState: ...

    @property
    def worn(self) -> bool: ...


Worker = TypeVar("Worker", bound=WorkerView)


@dataclass(frozen=True)
class Plan(Generic[Worker]):
    """What to do now: spawn so many, tell these to leave."""

    spawn: int = 0
    retire: list[Worker] = field(default_factory=list)


def plan(workers: Sequence[Worker], target: int, surge: int) -> Plan[Worker]:
    """The next step towards ``target`` fresh, ready workers.

    The capacity never falls below ``target`` for a replacement's sake, and never exceeds
    ``target + surge`` for it.
    """
    starting = sum(worker.state is WorkerState.STARTING for worker in workers)
    fresh = [worker for worker in workers if worker.state is WorkerState.READY and not worker.worn]
    worn = [worker for worker in workers if worker.state is WorkerState.READY and worker.worn]
    ceiling = target + min(surge, len(worn))
    wanted = target - len(fresh) - starting
    room = ceiling - len(fresh) - starting - len(worn)
    surplus = len(fresh) + len(worn) - target
    # Worn ones leave first, then the youngest: they have the coldest caches.
    leaving = (worn + fresh[::-1])[: max(0, surplus)]
    return Plan(max(0, min(wanted, room)), leaving)


class Backoff:
    """How long to wait after children that died before they were ready. Times on one monotonic clock."""

    #: So many failures in a row are followed by no delay.
    free = 0
    longest = LONGEST_DELAY

    def __init__(self) -> None:
        self.failures = 0
        self._last = float("-inf")
        self._not_before = 0.0

    def failed(self, now: float, born: float) -> float:
        """A child that was born at ``born`` has failed; seconds until the next try.

        Children that were started together and fail together count as one failure: eight workers
        of one try must not make the next one wait eight times doubled.
        """
        if born >= self._last:
            doublings = min(self.failures - self.free, 16)
            delay = min(self.longest, FIRST_DELAY * 2.0**doublings) if doublings >= 0 else 0.0
            self.failures += 1
            self._last = now
            self._not_before = now + delay
        return self.remaining(now)

    def succeeded(self) -> None:
        self.failures = 0
        self._last = float("-inf")
        self._not_before = 0.0

    def remaining(self, now: float) -> float:
        """Seconds until the next try is due; 0 when it is."""
        return max(0.0, self._not_before - now)


class CrashLoop(Backoff):
    """How long to wait after workers that died when they were ready: not at all, unless they go on
    doing so before they have proved themselves."""

    free = 1
    longest = LONGEST_AFTER_READY

    def died(self, now: float, born: float, ready: float, requests: int) -> float:
        """A worker has died that was asked for at ``born``, ready since ``ready`` and had answered so
        many ``requests``; seconds until it may be replaced."""
        if requests or now - ready >= SETTLED:
            self.succeeded()
            return 0.0
        if born > self._not_before + SETTLED:
            self.succeeded()  # it is not the successor of the last one that did so
        return self.failed(now, born)

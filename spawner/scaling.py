"""How many workers a pool should have: php-fpm's process managers, as pure decisions.

*static* keeps the number; *dynamic* keeps a number of idle workers to spare; *ondemand* starts with
none, spawns for what arrives and lets workers go that have been idle for a while. Names and
meanings are php-fpm's (pm, pm.max_children, pm.start_servers, pm.min_spare_servers,
pm.max_spare_servers, pm.process_idle_timeout, the spawn rate that doubles up to 32).
"""

from __future__ import annotations

from dataclasses import dataclass

HIGHEST_SPAWN_RATE = 32


@dataclass(frozen=True)
class Bounds:
    """``manager`` is "static", "dynamic" or "ondemand", ``initial`` how many workers it starts."""

    manager: str = "static"
    max_workers: int = 1
    initial: int = 1
    min_spare: int = 1
    max_spare: int = 1


@dataclass(frozen=True)
class Load:
    """A pool at one moment: ``busy`` workers, ``queued`` connections that nobody has accepted, and
    ``expired`` workers that have been idle for too long."""

    busy: int
    queued: int = 0
    expired: int = 0


class Scaling:
    """The wanted number of workers, moved by what is seen of the load."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        #: Of the bounds, until somebody moves it.
        self.maximum = bounds.max_workers
        self.target = bounds.initial
        #: How often more were wanted than the maximum: once for each time that it is reached.
        self.max_reached = 0
        self._at_ceiling = False
        self._rate = 1

    def adopt(self, bounds: Bounds) -> None:
        """New settings for a pool that is at work, one worker of which has just become ready."""
        self.bounds = bounds
        self.maximum = bounds.max_workers
        # The load that it has not ended with the old settings.
        kept = max(self.target, bounds.initial, 1)
        self.target = self.maximum if bounds.manager == "static" else min(kept, self.maximum)
        self._at_ceiling, self._rate = False, 1

    def rest(self) -> None:
        """The pool has no workers for now: the load of before says nothing about later."""
        if self.bounds.manager != "static":
            self.target = min(self.bounds.initial, self.maximum)

    def move_maximum(self, maximum: int) -> None:
        """As an administrator says; of a static pool that is its number of workers."""
        self.maximum = maximum
        self._at_ceiling = False
        static = self.bounds.manager == "static"
        self.target = maximum if static else min(self.target, maximum)

    def look(self, load: Load, may_grow: bool = True) -> int:
        """Decide once more; the new target. ``may_grow`` False keeps a pool from growing."""
        # Those that are on their way count as spare, or every look would ask for them again.
        spare = self.target - load.busy
        if self.bounds.manager == "dynamic":
            self._look_dynamic(spare, load, may_grow)
        elif self.bounds.manager == "ondemand":
            self._look_ondemand(spare, load, may_grow)
        return self.target

    def _look_dynamic(self, spare: int, load: Load, may_grow: bool) -> None:
        missing = max(self.bounds.min_spare, load.queued) - spare
        if missing > 0:
            self._grow(missing, may_grow)
            return
        self._rate = 1
        if spare > self.bounds.max_spare:
            # One at a time: a load that has just sunk may be back at once.
            self._shrink(1)

    def _look_ondemand(self, spare: int, load: Load, may_grow: bool) -> None:
        missing = load.queued - spare
        if missing > 0:
            # At least one worker, whatever the memory: nobody would be served otherwise.
            self._grow(missing, may_grow or self.target == 0)
            return
        self._rate = 1
        self._shrink(load.expired)

    def _grow(self, missing: int, may_grow: bool) -> None:
        room = self.maximum - self.target
        if room <= 0:
            self._rate = 1
            if not self._at_ceiling:
                self._at_ceiling = True
                self.max_reached += 1
        elif may_grow:
            self.target += min(missing, self._rate, room)
            self._rate = min(self._rate * 2, HIGHEST_SPAWN_RATE)

    def _shrink(self, by: int) -> None:
        if by > 0:
            self.target = max(0, self.target - by)
            self._at_ceiling = False

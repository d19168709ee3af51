"""How a pool follows its load: what the master looks at, when, and what it makes of that.

Nobody tells the master that a worker has become busy: the scoreboard shows it to whoever looks. A
dynamic pool is looked at once a second, as in php-fpm. An ondemand pool without workers costs no
look: the listening sockets are watched, and become readable when somebody has connected.
"""

from __future__ import annotations

import logging
import select
import selectors
import socket
import time
from collections.abc import Collection, Iterable
from typing import Union

from spawner.children import TemplateHandle, WorkerHandle
from spawner.listenqueue import queues_of
from spawner.pool import WorkerState
from spawner.poolmemory import PoolMemory
from spawner.scaling import Bounds, Load, Scaling
from spawner.settings import Settings
from spawner.workplace import Workplace
from workers.handoff import Handoff

log = logging.getLogger("trac-spawn")

#: How often a pool that is not static is looked at, in seconds.
INTERVAL = 1.0
#: After a connection has been seen the sockets are not watched for so long (seconds): a worker needs
#: a moment to accept it, or to be born, and they are readable until then.
REST = 0.02

Watched = Union[socket.socket, Handoff]


class Growth:
    """The wanted number of workers of one pool, and the memory they may have together."""

    def __init__(self, workplace: Workplace, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._watched: list[Watched] = []
        #: When the sockets may be watched again, and when to look at the workers (monotonic clock).
        self._rests_until = 0.0
        self._look_at = 0.0
        self._active = False
        self._workplace = workplace
        self._memory = _memory_of(workplace)
        self.scaling = Scaling(_bounds_of(workplace.settings))

    def adopt(self, workplace: Workplace) -> None:
        """A reload has brought new settings, and maybe other sockets."""
        self._unwatch()
        self._workplace = workplace
        self._memory = _memory_of(workplace)
        self.scaling.adopt(_bounds_of(workplace.settings))

    def attend(self, active: bool) -> None:
        """Called before each wait. ``active``: the pool serves, so its load counts."""
        self._active = active
        if not (active and self._on_demand and self._has_room):
            self._unwatch()
        elif not self._watched and time.monotonic() >= self._rests_until:
            self._watched = [*self._sockets, self._workplace.handoff]
            for one in self._watched:
                self._selector.register(one, selectors.EVENT_READ, self._somebody_waits)

    def next_deadline(self) -> float:
        """When check() is due; infinity when nothing is."""
        if not self._active:
            return float("inf")
        deadlines = [float("inf")]
        if self.scaling.target:
            deadlines.append(self._memory.due)
            if self._manager != "static":
                deadlines.append(self._look_at)
        if self._on_demand and self._has_room and not self._watched:
            deadlines.append(self._rests_until)
        return min(deadlines)

    def check(
        self, workers: Collection[WorkerHandle], templates: Iterable[TemplateHandle]
    ) -> None:
        """Look at the load and the memory, if it is time to, and move the wanted number."""
        if not self._active:
            return
        now = time.monotonic()
        over = self._memory.check(workers, templates, now)
        if over is not None:
            fattest, reason = over
            fattest.reason = reason
        if self._manager != "static" and now >= self._look_at:
            self._look_at = now + self._interval
            self._look(workers, now)

    def in_order(self, workers: Iterable[WorkerHandle]) -> list[WorkerHandle]:
        """The last ones leave first: of a static pool the youngest, else those that are idle the
        longest."""
        if self._manager == "static":
            return list(workers)
        return sorted(workers, key=lambda worker: worker.idle_since, reverse=True)

    @property
    def farewell(self) -> str:
        """Why a worker leaves that is one too many."""
        return "one worker fewer" if self._manager == "static" else "not needed"

    @property
    def queued(self) -> int:
        """Connections that wait for a worker; at least one when their number is not known."""
        sockets = self._sockets
        known = [queue.waiting if queue else None for queue in queues_of(sockets)]
        queued = sum(
            _is_readable(sock) if waiting is None else waiting
            for sock, waiting in zip(sockets, known)
        )
        # What busy workers have handed over: of these one sees only that there are some.
        return queued + _is_readable(self._workplace.handoff)

    @property
    def _sockets(self) -> list[socket.socket]:
        return [listener.socket for listener in self._workplace.listeners]

    @property
    def _manager(self) -> str:
        return self.scaling.bounds.manager

    @property
    def _on_demand(self) -> bool:
        return self._manager == "ondemand"

    @property
    def _has_room(self) -> bool:
        return self.scaling.target < self.scaling.maximum

    @property
    def _interval(self) -> float:
        return min(INTERVAL, self._workplace.settings.idle_timeout)

    def _somebody_waits(self) -> None:
        self._unwatch()
        now = time.monotonic()
        self._rests_until = now + REST
        self._look_at = now

    def _unwatch(self) -> None:
        for one in self._watched:
            self._selector.unregister(one)
        self._watched = []

    def _look(self, workers: Iterable[WorkerHandle], now: float) -> None:
        ready = [worker for worker in workers if worker.state is WorkerState.READY]
        load = Load(
            busy=sum(not worker.idle for worker in ready),
            queued=self.queued,
            expired=self._expired(ready, now),
        )
        before = self.scaling.max_reached
        self.scaling.look(load, may_grow=not self._memory.over)
        if self.scaling.max_reached > before:
            log.warning(
                "%sthe pool has reached --max-workers, %d: %d are busy, and %d connections wait",
                self._workplace.label, self.scaling.maximum, load.busy, load.queued,
            )  # fmt: skip

    def _expired(self, ready: Iterable[WorkerHandle], now: float) -> int:
        limit = now - self._workplace.settings.idle_timeout
        expired = [worker for worker in ready if worker.idle_since <= limit]
        if any(worker.slot.connections for worker in expired):
            # Kept-open connections go to who is left, so somebody has to be.
            return min(len(expired), self.scaling.target - 1)
        return len(expired)


def _is_readable(one: Watched) -> bool:
    poll = select.poll()
    poll.register(one, select.POLLIN)
    return bool(poll.poll(0))


def _memory_of(workplace: Workplace) -> PoolMemory:
    return PoolMemory(workplace.settings.pool_memory, workplace.label)


def _bounds_of(settings: Settings) -> Bounds:
    if settings.pm == "static":
        return Bounds("static", settings.workers, settings.workers)
    # Without a template nothing but a worker shows that the application can be loaded.
    first = 0 if settings.template else 1
    initial = settings.start_workers if settings.pm == "dynamic" else first
    return Bounds(
        settings.pm, settings.max_workers, initial, settings.min_spare, settings.max_spare
    )

"""The connections that a worker holds: how many, until when, and who goes to another worker."""

from __future__ import annotations

import resource
import time
from typing import Callable, Optional

from workers.connection import Connection
from workers.environ import BadRequest
from workers.handoff import Waiting
from workers.scoreboard import Slot
from workers.selector import Selector

#: The most connections one worker holds: each may cost up to 1.3 MiB of parameters and body. Fewer
#: where descriptors are scarce: each may need a second one for its body, and the application has
#: to have some.
MAX_CONNECTIONS = 1000
DESCRIPTORS_PER_CONNECTION = 3
#: A web server that has connected sends its request at once; this is a generous time (seconds).
PROMPT = 5.0
#: A connection is new for so long, and its request still to be expected at any moment: a leaving
#: worker waits for it, and one that takes up a request hands it over.
LAST_CALL = 0.5
#: A leaving worker sends on to slow readers for so long (seconds). It is no longer part of the pool's
#: capacity and shares most of its memory, so it may as well.
FAREWELL = 600.0
#: How long a worker whose master is gone waits for the rest of a request (seconds).
ORPHAN_TIME = 0.5


class Connections:
    """Those without a complete request, and those whose peers take their answers slowly."""

    def __init__(
        self,
        selector: Selector,
        slot: Slot,
        serve: Callable[[Connection], None],
        offer: Callable[[Waiting], bool],
        refuse: Callable[[Connection, BadRequest], None],
    ) -> None:
        """``serve`` is called when something has arrived on one. ``offer`` gives one that is idle to
        another worker: its peer may be about to use it. ``refuse`` answers what has come too late."""
        self._selector = selector
        self._slot = slot
        self._serve = serve
        self._offer = offer
        self._refuse = refuse
        self._held: dict[int, Connection] = {}
        #: How many there may be.
        self.room = _room_for_connections()
        #: The worker takes up no more requests than have begun.
        self.leaving = False
        #: When sweep() is due, on the monotonic clock.
        self.sweep_at = float("inf")

    def __len__(self) -> int:
        return len(self._held)

    @property
    def full(self) -> bool:
        return len(self._held) >= self.room

    def longest_idle(self) -> Optional[Connection]:
        """The one that can best be done without; None when all are in use, or about to be."""
        prompt = time.monotonic() - PROMPT
        idle = [
            connection
            for connection in self._held.values()
            if connection.idle and (not connection.fresh or connection.accepted < prompt)
        ]
        return min(idle, key=lambda connection: connection.deadline, default=None)

    def settle(self, connection: Connection) -> None:
        """Wait for more on a connection, or be done with it."""
        if self.leaving and connection.idle and (self._hand_over(connection) or not connection.fresh):
            connection.closed = True
        if connection.closed:
            self.part_with(connection)
            return
        descriptor = connection.socket.fileno()
        if descriptor not in self._held:
            self._selector.watch(descriptor, lambda: self._serve(connection))
            self._held[descriptor] = connection
            self._slot.hold(len(self._held))
        self._selector.turn(descriptor, connection.sending)
        self.sweep_at = min(self.sweep_at, connection.deadline)

    def part_with(self, connection: Connection) -> None:
        descriptor = connection.socket.fileno()
        if descriptor in self._held:
            self._selector.unwatch(descriptor)
            del self._held[descriptor]
            self._slot.hold(len(self._held))
        connection.close()

    def _hand_over(self, connection: Connection) -> bool:
        return self._offer(
            Waiting(connection.socket, connection.accepted, connection.deadline, connection.fresh)
        )

    def hand_over_idle(self) -> None:
        """Before a request is taken up: what the others send meanwhile shall not wait for it, nor be
        lost should it kill this worker. Who has never used the time to say something stays."""
        long_ago = time.monotonic() - LAST_CALL
        for connection in list(self._held.values()):
            silent = connection.fresh and connection.accepted < long_ago
            if connection.idle and not silent:
                if not self._hand_over(connection):
                    return  # nor would the next be taken: all the others are busy
                self.part_with(connection)

    def sweep(self, now: float) -> None:
        """End the connections whose time is over, and find the next deadline among the rest."""
        for connection in list(self._held.values()):
            if connection.deadline <= now:
                self.expire(connection)
        deadlines = [connection.deadline for connection in self._held.values()]
        self.sweep_at = min(deadlines, default=float("inf"))

    def expire(self, connection: Connection) -> None:
        """End a connection, unless what it was waited for has come while others were served."""
        deadline = connection.deadline
        self._serve(connection)
        if not connection.closed and connection.deadline == deadline:
            refusal = connection.expire()
            if refusal is not None:
                self._refuse(connection, refusal)
            self.settle(connection)

    def postpone(self, seconds: float) -> None:
        """Nobody was listening for so long: that time is not the peers' fault."""
        for connection in self._held.values():
            connection.deadline += seconds

    def leave(self) -> None:
        """Idle ones go to other workers, begun requests are finished here."""
        self.leaving = True
        now = time.monotonic()
        last_call = now + LAST_CALL
        for connection in list(self._held.values()):
            connection.farewell = now + FAREWELL
            if connection.fresh:
                connection.deadline = min(connection.deadline, last_call)
            self.settle(connection)

    def hurry(self) -> None:
        """The master is gone. A request that is still arriving does not keep the worker: a new master
        may want its place."""
        soon = time.monotonic() + ORPHAN_TIME
        for connection in self._held.values():
            if not connection.sending:
                connection.deadline = min(connection.deadline, soon)
        self.sweep_at = min(self.sweep_at, soon)

    def shed(self) -> None:
        """In a forked process: let go of the sockets, and leave alone what the worker waits for."""
        for connection in self._held.values():
            connection.socket.close()

    def close(self) -> None:
        """Whatever is left, at the worker's end."""
        for connection in self._held.values():
            connection.close()


def _room_for_connections() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, soft // DESCRIPTORS_PER_CONNECTION))

"""workers/connections.py: which connections a worker keeps, and which another gets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from workers.connection import Ceilings, Connection
from workers.connections import Connections
from workers.environ import BadRequest
from workers.fastcgi.client import ClientConnection
from workers.handoff import Waiting
from workers.scoreboard import Scoreboard
from workers.selector import Selector


class Holder:
    """Three new connections, and another worker that takes ``room`` of them."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.offers = 0
        self.selector = Selector()
        self.connections = Connections(
            self.selector, Scoreboard(1).slot(1), lambda connection: None, self.take, self.refuse
        )
        self.refused: list[str] = []
        self.peers: list[socket.socket] = []
        for _ in range(3):
            ours, theirs = socket.socketpair()
            self.peers.append(theirs)
            self.connections.settle(Connection(ours, Ceilings(), network=False))

    def take(self, waiting: Waiting) -> bool:
        self.offers += 1
        return self.offers <= self.room

    def refuse(self, connection: Connection, refusal: BadRequest) -> None:
        self.refused.append(refusal.status)
        connection.refuse(refusal)

    def close(self) -> None:
        self.connections.close()
        self.selector.close()
        for peer in self.peers:
            peer.close()


@pytest.fixture(params=[0, 1, 3])
def holder(request: pytest.FixtureRequest) -> Iterator[Holder]:
    holder = Holder(request.param)
    yield holder
    holder.close()


def test_offers_end_when_nobody_takes_them(holder: Holder) -> None:
    holder.connections.hand_over_idle()
    assert holder.offers == min(3, holder.room + 1)
    assert len(holder.connections) == 3 - holder.room


def test_of_those_whose_time_is_over_a_request_is_refused(holder: Holder) -> None:
    first = next(iter(holder.connections._held.values()))
    holder.peers[0].sendall(ClientConnection().begin({"REQUEST_METHOD": "POST"})[:30])
    first.receive()
    holder.connections.sweep(float("inf"))
    assert holder.refused == ["408 Request Timeout"]
    # It lingers, to be closed when that time is over as well; the others had said nothing.
    assert len(holder.connections) == 1
    holder.connections.sweep(float("inf"))
    assert len(holder.connections) == 0 and len(holder.refused) == 1

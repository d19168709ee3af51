"""Connections on their way from one worker to another; both workers are this process."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from workers.handoff import Handoff, Waiting


@pytest.fixture
def handoff() -> Iterator[Handoff]:
    handoff = Handoff()
    yield handoff
    handoff.close()


def readable(handoff: Handoff) -> bool:
    poll = select.poll()
    poll.register(handoff.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def test_a_connection_goes_over_with_what_has_arrived_on_it(handoff: Handoff) -> None:
    server, ours = socket.socketpair()
    with server:
        assert handoff.offer(Waiting(ours, 12.5, 99.0, True))
        ours.close()
        server.sendall(b"the next request")
        assert readable(handoff)
        taken = handoff.accept()
        assert taken is not None
        with taken.socket as sock:
            assert sock.recv(100) == b"the next request"
            assert not sock.get_inheritable()
            assert (taken.accepted, taken.deadline, taken.fresh) == (12.5, 99.0, True)


def test_with_an_empty_queue_another_was_quicker(handoff: Handoff) -> None:
    assert not readable(handoff)
    assert handoff.accept() is None


def test_the_order_is_kept_and_a_full_queue_refuses(handoff: Handoff) -> None:
    server, ours = socket.socketpair()
    with server, ours:
        offered = 0
        while handoff.offer(Waiting(ours, 12.5, 99.0, True)):
            offered += 1
        assert offered > 10
        for _ in range(offered):
            taken = handoff.accept()
            assert taken is not None
            taken.socket.close()
        assert handoff.accept() is None
        assert handoff.offer(Waiting(ours, 12.5, 99.0, True))

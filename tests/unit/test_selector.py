"""The worker's selector."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from workers.selector import EXCLUSIVE, Selector

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made = [socket.socketpair() for _ in range(3)]
    yield made
    for pair in made:
        for end in pair:
            end.close()


def test_what_others_wait_for_as_well_comes_last(pairs: list[Pair]) -> None:
    selector = Selector()
    handled: list[int] = []
    for number, flags in enumerate((EXCLUSIVE, 0, EXCLUSIVE)):
        ours, theirs = pairs[number]
        selector.watch(ours.fileno(), lambda number=number: handled.append(number), flags)
        theirs.send(b"x")
    assert selector.dispatch(0)
    assert handled == [1, 0, 2]


def test_a_descriptor_that_comes_again_is_no_longer_one_of_others(pairs: list[Pair]) -> None:
    selector = Selector()
    handled: list[int] = []
    first, second = pairs[0][0], pairs[1][0]
    selector.watch(first.fileno(), lambda: None, EXCLUSIVE)
    selector.unwatch(first.fileno())
    selector.watch(second.fileno(), lambda: handled.append(2), EXCLUSIVE)
    selector.watch(first.fileno(), lambda: handled.append(1))
    for _, theirs in pairs:
        theirs.send(b"x")
    selector.dispatch(0)
    assert handled == [1, 2]


def test_nothing_has_come(pairs: list[Pair]) -> None:
    selector = Selector()
    selector.watch(pairs[0][0].fileno(), lambda: None)
    assert not selector.dispatch(0)

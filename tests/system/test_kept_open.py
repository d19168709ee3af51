"""Kept-open connections: none of them waits behind the request of another while a worker is idle."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from .peer import Peer, alarms
from .pools import Pool, Spawner
from .processes import wait_until

STREAMS = "tests.system.streams:application"


@pytest.fixture
def pool(spawn: Spawner, tmp_path: Path) -> Pool:
    return spawn("-n", 2, "--app", STREAMS, env={"TEST_MARKS": str(tmp_path)})


@pytest.fixture
def peers(pool: Pool) -> Iterator[list[Peer]]:
    opened: list[Peer] = []
    yield opened
    for peer in opened:
        peer.sock.close()


@pytest.mark.parametrize("connections", [16, 200])
def test_one_long_request_keeps_no_other_waiting(
    pool: Pool, peers: list[Peer], tmp_path: Path, connections: int
) -> None:
    """Whichever worker holds the other connections when it takes up the long request."""
    peers += [Peer(pool.socket) for _ in range(connections)]
    for peer in peers:
        assert peer.get("/").status == 200
    for peer in peers:  # all at once, so that both workers hold some
        peer.send(peer.request("/"))
    for peer in peers:
        assert peer.reply().status == 200
    long, *others = peers
    long.send(long.request("/hold"))
    wait_until((tmp_path / "held").exists)
    for _ in range(2):
        for peer in others:
            assert peer.get("/").status == 200
    (tmp_path / "release").touch()
    assert long.reply().status == 200
    assert not alarms(pool)


def test_requests_that_come_while_all_are_busy_are_taken_up_by_whoever_is_idle_first(
    pool: Pool, peers: list[Peer], tmp_path: Path
) -> None:
    peers += [Peer(pool.socket) for _ in range(50)]
    for peer in peers:
        assert peer.get("/").status == 200
    first, second, *others = peers
    first.send(first.request("/hold"))
    wait_until((tmp_path / "held").exists)
    # The other worker is kept by an answer that stops in the middle.
    second.send(second.request("/stream?count=2&steps=1"))
    assert second.event()
    for peer in others:
        peer.send(peer.request("/"))
    (tmp_path / "go1").touch()
    for peer in others:
        assert peer.reply().status == 200
    (tmp_path / "release").touch()
    assert first.reply().status == 200 and second.reply().ended is not None
    assert not alarms(pool)

"""Messages between the master and its children; both ends in this process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from workers.channel import TEXT_CEILING, Channel


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    master, child = Channel.pair()
    with master, child:
        yield master, child


def test_messages_stay_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    master, child = ends
    for number in range(3):
        assert child.send({"event": "n", "number": number})
    for number in range(3):
        message, descriptors = master.receive()
        assert message == {"event": "n", "number": number, "sender": os.getpid()}
        assert descriptors == []


def test_only_the_master_is_told_the_sender_and_a_lie_is_overwritten(
    ends: tuple[Channel, Channel],
) -> None:
    master, child = ends
    master.send({"command": "drain"})
    assert child.receive() == ({"command": "drain"}, [])
    child.send({"event": "spawned", "sender": 1})
    assert master.receive()[0] == {"event": "spawned", "sender": os.getpid()}


def test_a_descriptor_is_handed_over_and_does_not_cross_exec(ends: tuple[Channel, Channel]) -> None:
    master, child = ends
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert master.send({"command": "spawn"}, [theirs.fileno()])
    message, (descriptor,) = child.receive()
    assert message == {"command": "spawn"}
    assert not os.get_inheritable(descriptor)
    with Channel.adopt(descriptor) as adopted:
        assert adopted.receive() == (None, [])  # its other end is closed


def test_the_end_comes_after_what_was_said_last(ends: tuple[Channel, Channel]) -> None:
    master, child = ends
    child.send({"event": "failed"})
    child.close()
    message, _ = master.receive()
    assert message is not None and message["event"] == "failed"
    assert master.receive() == (None, [])
    assert master.receive() == (None, [])


def test_unread_messages_of_the_other_end_do_not_hide_its_end(ends: tuple[Channel, Channel]) -> None:
    master, child = ends
    master.send({"command": "drain"})
    child.close()  # without reading: the kernel says ECONNRESET once
    assert master.receive() == (None, [])


def test_nothing_there_is_not_the_end(ends: tuple[Channel, Channel]) -> None:
    master, child = ends
    with pytest.raises(BlockingIOError):
        master.receive(socket.MSG_DONTWAIT)
    child.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        child.receive()


def test_who_has_something_to_receive_knows_it(ends: tuple[Channel, Channel]) -> None:
    master, child = ends
    assert not child.waits() and not child.waits(0.001)
    master.send({"command": "drain"})
    assert child.waits() and child.waits(60.0)
    child.receive()
    assert not child.waits()
    master.close()
    assert child.waits()


def test_sending_to_nobody_says_so(ends: tuple[Channel, Channel]) -> None:
    master, child = ends
    child.close()
    assert not master.send({"command": "drain"})
    assert not child.send({"event": "ready"})


def test_a_full_channel_says_so_and_keeps_what_it_has(ends: tuple[Channel, Channel]) -> None:
    master, child = ends
    master.socket.setblocking(False)
    sent = 0
    while master.send({"command": "reopen", "number": sent}):
        sent += 1
    assert sent > 10
    numbers = [message["number"] for message, _ in (child.receive() for _ in range(sent)) if message]
    assert numbers == list(range(sent))


@pytest.mark.parametrize("character", ["x", "\u4e2d", "\U0001f600", "\0", "\udcff"])
def test_the_longest_error_with_its_traceback_fits(
    ends: tuple[Channel, Channel], character: str
) -> None:
    master, child = ends
    text = character * TEXT_CEILING
    assert child.send({"event": "failed", "message": text, "traceback": text})
    message, _ = master.receive()
    assert message is not None and message["message"] == message["traceback"] == text


@pytest.mark.parametrize("data", [b"nonsense", b"[1]", b"\xff\xfe", b'{"event":', b"null"])
def test_what_is_no_message_is_a_value_error(ends: tuple[Channel, Channel], data: bytes) -> None:
    master, child = ends
    child.socket.send(data)
    with pytest.raises(ValueError):
        master.receive()

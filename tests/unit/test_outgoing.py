"""workers/outgoing.py: what a slow reader has not taken yet, in memory, in a file, and nowhere."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import threading
from collections.abc import Iterator

import pytest

from workers import outgoing as module
from workers.outgoing import IN_MEMORY, Outgoing

#: More than a socket and the memory take together.
LARGE = bytes(range(251)) * (8 * IN_MEMORY // 251)


class Ends:
    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.outgoing = Outgoing(self.ours)
        self.received = bytearray()

    def take(self) -> None:
        """What is there now."""
        try:
            while data := self.theirs.recv(1 << 20, socket.MSG_DONTWAIT):
                self.received += data
        except BlockingIOError:
            pass

    def take_all(self) -> bytes:
        while self.outgoing.pending:
            self.take()
            assert self.outgoing.send_on()
        self.take()
        return bytes(self.received)


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    with ends.ours, ends.theirs:
        yield ends
        ends.outgoing.close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_is_taken_at_once_leaves_nothing(ends: Ends) -> None:
    ends.outgoing.put([b"one", b"two"])
    assert not ends.outgoing.pending and not ends.outgoing.send_on()
    assert ends.take_all() == b"onetwo"


def test_the_order_is_kept_through_memory_and_file(ends: Ends) -> None:
    files = open_files()
    ends.outgoing.put([LARGE])
    for number in range(1000):
        ends.outgoing.put([b"%d," % number, b"x" * 1000])
    assert open_files() == files + 1
    assert not ends.outgoing.send_on(), "the reader has taken nothing"
    expected = LARGE + b"".join(b"%d,%s" % (number, b"x" * 1000) for number in range(1000))
    assert ends.take_all() == expected
    assert open_files() == files


def test_a_little_stays_in_memory(ends: Ends) -> None:
    ends.outgoing.put([LARGE])
    ends.take_all()
    files = open_files()
    while not ends.outgoing.pending:
        ends.outgoing.put([b"x" * 10_000])
    ends.outgoing.put([b"x" * 10_000])
    assert open_files() == files
    assert ends.take_all().startswith(LARGE + b"x" * 20_000)


def test_what_is_added_while_the_file_is_read(ends: Ends) -> None:
    ends.outgoing.put([LARGE])
    ends.take()
    ends.outgoing.send_on()
    ends.outgoing.put([b"end"])
    assert ends.take_all() == LARGE + b"end"


@pytest.mark.parametrize("why", ["ceiling", "no file", "full disk"])
def test_without_room_it_waits_for_its_reader(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "the disk is full")

    if why == "ceiling":
        monkeypatch.setattr(module, "IN_FILE", IN_MEMORY)
    elif why == "no file":
        monkeypatch.setattr(tempfile, "TemporaryFile", full)
    else:
        monkeypatch.setattr(os, "pwrite", full)
    wanted = 2 * len(LARGE)

    def read() -> None:
        while len(ends.received) < wanted:
            ends.received += ends.theirs.recv(10_000)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(2):
        ends.outgoing.put([LARGE])
    while ends.outgoing.pending:
        ends.outgoing.send_on()
    reader.join(20)
    assert ends.received == LARGE * 2
    assert len(caplog.records) == (why != "ceiling")


def test_a_reader_that_takes_nothing(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEND_TIMEOUT", 0.01)
    monkeypatch.setattr(module, "IN_FILE", 0)
    with pytest.raises(TimeoutError, match="taken"):
        ends.outgoing.put([LARGE])


def test_a_reader_that_is_gone(ends: Ends) -> None:
    ends.outgoing.put([LARGE])
    ends.theirs.close()
    with pytest.raises(OSError):
        ends.outgoing.send_on()


def test_a_reader_that_goes_while_something_waits(ends: Ends) -> None:
    ends.outgoing.put([LARGE])
    assert ends.outgoing.pending
    ends.theirs.close()
    with pytest.raises(OSError):
        ends.outgoing.put([b"more"])


def test_a_reader_that_goes_on_is_sent_more_at_once(ends: Ends) -> None:
    ends.outgoing.put([LARGE])
    ends.take()
    before = len(ends.received)
    ends.outgoing.put([b"more"])
    ends.take()
    assert len(ends.received) > before
    assert ends.take_all() == LARGE + b"more"


def test_closing_gives_the_file_back(ends: Ends) -> None:
    files = open_files()
    ends.outgoing.put([LARGE])
    assert open_files() == files + 1
    ends.outgoing.close()
    assert not ends.outgoing.pending and open_files() == files

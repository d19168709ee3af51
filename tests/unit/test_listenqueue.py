"""What the kernel says of the connections that wait, asked about real sockets."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Union

import pytest

from spawner import listenqueue
from spawner.listenqueue import Queue, queue_of, queues_of

BACKLOG = 17


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test asks over a netlink socket of its own."""
    kernel = listenqueue._SockDiag()
    monkeypatch.setattr(listenqueue, "_kernel", kernel)
    yield
    kernel.close()


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def listen(opened: contextlib.ExitStack, family: int, name: Union[str, tuple[str, int]]) -> socket.socket:
    sock = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
    sock.bind(name)
    sock.listen(BACKLOG)
    return sock


def connect(opened: contextlib.ExitStack, sock: socket.socket, times: int) -> None:
    for _ in range(times):
        client = opened.enter_context(socket.socket(sock.family, socket.SOCK_STREAM))
        client.connect(sock.getsockname())


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "path", "abstract"])
def test_connections_are_counted_until_they_are_accepted(
    kind: str, tmp_path: Path, opened: contextlib.ExitStack
) -> None:
    names: dict[str, tuple[int, Union[tuple[str, int], str]]] = {
        "tcp4": (socket.AF_INET, ("127.0.0.1", 0)),
        "tcp6": (socket.AF_INET6, ("::1", 0)),
        "path": (socket.AF_UNIX, f"{tmp_path}/s"),
        "abstract": (socket.AF_UNIX, f"\0trac-spawn-queue-{os.getpid()}"),
    }
    sock = listen(opened, *names[kind])
    assert queue_of(sock) == Queue(0, BACKLOG)
    connect(opened, sock, 3)
    assert queue_of(sock) == Queue(3, BACKLOG)
    opened.enter_context(sock.accept()[0])
    assert queue_of(sock) == Queue(2, BACKLOG)
    # What makes the queue longer by one than its limit is full.
    connect(opened, sock, BACKLOG - 1)
    assert queue_of(sock) == Queue(BACKLOG + 1, BACKLOG)


def test_an_adopted_socket_is_known_by_its_descriptor_alone(
    tmp_path: Path, opened: contextlib.ExitStack
) -> None:
    sock = listen(opened, socket.AF_UNIX, f"{tmp_path}/s")
    connect(opened, sock, 2)
    os.unlink(f"{tmp_path}/s")
    adopted = opened.enter_context(socket.socket(fileno=os.dup(sock.fileno())))
    sock.close()
    assert queue_of(adopted) == Queue(2, BACKLOG)


def test_a_socket_that_lets_nobody_in_any_more_still_has_a_queue(
    tmp_path: Path, opened: contextlib.ExitStack
) -> None:
    sock = listen(opened, socket.AF_UNIX, f"{tmp_path}/s")
    connect(opened, sock, 2)
    sock.shutdown(socket.SHUT_RD)
    assert queue_of(sock) == Queue(2, BACKLOG)


def test_the_limit_is_what_the_kernel_made_of_the_backlog(
    tmp_path: Path, opened: contextlib.ExitStack
) -> None:
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    for family, name in ((socket.AF_UNIX, f"{tmp_path}/s"), (socket.AF_INET, ("127.0.0.1", 0))):
        sock = listen(opened, family, name)
        sock.listen(most + 1)
        assert queue_of(sock) == Queue(0, most)


def test_many_sockets_in_one_call_keep_their_order(
    tmp_path: Path, opened: contextlib.ExitStack
) -> None:
    tcp = listen(opened, socket.AF_INET, ("127.0.0.1", 0))
    connect(opened, tcp, 5)
    idle = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    socks = []
    # More than fit into one message to the kernel.
    for number in range(3 * listenqueue._AT_ONCE):
        socks.append(listen(opened, socket.AF_UNIX, f"{tmp_path}/{number}"))
        connect(opened, socks[-1], number % 4)
    found = queues_of([tcp, idle, *socks, socks[3]])
    assert found[:2] == [Queue(5, BACKLOG), None]
    assert found[2:-1] == [Queue(number % 4, BACKLOG) for number in range(len(socks))]
    assert found[-1] == Queue(3, BACKLOG)
    assert queues_of([]) == []


def test_sockets_that_do_not_listen_have_no_queue(
    tmp_path: Path, opened: contextlib.ExitStack
) -> None:
    for pair in (socket.socketpair(), socket.socketpair(type=socket.SOCK_DGRAM)):
        for sock in pair:
            assert queue_of(opened.enter_context(sock)) is None
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            assert queue_of(opened.enter_context(socket.socket(family, kind))) is None
    listening = listen(opened, socket.AF_INET, ("127.0.0.1", 0))
    connect(opened, listening, 1)
    assert queue_of(opened.enter_context(listening.accept()[0])) is None
    closed = listen(opened, socket.AF_UNIX, f"{tmp_path}/closed")
    closed.close()
    assert queue_of(closed) is None


def test_one_netlink_socket_serves_all_questions(
    tmp_path: Path, opened: contextlib.ExitStack
) -> None:
    sock = listen(opened, socket.AF_UNIX, f"{tmp_path}/s")
    queue_of(sock)
    before = os.listdir("/proc/self/fd")
    for _ in range(100):
        assert queue_of(sock) == Queue(0, BACKLOG)
    assert os.listdir("/proc/self/fd") == before


def test_a_child_never_reads_the_answers_of_its_parent(
    tmp_path: Path, opened: contextlib.ExitStack
) -> None:
    sock = listen(opened, socket.AF_UNIX, f"{tmp_path}/s")
    connect(opened, sock, 1)
    assert queue_of(sock) == Queue(1, BACKLOG)
    parents = listenqueue._kernel._socket
    assert parents is not None
    number = os.fstat(parents.fileno()).st_ino
    child = os.fork()
    if child == 0:
        right = queue_of(sock) == Queue(1, BACKLOG)
        own = listenqueue._kernel._socket
        os._exit(0 if right and own is not None and os.fstat(own.fileno()).st_ino != number else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert queue_of(sock) == Queue(1, BACKLOG)


def test_forgetting_closes_the_netlink_socket(
    tmp_path: Path, opened: contextlib.ExitStack
) -> None:
    sock = listen(opened, socket.AF_UNIX, f"{tmp_path}/s")
    before = len(os.listdir("/proc/self/fd"))
    assert queue_of(sock) is not None
    assert len(os.listdir("/proc/self/fd")) == before + 1
    listenqueue.forget()
    assert len(os.listdir("/proc/self/fd")) == before
    assert queue_of(sock) is not None


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("_NETLINK_SOCK_DIAG", 31),  # a kernel without sock_diag: no such protocol
        ("_NETLINK_SOCK_DIAG", 0),  # another service, which has an error for every question
        ("_NO_COOKIE", 7),  # what a kernel without unix_diag says of each socket: NLMSG_ERROR
    ],
)
def test_without_sock_diag_unix_sockets_have_no_numbers_and_tcp_still_has(
    constant: str,
    value: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    opened: contextlib.ExitStack,
) -> None:
    unix = listen(opened, socket.AF_UNIX, f"{tmp_path}/s")
    tcp = listen(opened, socket.AF_INET, ("127.0.0.1", 0))
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(listenqueue, constant, value)
    assert queues_of([unix, tcp]) == [None, Queue(0, BACKLOG)]
    assert os.listdir("/proc/self/fd") == before


def test_a_kernel_without_the_answer_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, opened: contextlib.ExitStack
) -> None:
    sock = listen(opened, socket.AF_UNIX, f"{tmp_path}/s")
    with monkeypatch.context() as patch:
        patch.setattr(listenqueue, "_NETLINK_SOCK_DIAG", 31)
        assert queue_of(sock) is None
    assert queue_of(sock) is None


def test_a_shortage_of_descriptors_passes(
    tmp_path: Path, opened: contextlib.ExitStack
) -> None:
    sock = listen(opened, socket.AF_UNIX, f"{tmp_path}/s")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        assert queue_of(sock) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert queue_of(sock) == Queue(0, BACKLOG)


def test_answers_cut_short_or_not_meant_for_us_say_nothing(
    tmp_path: Path, opened: contextlib.ExitStack
) -> None:
    known = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    inode = os.fstat(known.fileno()).st_ino
    queue_of(known)
    netlink = listenqueue._kernel._socket
    assert netlink is not None
    netlink.send(listenqueue._question(inode, 7))
    answer = netlink.recv(4096)
    assert list(listenqueue._read_answers(answer, 7)) == [(inode, None)]
    assert list(listenqueue._read_answers(answer, 8)) == []
    for length in range(len(answer)):
        for found, queue in listenqueue._read_answers(answer[:length], 7):
            assert (found, queue) == (inode, None)

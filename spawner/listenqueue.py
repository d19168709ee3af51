"""How many connections wait in a listening socket to be accepted, as the kernel counts them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import Iterable, Iterator, Optional

# tcp_states.h; Unix sockets use the number as well.
_TCP_LISTEN = 10

# linux/tcp.h, struct tcp_info: eight bytes, the first of them tcpi_state, then tcpi_rto, tcpi_ato,
# tcpi_snd_mss, tcpi_rcv_mss, tcpi_unacked and tcpi_sacked, 32 bits each. Of a listening socket,
# tcp_get_info() puts sk_ack_backlog into tcpi_unacked and sk_max_ack_backlog into tcpi_sacked.
_TCP_INFO = struct.Struct("=B7x4I2I")

# linux/netlink.h and linux/sock_diag.h.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
# struct nlmsghdr: nlmsg_len, nlmsg_type, nlmsg_flags, nlmsg_seq, nlmsg_pid.
_HEADER = struct.Struct("=IHHII")

# linux/unix_diag.h, struct unix_diag_req: sdiag_family, sdiag_protocol, pad, udiag_states,
# udiag_ino, udiag_show, udiag_cookie[2].
_REQUEST = struct.Struct("=BBHIIIII")
# struct unix_diag_msg: udiag_family, udiag_type, udiag_state, pad, udiag_ino, udiag_cookie[2].
_ANSWER = struct.Struct("=BBBBIII")
# struct rtattr before each attribute: rta_len (with these four bytes), rta_type.
_ATTRIBUTE = struct.Struct("=HH")
# struct unix_diag_rqlen: udiag_rqueue, udiag_wqueue.
_LENGTHS = struct.Struct("=II")
_EVERY_STATE = 0xFFFFFFFF
_UDIAG_SHOW_RQLEN = 0x10
_UNIX_DIAG_RQLEN = 4
_LARGEST_INODE = 0xFFFFFFFF
# The cookie that fits every socket with the inode.
_NO_COOKIE = 0xFFFFFFFF

# An answer to UDIAG_SHOW_RQLEN is 52 bytes, an error with the request in it 60.
_ANSWER_SIZE = 4096
# Lack of these passes; whatever else keeps the netlink socket from being made does not.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
# Requests in one message, far below the netlink socket's buffers for them and their answers.
_AT_ONCE = 64


@dataclass(frozen=True)
class Queue:
    """``waiting`` connections of at most ``limit``, the backlog after the kernel's cut by
    net.core.somaxconn. The kernel refuses when waiting > limit: a full queue has one more."""

    waiting: int
    limit: int


def queue_of(sock: socket.socket) -> Optional[Queue]:
    """The accept queue of ``sock``; None when it does not listen, and when the kernel has no
    answer: sock_diag is not built in, a sandbox forbids it, or the socket comes from another
    network namespace. Never waits."""
    return queues_of([sock])[0]


def queues_of(socks: Iterable[socket.socket]) -> list[Optional[Queue]]:
    """As queue_of() for each of ``socks``, with one question to the kernel for all Unix ones."""
    socks = list(socks)
    inodes = [_inode(sock) if sock.family == socket.AF_UNIX else 0 for sock in socks]
    found = _kernel.ask(sorted({inode for inode in inodes if inode}))
    return [
        found.get(inode) if inode else _tcp_queue(sock) for sock, inode in zip(socks, inodes)
    ]


def forget() -> None:
    """In a child: close the netlink socket that it got from its parent."""
    _kernel.close()


def _inode(sock: socket.socket) -> int:
    """The number that unix_diag knows it by; 0 for none."""
    try:
        inode = os.fstat(sock.fileno()).st_ino
    except OSError:
        return 0  # closed
    return inode if inode <= _LARGEST_INODE else 0


def _tcp_queue(sock: socket.socket) -> Optional[Queue]:
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:
        return None  # closed, or not TCP
    if len(info) < _TCP_INFO.size:
        return None
    fields = _TCP_INFO.unpack(info)
    return Queue(fields[5], fields[6]) if fields[0] == _TCP_LISTEN else None


class _SockDiag:
    """Questions to NETLINK_SOCK_DIAG, sock_diag(7), over one socket of this process.

    The kernel answers while the question is being sent, so whatever has not arrived when send()
    returns never will: nothing here has to wait.
    """

    def __init__(self) -> None:
        self._socket: Optional[socket.socket] = None
        self._pid = 0
        self._sequence = 0
        # Each question to a kernel without unix_diag would start a modprobe: ask it once.
        self._useless = False

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(self, inodes: list[int]) -> dict[int, Queue]:
        """The queues of those Unix sockets that are found and listen, by inode."""
        if not inodes or not self._is_open():
            return {}
        found: dict[int, Queue] = {}
        for start in range(0, len(inodes), _AT_ONCE):
            for inode, queue in self._exchange(inodes[start : start + _AT_ONCE]):
                if queue is not None:
                    found[inode] = queue
        return found

    def _is_open(self) -> bool:
        if self._pid != os.getpid():
            # After a fork both processes would read from one socket, each the other's answers.
            self.close()
            self._pid = os.getpid()
        if self._socket is None and not self._useless:
            self._open()
        return self._socket is not None

    def _open(self) -> None:
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_SOCK_DIAG
            )
            # One that certainly exists: when the kernel does not find it, it has no unix_diag.
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as known:
                self._useless = not self._exchange([_inode(known)])
        except OSError as error:
            self._useless = error.errno not in _SHORTAGES
            self.close()
        if self._useless:
            self.close()

    def _exchange(self, inodes: list[int]) -> list[tuple[int, Optional[Queue]]]:
        """Inode and queue of each socket that is found; no queue when it does not listen."""
        if self._socket is None:
            return []
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        answers: list[tuple[int, Optional[Queue]]] = []
        try:
            self._socket.send(b"".join(_question(inode, self._sequence) for inode in inodes))
            for _ in inodes:
                answers += _read_answers(self._socket.recv(_ANSWER_SIZE), self._sequence)
        except BlockingIOError:
            pass  # no more answers than these
        except OSError:
            # ENOBUFS above all, when answers were lost. A new socket has no old ones in it.
            self.close()
        return answers


def _question(inode: int, sequence: int) -> bytes:
    request = _REQUEST.pack(
        socket.AF_UNIX, 0, 0, _EVERY_STATE, inode, _UDIAG_SHOW_RQLEN, _NO_COOKIE, _NO_COOKIE
    )
    length = _HEADER.size + len(request)
    return _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, sequence, 0) + request


def _read_answers(data: bytes, sequence: int) -> Iterator[tuple[int, Optional[Queue]]]:
    """What the messages in ``data`` say of sockets; NLMSG_ERROR among them says nothing."""
    with contextlib.suppress(struct.error):  # cut short
        while data:
            length, kind, _, number, _ = _HEADER.unpack_from(data)
            if length < _HEADER.size:
                return
            if kind == _SOCK_DIAG_BY_FAMILY and number == sequence:
                body = data[_HEADER.size : length]
                _, _, state, _, inode, _, _ = _ANSWER.unpack_from(body)
                lengths = _attribute(body[_ANSWER.size :], _UNIX_DIAG_RQLEN)
                listens = state == _TCP_LISTEN and len(lengths) == _LENGTHS.size
                yield inode, Queue(*_LENGTHS.unpack(lengths)) if listens else None
            data = data[_aligned(length) :]


def _attribute(data: bytes, wanted: int) -> bytes:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if kind == wanted:
            return data[_ATTRIBUTE.size : length]
        data = data[max(_aligned(length), _ATTRIBUTE.size) :]
    return b""


def _aligned(length: int) -> int:
    """NLMSG_ALIGN, RTA_ALIGN: each message and attribute begins at a multiple of four."""
    return (length + 3) & ~3


_kernel = _SockDiag()

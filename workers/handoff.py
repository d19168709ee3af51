"""Connections without a request, on their way from one worker to another.

A worker that leaves must not close a connection on which the web server may send its next request at
that very moment, and one that takes up a request must not keep to itself another that has only just
been made. It puts it into this queue instead, where an idle worker takes it up. The queue is a socket
pair that all workers of a pool share, so the kernel keeps the order and wakes one of them.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple, Optional

_INT = struct.Struct("i")
_ROOM = socket.CMSG_LEN(_INT.size)
#: Of what lies in the queue beside each connection: processes that share one have to agree on it.
FORMAT = "dd?"
_TIMES = struct.Struct(FORMAT)


class Waiting(NamedTuple):
    """A connection in the queue. ``accepted`` and ``deadline`` are on the monotonic clock, which all
    processes share: being passed around must gain nobody time. ``fresh``: nothing ever came on it."""

    socket: socket.socket
    accepted: float
    deadline: float
    fresh: bool


class Handoff:
    """Made by the master before it forks; both ends are non-blocking and belong to every worker."""

    def __init__(self) -> None:
        # SEQPACKET: a datagram socket would hold net.unix.max_dgram_qlen (10) connections at most.
        self._keep(*socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))

    @classmethod
    def adopt(cls, give: int, take: int) -> Handoff:
        """The queue of another master, by the descriptors() that it has handed over."""
        handoff = cls.__new__(cls)
        handoff._keep(socket.socket(fileno=give), socket.socket(fileno=take))
        return handoff

    def _keep(self, give: socket.socket, take: socket.socket) -> None:
        self._give, self._take = give, take
        self._give.setblocking(False)
        self._take.setblocking(False)

    def descriptors(self) -> tuple[int, int]:
        """Where to put connections in, and where to take them out."""
        return self._give.fileno(), self._take.fileno()

    def share(self) -> Handoff:
        """The same queue, for another pool of this process."""
        return Handoff.adopt(*(os.dup(descriptor) for descriptor in self.descriptors()))

    def fileno(self) -> int:
        """Readable when a connection waits to be taken."""
        return self._take.fileno()

    def offer(self, waiting: Waiting) -> bool:
        """Queue a connection; False when the queue is full. The caller closes its own descriptor."""
        times = _TIMES.pack(waiting.accepted, waiting.deadline, waiting.fresh)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _INT.pack(waiting.socket.fileno()))
        try:
            # The flag, though the socket does not block: all workers share that setting, and the
            # application of one could change it for all.
            self._give.sendmsg([times], [rights], socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    def accept(self) -> Optional[Waiting]:
        """The next connection, or None when another worker was quicker."""
        try:
            # Not socket.recv_fds(): it ignores its flags, and a connection that a program started
            # by the application inherits is never closed for the web server.
            flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
            data, ancillary, _, _ = self._take.recvmsg(_TIMES.size, _ROOM, flags)
        except BlockingIOError:
            return None
        # Without a free descriptor the kernel drops the one that came.
        if not ancillary or len(data) != _TIMES.size:
            return None
        (descriptor,) = _INT.unpack(ancillary[0][2])
        # Type and protocol are said, or Python asks the kernel for each.
        sock = socket.socket(-1, socket.SOCK_STREAM, 0, fileno=descriptor)
        return Waiting(sock, *_TIMES.unpack(data))

    def close(self) -> None:
        self._give.close()
        self._take.close()

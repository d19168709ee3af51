"""Idle kept-open connections on their way from one worker to another.

A worker that leaves must not close a connection on which the web server may send its next request at
that very moment. It puts it into this queue instead, where an idle worker takes it up. The queue is a
socket pair that all workers of a pool share, so the kernel keeps the order and wakes one of them.
"""

from __future__ import annotations

import socket
from typing import Optional


class Handoff:
    """Made by the master before it forks; both ends are non-blocking and belong to every worker."""

    def __init__(self) -> None:
        # SEQPACKET: a datagram socket would hold net.unix.max_dgram_qlen (10) connections at most.
        self._give, self._take = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._give.setblocking(False)
        self._take.setblocking(False)

    def fileno(self) -> int:
        """Readable when a connection waits to be taken."""
        return self._take.fileno()

    def offer(self, connection: socket.socket) -> bool:
        """Queue a connection; False when the queue is full. The caller closes its own descriptor."""
        try:
            socket.send_fds(self._give, [b"\0"], [connection.fileno()])
        except OSError:
            return False
        return True

    def accept(self) -> Optional[socket.socket]:
        """The next connection, or None when another worker was quicker."""
        try:
            _, descriptors, _, _ = socket.recv_fds(self._take, 1, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        return socket.socket(fileno=descriptors[0]) if descriptors else None

    def close(self) -> None:
        self._give.close()
        self._take.close()

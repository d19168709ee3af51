"""Where a worker's connections come from: the pool's listeners, and other workers."""

from __future__ import annotations

import errno
import functools
import logging
import socket
import struct
import time
from typing import Callable, Optional, Sequence

from workers.handoff import Handoff, Waiting
from workers.peers import Doorkeeper
from workers.selector import EXCLUSIVE, Selector

log = logging.getLogger("trac-spawn")

#: Accepting failed for want of descriptors or memory: try again after this many seconds...
ACCEPT_PAUSE = 0.25
#: ... and say so again after this many.
COMPLAIN_AGAIN = 60.0
#: linux/tcp.h, struct tcp_info: eight bytes, then numbers of 32 bits of which the twelfth is
#: tcpi_last_data_recv: milliseconds since the last data came or, before any, since the connection did.
_LAST_DATA = struct.Struct("=52xI")
#: accept(2): errors of the connection that was about to be accepted, not of accepting.
_GONE_BEFORE = {
    errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.ENOPROTOOPT, errno.EHOSTDOWN,
    errno.ENONET, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT,
}  # fmt: skip


class Listener:
    """One of the pool's listening sockets."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.network = sock.family != socket.AF_UNIX
        # As numbers. Python's own accept() makes them anew from enumerations for each connection, which
        # takes as long as the system call.
        self._kind = int(sock.family), int(sock.type), sock.proto

    def accept(self) -> tuple[socket.socket, object]:
        """As socket.accept() of one that does not block. Raises OSError."""
        descriptor, address = self.socket._accept()  # type: ignore[attr-defined]  # of no published types
        return socket.socket(*self._kind, fileno=descriptor), address


class Reception:
    """Accepts while it is open, and gives each connection to ``welcome``, with the listener that it came
    to, or how it has waited at another worker already."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        handoff: Optional[Handoff],
        doorkeeper: Doorkeeper,
        selector: Selector,
        welcome: Callable[[socket.socket, Optional[Listener], Optional[Waiting]], None],
        has_room: Callable[[], bool],
    ) -> None:
        self._listeners = [Listener(listener) for listener in listeners]
        self._handoff = handoff
        self._doorkeeper = doorkeeper
        self._selector = selector
        self._welcome = welcome
        self._has_room = has_room
        self._complain_again = 0.0
        #: When to call open() again (monotonic clock); None while nothing hinders accepting.
        self.opens_again: Optional[float] = None
        for listener in listeners:
            if listener.family in (socket.AF_INET, socket.AF_INET6):
                # What is accepted inherits it. Else Nagle's algorithm holds back the second piece of
                # an answer until the first has been acknowledged, which takes the peer up to 40 ms.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def open(self) -> None:
        self.opens_again = None
        # Exclusive: one connection wakes one worker, not the whole pool.
        for listener in self._listeners:
            accept = functools.partial(self._accept, listener)
            self._selector.watch(listener.socket.fileno(), accept, EXCLUSIVE)
        if self._handoff is not None:
            self._selector.watch(self._handoff.fileno(), self._take_over, EXCLUSIVE)

    def accept_all(self) -> None:
        """Take in whatever is queued now, on the listeners and by other workers."""
        for listener in list(self._listeners):
            while listener in self._listeners and self._accept(listener):
                pass
        while self._handoff is not None and self._take_over():
            pass

    def close(self) -> None:
        """For good. The queue of connections between workers stays open to give to."""
        self._unwatch()
        for listener in self._listeners:
            listener.socket.close()
        self._listeners = []
        self.opens_again = None

    def shed(self) -> None:
        """In a forked process: close, and leave alone what the worker waits for."""
        for listener in self._listeners:
            listener.socket.close()

    def complain(self, message: str) -> None:
        """Log what is wrong, but not each time that it is."""
        now = time.monotonic()
        if now >= self._complain_again:
            self._complain_again = now + COMPLAIN_AGAIN
            log.error("%s (a higher --rlimit-files may help)", message)

    def _unwatch(self) -> None:
        for listener in self._listeners:
            self._selector.unwatch(listener.socket.fileno())
        if self._handoff is not None:
            self._selector.unwatch(self._handoff.fileno())

    def _accept(self, listener: Listener) -> bool:
        """Accept one connection; False when there was none, or none can be accepted now."""
        if not self._has_room():
            self._pause("too many connections wait for the rest of a request")
            return False
        try:
            sock, address = listener.accept()
        except BlockingIOError:
            return False  # another worker was quicker
        except OSError as error:
            if error.errno in _GONE_BEFORE:
                return True
            self._pause(str(error.strerror))
            return False
        if not self._doorkeeper.admits(sock, address):
            sock.close()
        else:
            self._welcome(sock, listener, None)
        return True

    def _take_over(self) -> bool:
        """Take over one connection; False when there was none."""
        assert self._handoff is not None
        if not self._has_room():
            self._pause("too many connections wait for the rest of a request")
            return False
        taken = self._handoff.accept()
        if taken is None:
            return False
        self._welcome(taken.socket, None, taken)
        return True

    def _pause(self, reason: str) -> None:
        """Watched on, the listeners would keep the loop turning for nothing."""
        self.complain(f"cannot accept: {reason}")
        self._unwatch()
        self.opens_again = time.monotonic() + ACCEPT_PAUSE


def queued(sock: socket.socket) -> Optional[int]:
    """How long a connection over TCP that has just been accepted had waited for it, in nanoseconds; None
    where the kernel does not say."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA.size)
    except OSError:
        return None
    return int(_LAST_DATA.unpack(info)[0]) * 1_000_000 if len(info) == _LAST_DATA.size else None

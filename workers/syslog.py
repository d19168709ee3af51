"""The system log, as the C library writes to it: a message for each line, to a datagram socket."""

from __future__ import annotations

import os
import select
import socket
import time

SYSLOG = "/dev/log"
#: daemon, info (syslog(3)): 3 * 8 + 6.
PRIORITY = 30
#: How long (seconds) a line waits for a daemon whose queue is full. One that has stopped reading must
#: not stop the workers too: from then on lines are lost until it reads again.
PATIENCE = 1.0


class Syslog:
    """Writes to a socket that another process has connected. Where that has ended meanwhile, as at an
    upgrade of the daemon, it is connected again, unless --chroot hides the new one."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM, fileno=descriptor)
        self._patience = PATIENCE

    def write(self, line: bytes) -> None:
        """Raises OSError."""
        # RFC 3164, section 4.1.2: a day of one digit comes after a space.
        head = f"<{PRIORITY}>{time.strftime('%b %e %H:%M:%S')} trac-spawn[{os.getpid()}]: "
        message = head.encode() + line
        try:
            self._send(message)
        except BlockingIOError:
            raise
        except OSError:  # refused at first, and from then on not connected
            self._socket.connect(SYSLOG)
            self._send(message)

    def _send(self, message: bytes) -> None:
        try:
            self._socket.send(message, socket.MSG_DONTWAIT)
        except BlockingIOError:
            patience, self._patience = self._patience, 0.0
            poll = select.poll()
            poll.register(self._socket, select.POLLOUT)
            if not poll.poll(patience * 1000):
                raise
            self._socket.send(message, socket.MSG_DONTWAIT)
        self._patience = PATIENCE

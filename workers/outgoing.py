"""What goes out on a connection: at once what the peer takes, the rest as it takes more.

A slow reader must not keep its worker from serving others. What it has not taken yet waits here, the
beginning in memory and the rest in a temporary file, while the worker's selector sends it on.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import tempfile
from typing import IO, Optional

log = logging.getLogger("trac-spawn")

#: A web server that takes no byte of an answer for this long (seconds) is gone or hung.
SEND_TIMEOUT = 60.0
#: So much of an answer waits in memory: any page does. Each connection may hold this much, and a worker
#: can have a thousand of them.
IN_MEMORY = 256 << 10
#: More buffers than these are given to the kernel as they are: to join them would copy far more.
FEW_BUFFERS = 4
#: So much waits in a temporary file, as at nginx; an answer that is longer waits for its reader.
IN_FILE = 1 << 30


class Outgoing:
    """One connection's way out."""

    # What follows the part in memory; from _read to _written it is still to be sent.
    _file: Optional[IO[bytes]] = None
    _read = 0
    _written = 0
    _without_file = False

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._memory = bytearray()

    @property
    def pending(self) -> bool:
        """Something waits to be taken."""
        # What is in the file follows something in memory.
        return bool(self._memory)

    def put(self, buffers: list[bytes]) -> None:
        """Send what the peer takes now, and keep the rest. Waits only where there is no room for it.

        Raises OSError when the peer is gone, or takes nothing for SEND_TIMEOUT.
        """
        if self._memory:
            # To store more and more of an answer for a peer that is gone would serve nobody.
            self.send_on()
        if len(buffers) <= FEW_BUFFERS:
            buffers = [b"".join(buffers)]
        sent = 0 if self._memory else self._send(buffers)
        if sent < sum(map(len, buffers)):
            self._keep(memoryview(b"".join(buffers))[sent:])

    def _send(self, buffers: list[bytes]) -> int:
        """How many bytes of them the peer takes now. Raises OSError."""
        try:
            if len(buffers) == 1:
                return self._socket.send(buffers[0], socket.MSG_DONTWAIT)
            return self._socket.sendmsg(buffers, (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def send_on(self) -> bool:
        """Send what the peer takes now of what waits; False when that is nothing. Raises OSError."""
        if not self._memory:
            return False
        try:
            sent = self._socket.send(self._memory, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        del self._memory[:sent]
        if not self._memory and self._file is not None:
            self._load(self._file)
        return True

    def close(self) -> None:
        """What waits is lost."""
        if self._memory or self._file is not None:
            self._memory.clear()
            self._drop_file()

    def _keep(self, data: memoryview) -> None:
        if self._file is None:
            room = max(0, IN_MEMORY - len(self._memory))
            self._memory += data[:room]
            data = data[room:]
        if not self._without_file and self._written - self._read + len(data) <= IN_FILE:
            data = self._store(data)
        if data:
            self._wait()
            self._memory += data

    def _store(self, data: memoryview) -> memoryview:
        """Append to the file; what there was no room for."""
        try:
            if data and self._file is None:
                self._file = tempfile.TemporaryFile(prefix="trac-spawn-", buffering=0)
            while data and self._file is not None:
                written = os.pwrite(self._file.fileno(), data, self._written)
                self._written += written
                data = data[written:]
        except OSError as error:
            # Said once a connection: the next piece of the answer would only fail again.
            log.error("a slow reader keeps its worker: the rest of an answer cannot be stored: %s", error)
            self._without_file = True
        return data

    def _load(self, file: IO[bytes]) -> None:
        """The next part of the file. Raises OSError."""
        if self._read < self._written:
            data = os.pread(file.fileno(), min(IN_MEMORY, self._written - self._read), self._read)
            if not data:
                raise OSError(errno.EIO, "the temporary file has shrunk")
            self._memory += data
            self._read += len(data)
        if self._read == self._written:
            self._drop_file()

    def _drop_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._read = self._written = 0

    def _wait(self) -> None:
        """Until all has been sent. Raises OSError."""
        poller = select.poll()
        poller.register(self._socket, select.POLLOUT)
        while self._memory:
            if not poller.poll(SEND_TIMEOUT * 1000):
                raise TimeoutError(f"nothing of the answer was taken for {SEND_TIMEOUT:.0f} s")
            self.send_on()

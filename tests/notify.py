"""A stand-in for the service manager: the receiving end of NOTIFY_SOCKET."""

from __future__ import annotations

import array
import contextlib
import select
import socket

PATIENCE = 20.0


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, name: str) -> None:
        self.address = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name[1:] if name.startswith("@") else name)
        self.socket.settimeout(PATIENCE)

    def receive(self) -> tuple[dict[str, str], list[int]]:
        """The next message's assignments and descriptors."""
        data, rights, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(64 * 4))
        fds = array.array("i")
        for level, kind, content in rights:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        lines = data.decode().split("\n")
        return dict(line.split("=", 1) for line in lines), list(fds)

    def said(self) -> dict[str, str]:
        assignments, fds = self.receive()
        assert fds == []
        return assignments

    def is_silent(self) -> bool:
        return not select.select([self.socket], [], [], 0)[0]

    def fill(self) -> int:
        """Send until there is no room for more; the number of messages."""
        sent = 0
        name = self.socket.getsockname()
        with contextlib.suppress(BlockingIOError):
            while True:
                # One socket each: the sender's own buffer is not what shall be full.
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                    sock.setblocking(False)
                    sock.sendto(b"FILL=1", name)
                sent += 1
        return sent

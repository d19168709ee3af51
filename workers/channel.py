"""Messages between the master and one of its children, over a socket pair that keeps their bounds.

A message is a small dict in JSON, with file descriptors beside it where it hands one over. The end
of the stream is a message too: it says that the process at the other end is gone, however it went.
"""

from __future__ import annotations

import array
import json
import select
import socket
import struct
from typing import Any, Optional, Sequence

#: A text in a message is cut to this many characters. JSON makes up to 12 bytes of one, and two
#: texts (an error and its traceback) fit into a socket's default send buffer of 212,992.
TEXT_CEILING = 8_192
_MESSAGE_CEILING = 262_144
_DESCRIPTORS_CEILING = 64
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)
_ANCILLARY = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4 * _DESCRIPTORS_CEILING)

Message = dict[str, Any]


class Channel:
    """One end of a channel, which waits or not as its socket is set."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """The master's end and its child's: SOCK_SEQPACKET, so that a message arrives whole and the
        end of the stream is seen. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # The kernel adds the sender's pid to what the master receives. What a child says of
        # itself must not decide whom the master signals: it may be root, and the child is not.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        return cls(ours), cls(theirs)

    @classmethod
    def adopt(cls, descriptor: int) -> Channel:
        """The end that another process has handed over as ``descriptor``."""
        return cls(socket.socket(fileno=descriptor))

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> bool:
        """Send one message; False when the other end is gone or reads no more."""
        data = json.dumps(message).encode()
        try:
            if descriptors:
                socket.send_fds(self.socket, [data], list(descriptors))
            else:
                self.socket.send(data)
        except OSError:
            return False
        return True

    def waits(self, patience: float = 0.0) -> bool:
        """Whether receive() has something to return, now or within so many seconds."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(patience * 1000))

    def receive(self, flags: int = 0) -> tuple[Optional[Message], list[int]]:
        """The next message and its descriptors, which the caller owns; (None, []) at the end.

        At the master's end ``message["sender"]`` is the pid of whoever sent it, from the kernel.
        Raises BlockingIOError when nothing has come yet and ``flags`` or the socket forbid waiting,
        and ValueError for what is no message.
        """
        try:
            data, ancillary, _, _ = self.socket.recvmsg(
                _MESSAGE_CEILING, _ANCILLARY, flags | socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return None, []
        if not data:
            return None, []
        sender, descriptors = _unpack(ancillary)
        try:
            message = json.loads(data)
        except RecursionError:
            raise ValueError("a message nested too deeply") from None
        if not isinstance(message, dict):
            raise ValueError(f"not a message: {data[:80]!r}")
        if sender is not None:
            message["sender"] = sender
        return message, descriptors


def _unpack(ancillary: list[tuple[int, int, bytes]]) -> tuple[Optional[int], list[int]]:
    """The sender's pid and the descriptors that came beside a message."""
    sender = None
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            sender = _CREDENTIALS.unpack(data)[0]
        elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return sender, list(descriptors)

"""Messages between the master and one of its children, over a socket pair that keeps their bounds.

A message is a small dict in JSON, with file descriptors beside it where it hands one over. The end of
the stream is a message too: it says that the process at the other end is gone, however it went.
"""

from __future__ import annotations

import json
import socket
from typing import Any, Optional, Sequence

#: A message with a traceback in it is cut to this many bytes of text, so that it always fits.
TEXT_CEILING = 32_768
_MESSAGE_CEILING = 262_144
_DESCRIPTORS_CEILING = 64

Message = dict[str, Any]


class Channel:
    """One end of a channel, which waits or not as its socket is set."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Both ends: SOCK_SEQPACKET, so that a message arrives whole and the end of the stream is seen."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
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

    def receive(self, flags: int = 0) -> tuple[Optional[Message], list[int]]:
        """The next message and its descriptors, which the caller owns; (None, []) at the end of the stream.

        Raises BlockingIOError when nothing has come yet and ``flags`` or the socket forbid waiting.
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self.socket, _MESSAGE_CEILING, _DESCRIPTORS_CEILING, flags | socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return None, []
        if not data:
            return None, []
        message = json.loads(data)
        assert isinstance(message, dict)
        return message, descriptors

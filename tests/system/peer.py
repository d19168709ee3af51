"""The web server's end of one connection, for a test that sends what no web server would."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Optional, Union

from workers.fastcgi.client import (
    ClientConnection,
    Event,
    RequestEnded,
    Stderr,
    Stdout,
    parse_head,
    split_head,
)
from workers.fastcgi.connection import NEED_DATA, PeerClosed
from workers.fastcgi.records import RemoteProtocolError

from .clients import params
from .pools import Pool
from .processes import PATIENCE

Address = Union[Path, tuple[str, int]]


@dataclass(frozen=True)
class Reply:
    """All of an answer. ``ended`` is None when the connection closed without END_REQUEST."""

    stdout: bytes
    stderr: bytes
    ended: Optional[RequestEnded]

    @property
    def status(self) -> int:
        """0 for a request that ended without an answer."""
        return parse_head(split_head(self.stdout)[0])[0] if self.stdout else 0

    @property
    def body(self) -> bytes:
        return split_head(self.stdout)[1]


def alarms(pool: Pool) -> list[str]:
    """What the log has had to say since the pool was ready, beyond the ordinary."""
    lines = pool.log.partition("] INFO: ready: ")[2].splitlines()[1:]
    return [line for line in lines if "] INFO: " not in line]


class Peer:
    """A connection to a pool; ``fcgi`` encodes what to send."""

    def __init__(self, where: Union[Address, socket.socket], timeout: float = PATIENCE) -> None:
        if isinstance(where, socket.socket):
            self.sock = where
        elif isinstance(where, Path):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(str(where))
        else:
            self.sock = socket.create_connection(where)
        self.sock.settimeout(timeout)
        self.fcgi = ClientConnection()
        self.read_size = 1 << 18

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.sock.close()

    def send(self, *data: bytes) -> None:
        self.sock.sendall(b"".join(data))

    def begin(self, path: str, id: int = 1, keep: bool = True, **more: str) -> bytes:
        """The bytes of a request up to the end of its parameters."""
        return self.fcgi.begin(params(path, **more), id, keep_connection=keep)

    def request(self, path: str, body: bytes = b"", id: int = 1, keep: bool = True) -> bytes:
        """The bytes of a whole request."""
        more = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(body))} if body else {}
        sent = self.begin(path, id, keep, **more)
        return sent + self.fcgi.body(body, id) + self.fcgi.end_body(id)

    def expect(self, id: int = 1) -> None:
        """An answer will come to bytes that were made by hand, or by something else."""
        self.fcgi.begin({}, id)

    def get(self, path: str, id: int = 1, keep: bool = True) -> Reply:
        self.send(self.request(path, id=id, keep=keep))
        return self.reply()

    def event(self) -> Event:
        """The next thing that the pool says. TimeoutError when it says nothing."""
        while True:
            try:
                event = self.fcgi.next_event()
            except RemoteProtocolError:
                return PeerClosed()  # an answer that is cut off ends with what is no record
            if event is not NEED_DATA:
                return event
            try:
                self.fcgi.receive_data(self.sock.recv(self.read_size))
            except ConnectionResetError:
                self.fcgi.receive_data(b"")
            except socket.timeout as error:  # the same as TimeoutError only since Python 3.10
                raise TimeoutError(str(error)) from None

    def reply(self) -> Reply:
        """The answer to the request in progress, to its end."""
        stdout, stderr = bytearray(), bytearray()
        while True:
            event = self.event()
            if isinstance(event, Stdout):
                stdout += event.data
            elif isinstance(event, Stderr):
                stderr += event.data
            elif isinstance(event, RequestEnded):
                return Reply(bytes(stdout), bytes(stderr), event)
            elif isinstance(event, PeerClosed):
                return Reply(bytes(stdout), bytes(stderr), None)
            else:
                raise AssertionError(f"not part of an answer: {event}")

    def closed(self) -> bool:
        """Wait for the pool to close the connection, saying nothing more."""
        return isinstance(self.event(), PeerClosed)

    def reset(self) -> None:
        """Vanish without a word: on TCP the pool gets a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

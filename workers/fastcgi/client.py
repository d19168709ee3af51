"""The web server's end of a FastCGI connection.

ClientConnection is sans-IO, as its counterpart in connection.py. request() puts a blocking
socket around it: for checks, the demonstration gateway and tests, not for a busy web server,
since it keeps the whole answer in memory.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Iterable, Mapping, Optional, Union

from workers.fastcgi import records
from workers.fastcgi.connection import NEED_DATA, NeedData, PeerClosed
from workers.fastcgi.records import (
    LocalProtocolError,
    ProtocolStatus,
    RecordReader,
    RecordType,
    RemoteProtocolError,
    Role,
)

Address = Union[str, tuple[str, int]]

_READ_SIZE = 256 * 1024


@dataclass(frozen=True)
class Stdout:
    """The next piece of the answer, never empty."""

    request_id: int
    data: bytes


@dataclass(frozen=True)
class Stderr:
    """The next piece of what is meant for the error log, never empty."""

    request_id: int
    data: bytes


@dataclass(frozen=True)
class RequestEnded:
    """The id may be used again; app_status is unsigned, as on the wire."""

    request_id: int
    app_status: int
    protocol_status: int


@dataclass(frozen=True)
class Values:
    """The answer to get_values(): what the application knows of what was asked."""

    values: dict[str, str]


@dataclass(frozen=True)
class UnknownType:
    """The application does not know a type of management record that it was sent."""

    type: int


Event = Union[Stdout, Stderr, RequestEnded, Values, UnknownType, PeerClosed, NeedData]


class ClientConnection:
    """What to send comes as bytes from the methods; what the application says, as events.

    It sends what it is told in any order, and so can be used to try out an application.
    """

    def __init__(self) -> None:
        self._reader = RecordReader()
        self._open: set[int] = set()
        self._peer_closed = False
        self._told_closed = False

    def begin(
        self,
        params: Mapping[str, str],
        request_id: int = 1,
        *,
        role: int = Role.RESPONDER,
        keep_connection: bool = False,
    ) -> bytes:
        """A request up to the end of its parameters."""
        self._open.add(request_id)
        flags = records.KEEP_CONN if keep_connection else 0
        parts = [records.encode_begin_request(request_id, role, flags)]
        stream = records.encode_pairs(params.items())
        parts += records.encode_stream(RecordType.PARAMS, request_id, stream)
        parts.append(records.encode_record(RecordType.PARAMS, request_id))
        return b"".join(parts)

    def body(self, data: bytes, request_id: int = 1) -> bytes:
        return b"".join(records.encode_stream(RecordType.STDIN, request_id, data))

    def end_body(self, request_id: int = 1) -> bytes:
        return records.encode_record(RecordType.STDIN, request_id)

    def abort(self, request_id: int = 1) -> bytes:
        return records.encode_record(RecordType.ABORT_REQUEST, request_id)

    def get_values(self, names: Iterable[str]) -> bytes:
        content = records.encode_pairs((name, "") for name in names)
        return records.encode_record(RecordType.GET_VALUES, 0, content)

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the application; b"" says that it closed its end."""
        if not data:
            self._peer_closed = True
        elif self._peer_closed:
            raise LocalProtocolError("data after the end of data")
        else:
            self._reader.feed(data)

    def next_event(self) -> Event:
        """The next event, or NEED_DATA. Raises RemoteProtocolError; then only closing is left."""
        record = self._reader.next_record()
        while record is not None:
            event = self._event(*record)
            if event is not None:
                return event
            record = self._reader.next_record()
        if not self._peer_closed or self._told_closed:
            return NEED_DATA
        self._told_closed = True
        return PeerClosed()

    def _event(self, kind: int, request_id: int, content: bytes) -> Optional[Event]:
        if request_id == 0:
            return self._management_event(kind, content)
        if request_id not in self._open:
            raise RemoteProtocolError(f"type {kind} record for id {request_id}, not in progress")
        if kind == RecordType.STDOUT:
            return Stdout(request_id, content) if content else None
        if kind == RecordType.STDERR:
            return Stderr(request_id, content) if content else None
        if kind == RecordType.END_REQUEST:
            self._open.discard(request_id)
            return RequestEnded(request_id, *records.decode_end_request(content))
        raise RemoteProtocolError(f"type {kind} record from an application")

    def _management_event(self, kind: int, content: bytes) -> Event:
        if kind == RecordType.GET_VALUES_RESULT:
            return Values(records.decode_pairs(content, len(content)))
        if kind == RecordType.UNKNOWN_TYPE:
            return UnknownType(records.decode_unknown_type(content))
        raise RemoteProtocolError(f"type {kind} management record from an application")


@dataclass(frozen=True)
class Response:
    """status is 0 when the application ended the request without an answer, or refused it."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    stderr: bytes
    app_status: int
    protocol_status: int

    def header(self, name: str) -> Optional[str]:
        """The first header of this name, in any case, or None."""
        for known, value in self.headers:
            if known.lower() == name.lower():
                return value
        return None


class IncompleteResponse(RemoteProtocolError):
    """The application closed the connection before END_REQUEST; stdout is what had come."""

    def __init__(self, stdout: bytes, stderr: bytes) -> None:
        super().__init__(f"connection closed in mid-answer, after {len(stdout)} bytes")
        self.stdout = stdout
        self.stderr = stderr


def parse_head(head: str) -> tuple[int, str, list[tuple[str, str]]]:
    """Status, reason and headers of an answer in CGI form (RFC 3875, 6.2 and 6.3).

    Raises RemoteProtocolError.
    """
    status, reason = 200, "OK"
    headers = []
    # Not splitlines(): in latin-1 that would also split at \x85, \x1c and others.
    for line in head.replace("\r\n", "\n").split("\n"):
        name, colon, value = line.partition(":")
        value = value.strip(" \t")
        if not colon or not name or name != name.strip():
            raise RemoteProtocolError(f"not a header: {line!r}")
        if name.lower() != "status":
            headers.append((name, value))
            continue
        code, _, reason = value.partition(" ")
        if not (len(code) == 3 and code.isascii() and code.isdigit()):
            raise RemoteProtocolError(f"not a status: {line!r}")
        status = int(code)
    return status, reason, headers


def connect(address: Address, timeout: float) -> socket.socket:
    """A socket to a path, an abstract name (@name) or a host and port. Raises OSError."""
    if not isinstance(address, str):
        return socket.create_connection(address, timeout)
    sock = socket.socket(socket.AF_UNIX)
    try:
        # A socket with a Python time-out is non-blocking, and when the queue of a Unix listener
        # is full connect() then fails at once. This is the kernel's own time-out: it waits.
        microseconds = max(1, int(timeout * 1_000_000))  # 0 would be for ever
        interval = struct.pack("ll", *divmod(microseconds, 1_000_000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.settimeout(timeout)
    except BlockingIOError as error:
        sock.close()
        raise TimeoutError(f"no room in the queue of {address} for {timeout:g} s") from error
    except BaseException:  # raised again: whatever it is, the socket must not stay open
        sock.close()
        raise
    return sock


def request(
    where: Union[socket.socket, Address],
    params: Mapping[str, str],
    body: bytes = b"",
    *,
    request_id: int = 1,
    keep_connection: bool = False,
    timeout: float = 30.0,
) -> Response:
    """Make one request, on a connected socket or on a new connection that is closed afterwards.

    params are CGI variables, of which CONTENT_LENGTH is set when there is a body and the caller
    has not. timeout is for the whole request, in seconds.
    Raises OSError (TimeoutError among them), IncompleteResponse and RemoteProtocolError; then a
    socket of the caller's is to be closed.
    """
    deadline = time.monotonic() + timeout
    if not isinstance(where, socket.socket):
        with connect(where, timeout) as sock:
            return request(
                sock,
                params,
                body,
                request_id=request_id,
                keep_connection=keep_connection,
                timeout=deadline - time.monotonic(),
            )
    if body and "CONTENT_LENGTH" not in params:
        params = {**params, "CONTENT_LENGTH": str(len(body))}
    connection = ClientConnection()
    outgoing = connection.begin(params, request_id, keep_connection=keep_connection)
    outgoing += connection.body(body, request_id) + connection.end_body(request_id)
    return _Exchange(where, connection, outgoing, keep_connection).run(deadline)


@dataclass
class _Exchange:
    """One request under way: sends and receives at once, as the answer may begin early."""

    sock: socket.socket
    connection: ClientConnection
    outgoing: bytes
    keep_connection: bool
    ended: Optional[RequestEnded] = None
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)

    def run(self, deadline: float) -> Response:
        before = self.sock.gettimeout()
        self.sock.setblocking(False)
        try:
            rest = memoryview(self.outgoing)
            # An answer can be complete before the request is. On a connection that is kept the
            # request is sent to its end all the same: the next one cannot start inside a record.
            while self.ended is None or (rest and self.keep_connection):
                readable, writable = self._wait(bool(rest), deadline)
                if writable:
                    rest = rest[self._send(rest) :]
                if readable:
                    self._receive()
        finally:
            self.sock.settimeout(before)
        return self._response(self.ended)

    def _wait(self, sending: bool, deadline: float) -> tuple[bool, bool]:
        poll = select.poll()
        poll.register(self.sock, select.POLLIN | (select.POLLOUT if sending else 0))
        remaining = max(0.0, deadline - time.monotonic())
        events = poll.poll(remaining * 1000)
        if not events:
            raise TimeoutError("no complete answer in time")
        mask = events[0][1]
        return bool(mask & ~select.POLLOUT), bool(mask & select.POLLOUT)

    def _send(self, rest: memoryview) -> int:
        """How much is done with. All of it when nobody reads on: there may be an answer though."""
        try:
            return self.sock.send(rest)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError):
            return len(rest)

    def _receive(self) -> None:
        try:
            data = self.sock.recv(_READ_SIZE)
        except BlockingIOError:
            return
        self.connection.receive_data(data)
        while True:
            event = self._next_event()
            if isinstance(event, Stdout):
                self.stdout += event.data
            elif isinstance(event, Stderr):
                self.stderr += event.data
            elif isinstance(event, RequestEnded):
                self.ended = event
            elif isinstance(event, PeerClosed) and self.ended is None:
                raise IncompleteResponse(bytes(self.stdout), bytes(self.stderr))
            elif event is NEED_DATA:
                return

    def _next_event(self) -> Event:
        try:
            return self.connection.next_event()
        except RemoteProtocolError as error:
            if not self.stdout or self.ended is not None:
                raise
            # What follows a part of an answer and is no record cuts it off: ours do that.
            raise IncompleteResponse(bytes(self.stdout), bytes(self.stderr)) from error

    def _response(self, ended: RequestEnded) -> Response:
        status, reason, body = 0, "", b""
        headers: list[tuple[str, str]] = []
        if self.stdout and ended.protocol_status == ProtocolStatus.REQUEST_COMPLETE:
            head, body = split_head(bytes(self.stdout))
            status, reason, headers = parse_head(head)
        return Response(
            status,
            reason,
            headers,
            body,
            bytes(self.stderr),
            ended.app_status,
            ended.protocol_status,
        )


def split_head(answer: bytes) -> tuple[str, bytes]:
    """Headers and body of an answer. Raises RemoteProtocolError when the headers do not end."""
    ends = [
        (at, at + len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if (at := answer.find(mark)) >= 0
    ]
    if not ends:
        raise RemoteProtocolError("an answer without the empty line that ends its headers")
    end, start = min(ends)
    return answer[:end].decode("latin-1"), answer[start:]

"""The application's end of a FastCGI connection: bytes in, events out; no socket, no clock.

A connection carries one request at a time; what may happen in which state is said in states.py.
Decisions where the specification is silent or loose:

- BEGIN_REQUEST with the id in progress is passed over. Any END_REQUEST with that id would end
  the first request, and a repeated BEGIN_REQUEST must not.
- STDIN before the end of PARAMS breaks the protocol: 6.2 has a responder receive PARAMS, "next"
  STDIN, and to drop or reorder part of a body is worse than to close.
- PARAMS after their end and STDIN after its end are passed over: some clients end a stream twice.
- A refused BEGIN_REQUEST leaves the connection open whatever its KEEP_CONN says, as another
  request may be in progress, and the peer that was refused may try again.
- An application record with id 0 is a management record of a type that is not known (4.2).
- Records are looked at only when an event is asked for. A BEGIN_REQUEST that waits unread until
  the request before it was answered is an ordinary next request.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Mapping, Optional, Union

from workers.fastcgi import records
from workers.fastcgi.records import (
    LocalProtocolError,
    ProtocolStatus,
    RecordReader,
    RemoteProtocolError,
    TooManyPairs,
)
from workers.fastcgi.states import IGNORED, IMPOSSIBLE, MOVES, VIOLATION, Move, State

# Plain integers: on the way of each record an attribute of an enum costs more than a comparison.
_BEGIN_REQUEST: Final = int(records.RecordType.BEGIN_REQUEST)
_ABORT_REQUEST: Final = int(records.RecordType.ABORT_REQUEST)
_PARAMS: Final = int(records.RecordType.PARAMS)
_STDIN: Final = int(records.RecordType.STDIN)
_STDOUT: Final = int(records.RecordType.STDOUT)
_STDERR: Final = int(records.RecordType.STDERR)
_RESPONDER: Final = int(records.Role.RESPONDER)

# A web server asks for values once a connection, if ever. Whoever has thousands of records
# answered without reading the answers is not one, and must not make this end hoard them.
MAX_REPLIES = 64 * 1024

DEFAULT_VALUES: Mapping[str, str] = {
    records.FCGI_MAX_CONNS: "1",
    records.FCGI_MAX_REQS: "1",
    records.FCGI_MPXS_CONNS: "0",
}


@dataclass(frozen=True)
class Limits:
    # nginx accepts 33 KiB of request headers, Apache 800 KiB (100 fields of 8 KiB); what a web
    # server adds by itself is less than the rest.
    params_bytes: int = 1024 * 1024
    # Apache accepts 100 request headers and adds about 30 variables, mod_ssl 70 more. Without a
    # ceiling 1 MiB could be half a million pairs: 100 MB as a dict, and a second to build it.
    params_count: int = 1000


@dataclass(frozen=True)
class RequestParams:
    """A request has begun and all its parameters are there; its body follows."""

    request_id: int
    params: dict[str, str]
    keep_connection: bool


@dataclass(frozen=True)
class RequestBody:
    """The next piece of the request body, never empty."""

    data: bytes


@dataclass(frozen=True)
class EndOfBody:
    """The request is complete."""


@dataclass(frozen=True)
class RequestAborted:
    """The web server lost interest; what is left is end_request()."""


@dataclass(frozen=True)
class ParamsTooLarge:
    """A ceiling was hit. The request may still be answered; the rest of it is passed over."""

    reason: str


@dataclass(frozen=True)
class PeerClosed:
    """The peer sends no more. Said once, after the events of all that it had sent."""


class NeedData(Enum):
    """Nothing more to say before more bytes arrive."""

    NEED_DATA = "need data"


NEED_DATA: Final = NeedData.NEED_DATA

Event = Union[
    RequestParams, RequestBody, EndOfBody, RequestAborted, ParamsTooLarge, PeerClosed, NeedData
]

_END_OF_BODY = EndOfBody()
_REQUEST_ABORTED = RequestAborted()
_PEER_CLOSED = PeerClosed()


class ServerConnection:
    """One connection from a web server.

    Feed it with receive_data(), take events with next_event() until NEED_DATA, and send what
    data_to_send() returns. ``request_id`` is that of the request in progress, or None;
    ``keep_connection`` is the wish of that request, or of the last one: False means that the
    connection is to be closed after end_request().
    """

    name = "FastCGI"

    __slots__ = (
        "request_id",
        "keep_connection",
        "_limits",
        "_values",
        "_reader",
        "_state",
        "_params",
        "_replies",
        "_stderr_used",
        "_peer_closed",
        "_failure",
    )

    def __init__(
        self, limits: Limits = Limits(), values: Mapping[str, str] = DEFAULT_VALUES
    ) -> None:
        """``values`` are the answers to FCGI_GET_VALUES (4.1)."""
        self.request_id: Optional[int] = None
        self.keep_connection = False
        self._limits = limits
        self._values = values
        self._reader = RecordReader()
        self._state = State.IDLE
        self._params = bytearray()
        self._replies = bytearray()
        self._stderr_used = False
        self._peer_closed = False
        self._failure = ""

    @property
    def state(self) -> State:
        return self._state

    @property
    def buffered(self) -> bool:
        """A request or part of a record is held here: no other process could take over."""
        return self.request_id is not None or bool(self._reader.buffered or self._replies)

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the peer; b"" says that it closed its end."""
        if not data:
            self._peer_closed = True
        elif self._peer_closed:
            raise LocalProtocolError("data after the end of data")
        elif self._state is not State.CLOSED:
            self._reader.feed(data)

    def receive_whole(self, data: bytes) -> Optional[dict[str, str]]:
        """The parameters, when ``data`` is one whole request without a body, as most are, with which
        State.ANSWERING is reached in one step; None when it is anything else, which has not been taken then:
        it is for receive_data(). Only for when nothing is ``buffered``.
        """
        if self._state is not State.IDLE:
            return None
        whole = records.decode_whole_request(data)
        if whole is None or len(whole[2]) > self._limits.params_bytes:
            return None
        request_id, flags, pairs = whole
        try:
            params = records.decode_pairs(pairs, self._limits.params_count)
        except RemoteProtocolError:
            return None  # next_event() says what is wrong
        self.request_id = request_id
        self.keep_connection = bool(flags & records.KEEP_CONN)
        self._stderr_used = False
        self._state = State.ANSWERING
        return params

    def next_event(self) -> Event:
        """The next event, or NEED_DATA.

        Raises RemoteProtocolError, from then on each time, when the peer broke the protocol.
        The answer to a request in progress may still be sent; then the connection is to be closed.
        """
        if self._state is State.CLOSED:
            if self._failure:
                raise RemoteProtocolError(self._failure)
            return NEED_DATA
        next_record = self._reader.next_record
        try:
            record = next_record()
            while record is not None:
                event = self._take(*record)
                if event is not None:
                    return event
                record = next_record()
        except RemoteProtocolError as error:
            self._failure = str(error)
            self._stop_reading("broken")
            raise
        if not self._peer_closed:
            return NEED_DATA
        self._stop_reading("closed")
        return _PEER_CLOSED

    def data_to_send(self) -> bytes:
        """What the protocol itself has to say to the peer; taking it empties it."""
        if not self._replies:
            return b""
        replies = bytes(self._replies)
        self._replies.clear()
        return replies

    def stdout(self, data: bytes) -> list[bytes]:
        """Part of the answer, as buffers to send in this order (may be more than IOV_MAX)."""
        return records.encode_stream(_STDOUT, self._open_request(), data)

    def stderr(self, data: bytes) -> list[bytes]:
        """A message for the web server's error log, as buffers to send in this order."""
        request_id = self._open_request()
        if data:
            self._stderr_used = True
        return records.encode_stream(_STDERR, request_id, data)

    def end_request(self, app_status: int = 0) -> list[bytes]:
        """End the answer, and with it the request; what is still to come of it is passed over."""
        end = records.encode_end_of_answer(self._open_request(), app_status, self._stderr_used)
        self._move("answered")
        self.request_id = None
        self._params.clear()
        return [end]

    def _open_request(self) -> int:
        if self.request_id is None:
            raise LocalProtocolError("there is no request to answer")
        return self.request_id

    def _move(self, what: str) -> Move:
        move = MOVES[self._state][what]
        if isinstance(move, State):
            self._state = move
        elif move is VIOLATION:
            raise RemoteProtocolError(f"{what} record in state {self._state.name}")
        elif move is IMPOSSIBLE:
            raise LocalProtocolError(f"{what} in state {self._state.name}")
        return move

    def _stop_reading(self, why: str) -> None:
        self._move(why)
        self._reader.clear()
        self._params.clear()

    def _take(self, kind: int, request_id: int, content: bytes) -> Optional[Event]:
        """What one record means; None when there is nothing to tell."""
        if request_id == 0:
            self._take_management(kind, content)
        elif kind == _BEGIN_REQUEST:
            self._take_begin(request_id, content)
        elif request_id != self.request_id:
            pass
        elif kind == _PARAMS:
            return self._take_params(content)
        elif kind == _STDIN:
            if self._move("stdin" if content else "stdin end") is not IGNORED:
                return RequestBody(content) if content else _END_OF_BODY
        elif kind == _ABORT_REQUEST:
            if self._move("abort") is not IGNORED:
                self._params.clear()
                return _REQUEST_ABORTED
        return None

    def _take_begin(self, request_id: int, content: bytes) -> None:
        role, flags = records.decode_begin_request(content)
        if request_id == self.request_id:
            move = self._move("begin again")
        elif role == _RESPONDER:
            move = self._move("begin")
        else:
            move = self._move("begin other role")
        if move is State.PARAMS:
            self.request_id = request_id
            self.keep_connection = bool(flags & records.KEEP_CONN)
            self._stderr_used = False
        elif isinstance(move, ProtocolStatus):
            self._reply(records.encode_end_request(request_id, 0, move))

    def _take_params(self, content: bytes) -> Optional[Event]:
        if not content:
            return self._end_params()
        if self._move("params") is IGNORED:
            return None
        limit = self._limits.params_bytes
        if len(self._params) + len(content) > limit:
            return self._refuse_params(f"more than {limit} bytes of parameters")
        self._params += content
        return None

    def _end_params(self) -> Optional[Event]:
        if self._move("params end") is IGNORED:
            return None
        try:
            params = records.decode_pairs(self._params, self._limits.params_count)
        except TooManyPairs as error:
            return self._refuse_params(str(error))
        self._params.clear()
        return RequestParams(self._open_request(), params, self.keep_connection)

    def _refuse_params(self, reason: str) -> Event:
        self._move("too large")
        self._params.clear()
        return ParamsTooLarge(reason)

    def _take_management(self, kind: int, content: bytes) -> None:
        if kind == records.RecordType.GET_VALUES:
            asked = records.decode_pairs(content, len(content))
            known = [(name, self._values[name]) for name in asked if name in self._values]
            self._reply(
                records.encode_record(
                    records.RecordType.GET_VALUES_RESULT, 0, records.encode_pairs(known)
                )
            )
        # What is itself an answer gets none: two ends must not go on correcting each other.
        elif kind not in (records.RecordType.GET_VALUES_RESULT, records.RecordType.UNKNOWN_TYPE):
            self._reply(records.encode_unknown_type(kind))

    def _reply(self, record: bytes) -> None:
        if len(self._replies) + len(record) > MAX_REPLIES:
            raise RemoteProtocolError(f"more than {MAX_REPLIES} bytes of replies not yet taken")
        self._replies += record

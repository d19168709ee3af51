"""One accepted connection: its socket, what has arrived of a request, and the way of the answer back.

Reading never waits: a connection without a complete request stays in the worker's selector and costs
no worker. Nor does a peer that takes its answer slowly: the rest is sent on from the selector.
"""

from __future__ import annotations

import io
import logging
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, NoReturn, Optional, Protocol, Sequence, cast

from workers.environ import BadRequest, content_length
from workers.fastcgi.connection import (
    NEED_DATA,
    EndOfBody,
    Event,
    ParamsTooLarge,
    RequestAborted,
    RequestBody,
    RequestParams,
    ServerConnection,
)
from workers.fastcgi.records import RemoteProtocolError
from workers.fastcgi.states import State
from workers.handoff import Waiting
from workers.outgoing import SEND_TIMEOUT, Outgoing
from workers.text import escaped
from workers.wsgi import PeerGone, error_answer

log = logging.getLogger("trac-spawn")

#: One read: a request with its params and a small body comes in one piece.
READ_SIZE = 65_536
#: A body up to here stays in memory: any form does, an attachment goes to a temporary file. Each waiting
#: connection may hold this much, and a worker can have a thousand of them.
BODY_IN_MEMORY = 256 << 10
#: After an answer to a request that was not read to its end, this much (bytes, seconds) of the rest
#: is read and thrown away before closing: closing earlier resets the connection and loses the answer.
LINGER_BYTES = 64 << 20
LINGER_TIME = 5.0
#: Eight bytes that no record can begin with: the version is 0.
NO_RECORD = bytes(8)


@dataclass(frozen=True)
class Ceilings:
    """What one connection may cost. Sizes in bytes, 0 for no ceiling; times in seconds."""

    max_body: int = 0
    receive_timeout: float = 60.0
    keep_alive_timeout: float = 75.0


class ServerProtocol(Protocol):
    """What is spoken on a connection; see fastcgi/connection.py, which has all there is to say."""

    request_id: Optional[int]
    keep_connection: bool

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> State: ...
    @property
    def buffered(self) -> bool: ...
    def receive_whole(self, data: bytes) -> Optional[dict[str, str]]: ...
    def receive_data(self, data: bytes) -> None: ...
    def next_event(self) -> Event: ...
    def data_to_send(self) -> bytes: ...
    def stdout(self, data: bytes) -> list[bytes]: ...
    def stderr(self, data: bytes) -> list[bytes]: ...
    def end_request(self, app_status: int = 0) -> list[bytes]: ...


class Connection:
    """A connection to a web server. ``accepted`` and ``deadline`` are on the monotonic clock."""

    # How each begins. One is made for nearly every request, and to set all of these costs more than
    # to look at them.
    closed = False
    lingering = False
    #: What the request is answered with when it does not reach the application.
    refusal: Optional[BadRequest] = None
    #: How long its first request has waited to be accepted (nanoseconds), as far as that is known: of
    #: Unix sockets the kernel keeps no time.
    queued: Optional[int] = None
    #: When it must be closed even while its answer is being sent.
    farewell = float("inf")
    _cut = False  # the answer that is being sent is to end without END_REQUEST
    _whole = False  # the request has arrived to its very end
    _expected: Optional[int] = None
    _received = 0
    _lingered = 0

    def __init__(
        self,
        sock: socket.socket,
        ceilings: Ceilings,
        network: bool = True,
        waited: Optional[Waiting] = None,
        protocol: Callable[[], ServerProtocol] = ServerConnection,
    ) -> None:
        """``network`` False: it is a Unix socket, of which a reset takes away nothing that was sent.
        ``waited``: how it was at the worker that has handed it over."""
        if sock.gettimeout() is not None:
            # An application has called socket.setdefaulttimeout(): with a time-out Python waits in
            # poll(2) before each call, MSG_DONTWAIT or not.
            sock.settimeout(None)
        self.socket = sock
        self.ceilings = ceilings
        self._network = network
        self._outgoing = Outgoing(sock)
        self.protocol = protocol()
        self.params: dict[str, str] = {}
        self.body: BinaryIO = io.BytesIO()
        if waited is None:
            #: Nothing has ever arrived. The first request is likely to be on its way.
            self.fresh = True
            self.accepted = time.monotonic()
            self.deadline = self.accepted + ceilings.receive_timeout
        else:
            self.fresh = waited.fresh
            self.accepted = waited.accepted
            self.deadline = waited.deadline

    @property
    def idle(self) -> bool:
        """Nothing of a request has arrived: another process could take the connection over."""
        return not (self.protocol.buffered or self.closed or self.lingering or self.sending)

    @property
    def sending(self) -> bool:
        """The peer has not taken all of an answer yet: send_on() when it can be written to. What it
        sends meanwhile waits."""
        return self._outgoing.pending

    # -- reading ---------------------------------------------------------------------------------

    def receive(self) -> bool:
        """Take what has arrived; True when a request is complete, or refused, and wants its answer.

        Sets ``closed`` when nothing but closing is left.
        """
        try:
            data = self.socket.recv(READ_SIZE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            # Whatever was complete has been answered when it came: this cuts short the rest.
            if self.protocol.request_id is not None:
                log.info("the web server left before the end of a request: %s", self.describe_request())
            self.closed = True
            return False
        self.fresh = False
        if self.lingering:
            self._discard(data)
            return False
        if not self.protocol.buffered:
            params = self.protocol.receive_whole(data)
            if params is not None:
                self._start(params)
                self._whole = True
                return self._check_end()
            # For the whole of a request: what arrives later in it gains no time.
            self.deadline = time.monotonic() + self.ceilings.receive_timeout
        complete = self._take(data)
        self._send_replies()
        return complete and not self.closed

    def _take(self, data: bytes) -> bool:
        try:
            self.protocol.receive_data(data)
            return self._process_events()
        except RemoteProtocolError as error:
            log.warning("closing a connection that does not speak %s: %s", self.protocol.name, error)
            self.closed = True
            return False
        except OSError as error:  # the disk that holds large bodies is full, say
            log.error("cannot keep the body of a request: %s", error)
            self.refusal = BadRequest("500 Internal Server Error", "the upload could not be stored")
            return True

    def _process_events(self) -> bool:
        complete = False
        while True:
            event = self.protocol.next_event()
            if event is NEED_DATA:
                return complete
            if isinstance(event, RequestParams):
                self._start(event.params)
                complete = self.refusal is not None
            elif isinstance(event, RequestBody):
                self._keep(event.data)
                complete = self.refusal is not None
            elif isinstance(event, EndOfBody):
                self._whole = True
                complete = self._check_end()
            elif isinstance(event, ParamsTooLarge):
                self.refusal = BadRequest("431 Request Header Fields Too Large", event.reason)
                complete = True
            elif isinstance(event, RequestAborted):
                self._drop_request()
                complete = False

    def _start(self, params: dict[str, str]) -> None:
        self.params = params
        self._received = 0
        try:
            self._expected = content_length(params)
        except BadRequest as error:
            self.refusal = error
            return
        if self._expected:
            self._check_size(self._expected)

    def _check_size(self, size: int) -> None:
        if self.ceilings.max_body and size > self.ceilings.max_body:
            self.refusal = BadRequest(
                "413 Content Too Large",
                f"the request's body is larger than {self.ceilings.max_body} bytes",
            )

    def _keep(self, data: bytes) -> None:
        """Append a piece of the body; what goes beyond CONTENT_LENGTH is cut."""
        if self.refusal is not None:
            return
        if self._expected is not None:
            data = data[: self._expected - self._received]
        self._received += len(data)
        self._check_size(self._received)
        if self._received > BODY_IN_MEMORY and isinstance(self.body, io.BytesIO):
            spool = cast(BinaryIO, tempfile.TemporaryFile(prefix="trac-spawn-"))
            spool.write(self.body.getbuffer())
            self.body = spool
        self.body.write(data)

    def _check_end(self) -> bool:
        """The whole body is here: True when it is one for the application."""
        if self.refusal is None:
            if self._expected is None:
                # No CONTENT_LENGTH, as with a chunked upload: what came is the body. An
                # application reads only as far as CONTENT_LENGTH says.
                if self._received:
                    self.params["CONTENT_LENGTH"] = str(self._received)
            elif self._received < self._expected:
                log.info(
                    "upload given up by the visitor: %d of %d bytes: %s",
                    self._received, self._expected, self.describe_request(),
                )  # fmt: skip
                self._drop_request()
                return False
            if self._received:
                self.body.seek(0)
        return True

    def _drop_request(self) -> None:
        """End a request that the peer itself gave up."""
        self._queue(self.protocol.end_request())
        self._end_request()

    def describe_request(self) -> str:
        """Method and URI, for the log and the process title; control characters never get through."""
        uri = self.params.get("REQUEST_URI") or self.params.get("PATH_INFO", "")
        return escaped(f"{self.params.get('REQUEST_METHOD', '')} {uri}"[:255])

    def _forget_request(self) -> None:
        if self._received:
            self._close_body()
            self.body = io.BytesIO()
            self._received = 0
        self.params = {}
        self.refusal = None
        self._whole = False

    def _close_body(self) -> None:
        try:
            self.body.close()
        except OSError:
            pass  # what was still to be written does not fit the disk; the file is gone all the same

    # -- writing ---------------------------------------------------------------------------------

    def _queue(self, buffers: Sequence[bytes]) -> None:
        """Send a short reply that nobody waits for; a peer that does not take it is gone, unless it is
        busy with an answer."""
        try:
            data = b"".join(buffers)
            if self.sending:
                self._outgoing.put([data])
            elif data and self.socket.send(data, socket.MSG_DONTWAIT) < len(data):
                self.closed = True
        except OSError:
            self.closed = True

    def _send_replies(self) -> None:
        data = self.protocol.data_to_send()
        if data:
            self._queue([data])

    def send(self, buffers: list[bytes]) -> None:
        """Send all of ``buffers``; what the peer is slow to take follows by send_on(). Raises PeerGone."""
        if self.closed:  # an earlier write may have ended inside a record
            raise PeerGone("the connection is closed")
        try:
            self._outgoing.put(buffers)
        except OSError as error:
            self._give_up(error)

    def send_on(self) -> None:
        """The peer may take more of the answer; afterwards it may be that ``closed`` is set."""
        try:
            if self._outgoing.send_on():
                self._await_reader()
        except OSError as error:
            log.info("the web server left before the end of an answer: %s", error)
            self.closed = True
        if not (self.closed or self.sending):
            self._answered()

    def _await_reader(self) -> None:
        self.deadline = min(time.monotonic() + SEND_TIMEOUT, self.farewell)

    def _give_up(self, error: OSError) -> NoReturn:
        self.closed = True
        raise PeerGone(str(error)) from error

    def look_for_abort(self) -> None:
        """Between two pieces of a long answer: raise when the web server no longer wants it."""
        if self.aborted:
            raise PeerGone("the web server has aborted the request")
        try:
            data = self.socket.recv(READ_SIZE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            self._give_up(error)
        if not data:
            return  # half-closed; whether it still reads, the next write tells
        try:
            self.protocol.receive_data(data)
            # To the end: nobody looks at what is left over before more arrives.
            while self.protocol.next_event() is not NEED_DATA:
                pass
        except RemoteProtocolError as error:
            self.closed = True
            raise PeerGone(str(error)) from error
        self._send_replies()
        if self.aborted:
            raise PeerGone("the web server aborted the request")

    @property
    def aborted(self) -> bool:
        """The web server has sent ABORT_REQUEST while the answer was being made."""
        return self.protocol.state is State.ABORTED

    # -- the end of a request --------------------------------------------------------------------

    def refuse(self, refusal: BadRequest, request_id: str = "") -> int:
        """Answer the request in progress with an error of our own, and end it; the body's size."""
        log.warning("%s: %s: %s", refusal.status, refusal.detail, self.describe_request())
        head, body = error_answer(refusal.status, refusal.reason, request_id)
        # Never waits: a request that gets no further than this must not cost a worker.
        self._queue(self.protocol.stdout(head + body) + self.protocol.end_request())
        if self._whole:
            self._end_request()
        else:
            self.linger()
        return len(body)

    def finish(self, clean: bool) -> None:
        """After the answer. ``clean`` False: it was cut short, and only a connection that ends without
        END_REQUEST tells the web server so; unless that is what it has asked for."""
        if clean:
            self._end_request()
        elif self.aborted and not self.closed:
            self._drop_request()
        else:
            # Not a record of this protocol. nginx takes a mere end of the stream for the end of a
            # whole answer, and this for the fault that it is.
            if not self.closed:
                self._queue([NO_RECORD])
            self._cut = True
            self._end_request()

    def _end_request(self) -> None:
        """Nothing more is to be said to a request."""
        self._forget_request()
        if self.sending:
            self._await_reader()
        else:
            self._answered()

    def _answered(self) -> None:
        """The answer has been sent to its end: be ready for the next request, or close."""
        self.deadline = time.monotonic() + self.ceilings.keep_alive_timeout
        if self._cut:
            self.closed = True
        if self.closed or self.protocol.keep_connection:
            return
        if self._network:
            # Part of the answer may be in our kernel yet, and whatever the peer sends now, ABORT_REQUEST
            # say, would make it throw that away.
            self.linger()
        else:
            self.closed = True

    def linger(self) -> None:
        """Close our end, then read until the peer closes its own, within a bound: to close with
        something unread resets the connection, and what the peer has not read yet is lost to it."""
        self._forget_request()
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.closed = True
        self.lingering = True
        self.deadline = time.monotonic() + LINGER_TIME

    def _discard(self, data: bytes) -> None:
        self._lingered += len(data)
        if not data or self._lingered > LINGER_BYTES:
            self.closed = True

    def expire(self) -> Optional[BadRequest]:
        """The deadline has passed: what a request that began is to be refused with; the end of the
        connection where none did."""
        if self.sending:
            log.info("closing a connection: the web server does not take the rest of an answer")
        elif self.protocol.request_id is not None and not self.lingering:
            return BadRequest("408 Request Timeout", "the request did not arrive in time")
        elif self.protocol.buffered and not self.lingering:
            log.warning("closing a connection: it did not finish a record in time")
        self.closed = True
        return None

    def close(self) -> None:
        self.closed = True
        self._close_body()
        self._outgoing.close()
        self.socket.close()

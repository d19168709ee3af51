"""One accepted connection: its socket, what has arrived of a request, and the way of the answer back.

Reading never waits: a connection without a complete request stays in the worker's selector and costs
no worker. Writing waits for the peer, up to a bound.
"""

from __future__ import annotations

import io
import logging
import select
import socket
import tempfile
import time
from dataclasses import dataclass
from typing import BinaryIO, Optional, Sequence, cast

from workers.environ import BadRequest, content_length
from workers.fastcgi.connection import (
    NEED_DATA,
    EndOfBody,
    ParamsTooLarge,
    PeerClosed,
    RequestAborted,
    RequestBody,
    RequestParams,
    ServerConnection,
)
from workers.fastcgi.records import RemoteProtocolError
from workers.wsgi import PeerGone, error_answer

log = logging.getLogger("trac-spawn")

#: One read: a request with its params and a small body comes in one piece.
READ_SIZE = 65_536
#: A body up to here stays in memory, as nginx's and Apache's own buffers do; a larger one is spooled to disk.
BODY_IN_MEMORY = 1 << 20
#: A web server that takes no byte of an answer for this long (seconds) is gone or hung.
SEND_TIMEOUT = 60.0
#: After an answer to a request that was not read to its end, this much (bytes, seconds) of the rest
#: is read and thrown away before closing: closing earlier resets the connection and loses the answer.
LINGER_BYTES = 64 << 20
LINGER_TIME = 5.0


class RequestAbortedByPeer(PeerGone):
    """The web server sent ABORT_REQUEST while the answer was being made."""


@dataclass(frozen=True)
class Ceilings:
    """What one connection may cost. Sizes in bytes, times in seconds, 0 for no ceiling."""

    max_body: int = 0
    receive_timeout: float = 60.0
    keep_alive_timeout: float = 60.0


class Connection:
    """A connection to a web server. ``deadline`` is on the monotonic clock."""

    def __init__(self, sock: socket.socket, ceilings: Ceilings) -> None:
        self.socket = sock
        self.ceilings = ceilings
        self.protocol = ServerConnection()
        self.params: dict[str, str] = {}
        self.body: BinaryIO = io.BytesIO()
        #: The status line of an answer that the request gets without reaching the application.
        self.refusal: Optional[BadRequest] = None
        self.closed = False
        self.lingering = False
        self._expected: Optional[int] = None
        self._received = 0
        self._lingered = 0
        self.deadline = time.monotonic() + ceilings.receive_timeout

    @property
    def idle(self) -> bool:
        """Nothing of a request has arrived: another process could take the connection over."""
        return not (self.protocol.buffered or self.closed or self.lingering)

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
            self.closed = True
            return False
        if self.lingering:
            self._discard(data)
            return False
        if data and not self.protocol.buffered:
            self.deadline = time.monotonic() + self.ceilings.receive_timeout
        try:
            self.protocol.receive_data(data)
            complete = self._process_events()
        except RemoteProtocolError as error:
            log.warning("closing a connection that does not speak FastCGI: %s", error)
            self.closed = True
            return False
        except OSError as error:  # the disk that holds large bodies is full, say
            log.error("cannot keep the body of a request: %s", error)
            self.refusal = BadRequest("500 Internal Server Error", "the upload could not be stored")
            complete = True
        self._send_replies()
        return complete and not self.closed

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
                complete = self._check_end()
            elif isinstance(event, ParamsTooLarge):
                self.refusal = BadRequest("431 Request Header Fields Too Large", event.reason)
                complete = True
            elif isinstance(event, RequestAborted):
                self._drop_request()
                complete = False
            elif isinstance(event, PeerClosed):
                # Half-closed: a request that is complete still gets its answer.
                self.closed = not complete
                return complete

    def _start(self, params: dict[str, str]) -> None:
        self.params = params
        self._received = 0
        try:
            self._expected = content_length(params)
        except BadRequest as error:
            self.refusal = error
            return
        self._check_size(self._expected or 0)

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
        if not self.protocol.keep_connection:
            self.closed = True
        self._forget_request()

    def describe_request(self) -> str:
        """Method and URI, for the log and the process title; control characters never get through."""
        uri = self.params.get("REQUEST_URI") or self.params.get("PATH_INFO", "")
        text = f"{self.params.get('REQUEST_METHOD', '')} {uri}"[:255]
        return text if text.isprintable() else ascii(text)[1:-1]

    def _forget_request(self) -> None:
        if not isinstance(self.body, io.BytesIO) or self._received:
            self.body.close()
            self.body = io.BytesIO()
        self.params = {}
        self.refusal = None
        self._received = 0
        self.deadline = time.monotonic() + self.ceilings.keep_alive_timeout

    # -- writing ---------------------------------------------------------------------------------

    def _queue(self, buffers: Sequence[bytes]) -> None:
        """Send a short reply that nobody waits for; a peer that does not take it is gone."""
        try:
            data = b"".join(buffers)
            if data and self.socket.send(data, socket.MSG_DONTWAIT) < len(data):
                self.closed = True
        except OSError:
            self.closed = True

    def _send_replies(self) -> None:
        data = self.protocol.data_to_send()
        if data:
            self._queue([data])

    def send(self, buffers: list[bytes]) -> None:
        """Send all of ``buffers``, waiting for the peer where it is slow. Raises PeerGone."""
        try:
            sent = self.socket.sendmsg(buffers, (), socket.MSG_DONTWAIT)
            size = sum(map(len, buffers))
            if sent < size:
                self._send_slowly(memoryview(b"".join(buffers))[sent:])
        except BlockingIOError:
            self._send_slowly(memoryview(b"".join(buffers)))
        except OSError as error:
            raise PeerGone(str(error)) from error

    def _send_slowly(self, rest: memoryview) -> None:
        poller = select.poll()
        poller.register(self.socket, select.POLLOUT)
        while rest:
            if not poller.poll(SEND_TIMEOUT * 1000):
                raise PeerGone(f"nothing of the answer was taken for {SEND_TIMEOUT:.0f} s")
            try:
                rest = rest[self.socket.send(rest, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise PeerGone(str(error)) from error

    def look_for_abort(self) -> None:
        """Between two pieces of a long answer: raise when the web server no longer wants it."""
        try:
            data = self.socket.recv(READ_SIZE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            raise PeerGone(str(error)) from error
        if not data:
            return  # half-closed; whether it still reads, the next write tells
        try:
            self.protocol.receive_data(data)
            event = self.protocol.next_event()
        except RemoteProtocolError as error:
            raise PeerGone(str(error)) from error
        self._send_replies()
        if isinstance(event, RequestAborted):
            raise RequestAbortedByPeer("the web server aborted the request")

    # -- the end of a request --------------------------------------------------------------------

    def refuse(self, refusal: BadRequest) -> None:
        """Answer the request in progress with an error of our own, and end it."""
        log.warning("%s: %s: %s", refusal.status, refusal.reason, self.describe_request())
        answer = b"".join(error_answer(refusal.status, refusal.reason))
        try:
            self.send(self.protocol.stdout(answer) + self.protocol.end_request())
        except PeerGone:
            self.closed = True
        # The rest of the body is still on its way, so the connection is of no further use.
        self.linger()

    def finish(self, clean: bool) -> None:
        """After the answer. ``clean`` False: it was cut short, and only a connection that ends without
        END_REQUEST tells the web server so."""
        keep = clean and self.protocol.keep_connection
        self._forget_request()
        self.closed = self.closed or not keep

    def linger(self) -> None:
        """Close our end, then read until the peer closes its own, within a bound."""
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

    def expire(self) -> None:
        """The deadline has passed: 408 for a request that began, the end for one that did not."""
        if self.protocol.request_id is not None and not self.lingering:
            self.refuse(BadRequest("408 Request Timeout", "the request did not arrive in time"))
        else:
            self.closed = True

    def close(self) -> None:
        self.body.close()
        self.socket.close()


class AnswerOutput:
    """Where the application's answer goes: framed as FastCGI, onto the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._protocol = connection.protocol
        self.started = False
        self.ended = False
        self._abandoned = False

    def send(self, data: list[bytes], end: bool) -> None:
        """Send response bytes, and with ``end`` END_REQUEST in the same write. Raises PeerGone."""
        if self._abandoned:
            raise PeerGone("the request was ended by the server")
        if self.started:
            self._connection.look_for_abort()
        self.started = True
        buffers = self._protocol.stdout(b"".join(data))
        if end:
            self.ended = True
            buffers = buffers + self._protocol.end_request()
        self._connection.send(buffers)

    def abandon(self) -> None:
        """Nothing more of an answer that has begun gets out: the connection will end without END_REQUEST.

        An exception alone cannot bring that about: Trac's dispatcher swallows every one, even a
        BaseException, and ends its answer as if it were whole.
        """
        self._abandoned = self.started

    def error(self, text: str) -> None:
        """wsgi.errors: to the web server's error log while the request is open, else to ours."""
        if self.ended:
            log.error("%s", text.rstrip())
            return
        try:
            self._connection.send(self._protocol.stderr(text.encode("utf-8", "backslashreplace")))
        except PeerGone:
            log.error("%s", text.rstrip())

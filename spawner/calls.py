"""Who speaks to the master over the control socket, and what is asked for."""

from __future__ import annotations

import logging
import os
import select
import selectors
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from spawner import verbs, wire

if TYPE_CHECKING:
    from spawner.control import Control

log = logging.getLogger("trac-spawn")

#: For a client to send a whole request, and to read a whole answer, in seconds: a person who types
#: into socat can do that, and an abandoned connection is gone before anybody wonders about it.
PATIENCE = 60.0

_READ_SIZE = 4096


@dataclass(frozen=True)
class Peer:
    """Who is at the other end, as the kernel saw it when the connection was made."""

    pid: int
    uid: int

    def __str__(self) -> str:
        return f"uid {self.uid}, process {self.pid}"


class Call:
    """One request. reply() or fail() answers it, now or at any later time; the first one counts.

    When the client has gone meanwhile they do nothing: what was asked for is done all the same.
    """

    def __init__(self, verb: str, peer: Peer, answer: Callable[[bytes], None]) -> None:
        self.verb = verb
        #: Checked against the table of verbs; those that were not given are absent.
        self.arguments: Mapping[str, str] = {}
        self.peer = peer
        self._answer: Optional[Callable[[bytes], None]] = answer

    @property
    def answered(self) -> bool:
        return self._answer is None

    def reply(self, result: object) -> None:
        """``result`` is what json.dumps() takes; its shape for each verb is in status.py."""
        try:
            line = wire.success(result)
        except (TypeError, ValueError) as error:
            # Of ours, and no reason for the master to end.
            log.error("the answer to %r cannot be sent", self.verb, exc_info=True)
            line = wire.failure(f"the answer cannot be sent: {error}", "", os.EX_SOFTWARE)
        self._send(line)

    def fail(self, message: str, details: str = "", status: int = os.EX_SOFTWARE) -> None:
        """``details`` is for example a traceback; ``status`` what the command exits with."""
        self._send(wire.failure(message, details, status))

    def _send(self, line: bytes) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(line)


class Client:
    """One connection: reads a request, has it answered, sends the answer, reads the next one.

    ``deadline`` is infinite while the client waits for us.
    """

    def __init__(self, control: Control, connection: socket.socket, peer: Peer) -> None:
        self.socket = connection
        self.deadline = control.clock() + PATIENCE
        self._control = control
        self._peer = peer
        self._incoming = bytearray()
        self._outgoing = b""
        self._call: Optional[Call] = None
        self._at_end = False  # it sends no more; it may still read
        self._last_words = False  # close once what is there has been sent
        self._interest = 0
        self._open = True
        self._show_interest()

    # -- events ----------------------------------------------------------------------------------

    def on_event(self) -> None:
        """The socket is readable or writable, which of them is tried out."""
        # An earlier callback of the same round of the loop may have closed it.
        if self._open:
            self._receive()
            self._flush()
            self._advance()
            self._show_interest()

    def _receive(self) -> None:
        if self._at_end or len(self._incoming) >= wire.MAX_REQUEST:
            return
        try:
            data = self.socket.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._at_end = not data
        self._incoming += data

    def _flush(self) -> None:
        if not self._outgoing or not self._open:
            return
        try:
            self._outgoing = self._outgoing[self.socket.send(self._outgoing) :]
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not self._outgoing:
            self.deadline = self._control.clock() + PATIENCE

    def _advance(self) -> None:
        """Take the next request, if it is its turn. One an event: the other clients, and the
        workers, come before the second one."""
        if not self._open or self._busy:
            return
        if self._last_words or (self._at_end and not self._request_waits):
            self.close()
        elif self._request_waits:
            line, _, rest = bytes(self._incoming).partition(b"\n")
            self._incoming = bytearray(rest)
            self._serve(line)
        elif len(self._incoming) >= wire.MAX_REQUEST:
            self._end(f"a request is a line of at most {wire.MAX_REQUEST} bytes")

    @property
    def _busy(self) -> bool:
        return self._call is not None or bool(self._outgoing)

    @property
    def _request_waits(self) -> bool:
        # The last line may lack its end.
        return b"\n" in self._incoming or (self._at_end and bool(self._incoming))

    def _serve(self, line: bytes) -> None:
        try:
            verb, arguments = wire.parse_request(line)
        except wire.NotARequest as error:
            # It speaks another language, and nobody knows where its next sentence begins.
            self._end(str(error))
            return
        self.deadline = float("inf")
        self._call = call = Call(verb, self._peer, self._answer)
        try:
            call.arguments = verbs.check_request(verb, arguments)
        except ValueError as error:
            call.fail(str(error), status=os.EX_USAGE)
        else:
            self._control.handle(call)

    def _answer(self, line: bytes) -> None:
        self._call = None
        if self._open:
            self._outgoing = line
            self.deadline = self._control.clock() + PATIENCE
            # At once, not in the next round of the loop: there may be none after "stop".
            self._flush()
            self._show_interest()

    def _end(self, message: str) -> None:
        self._last_words = True
        self._answer(wire.failure(message, "", os.EX_USAGE))

    def _show_interest(self) -> None:
        """Tell the selector what to wait for."""
        if not self._open:
            return
        interest = 0
        if not self._at_end and len(self._incoming) < wire.MAX_REQUEST:
            interest |= selectors.EVENT_READ
        # Without output it is writable now: this asks for a turn in the next round of the loop.
        if self._call is None and (self._busy or self._last_words or self._at_end or self._request_waits):
            interest |= selectors.EVENT_WRITE
        selector = self._control.selector
        if interest and self._interest:
            selector.modify(self.socket, interest, self.on_event)
        elif interest:
            selector.register(self.socket, interest, self.on_event)
        elif self._interest:
            selector.unregister(self.socket)
        self._interest = interest

    # -- ending ----------------------------------------------------------------------------------

    def has_hung_up(self) -> bool:
        """Whether it reads no more either. Only asked for when it matters: a client that waits for
        an answer after it has sent all it will send is in no selector."""
        poll = select.poll()
        poll.register(self.socket, 0)
        return bool(poll.poll(0))

    def dismiss(self, message: str, status: int) -> None:
        """Fail what it waits for."""
        if self._call is not None:
            self._call.fail(message, status=status)

    def expire(self) -> None:
        """Its time is over."""
        # To one that has asked for nothing this would be the answer to its next question.
        if self._incoming and not self._outgoing:
            self._end(f"the request is not complete after {PATIENCE:.0f} seconds")
        self.close()

    def close(self) -> None:
        if self._open:
            self._open = False
            if self._interest:
                self._control.selector.unregister(self.socket)
            self.socket.close()
            self._control.drop(self)

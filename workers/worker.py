"""The process that answers requests: it accepts, collects a request, calls the application, goes on.

One request at a time, in the main thread. Connections without a complete request wait in the
selector and keep nobody from being served.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import select
import signal
import socket
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import Callable, Optional, Sequence

from setproctitle import setproctitle

from workers.application import Application
from workers.channel import Channel, Message
from workers.connection import AnswerOutput, Ceilings, Connection
from workers.environ import BadRequest, ErrorStream, make_environ
from workers.handoff import Handoff
from workers.logs import reopen_log_files
from workers.recycling import Recycling, RecyclingLimits
from workers.scoreboard import Slot
from workers.wsgi import respond, server_keys

log = logging.getLogger("trac-spawn")

#: accept() failed for want of descriptors or memory: try again after this many seconds.
ACCEPT_PAUSE = 0.25
#: epoll_wait() counts milliseconds in 32 bits; a day is well below that.
LONGEST_WAIT = 86_400.0
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Terminated(BaseException):
    """The master wants this worker to end now, in the middle of a request. Not for applications to catch."""


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker needs to know besides its application."""

    ceilings: Ceilings = field(default_factory=Ceilings)
    recycling: RecyclingLimits = field(default_factory=RecyclingLimits)
    #: The only IP addresses that may connect; empty for all (FastCGI 1.0, section 3.2).
    web_servers: frozenset[str] = frozenset()


class Worker:
    """The accept loop and what ends it. Without a channel it stands alone, as trac.fcgi does."""

    def __init__(
        self,
        application: Application,
        listeners: Sequence[socket.socket],
        config: WorkerConfig,
        *,
        slot: Slot,
        name: str,
        channel: Optional[Channel] = None,
        handoff: Optional[Handoff] = None,
    ) -> None:
        self._application = application
        self._listeners = list(listeners)
        self._config = config
        self._slot = slot
        self._name = name
        self._channel = channel
        self._handoff = handoff
        self._recycling = Recycling(config.recycling)
        self._requests = 0
        self._asked = False  # a replacement, of the master
        self._draining = False  # told to answer what is queued on the listeners, then leave
        self._retiring = False  # told to leave
        self._leaving = False  # accepts nothing more
        self._reopen = False  # told to open its log files again
        self._output: Optional[AnswerOutput] = None  # of the request in progress
        self._accept_again: Optional[float] = None
        self._connections: dict[int, Connection] = {}
        self._sweep_at = float("inf")
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], object]] = {}
        self._environ = {**server_keys(), **application.environ}

    # -- the loop --------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to leave; the last answer has been sent when this returns."""
        self._watch_signals()
        self._watch_listeners()
        if self._channel is not None:
            self._channel.socket.setblocking(False)
            self._watch(self._channel.fileno(), self._read_channel)
            self._tell({"event": "ready"})
        self._entitle("idle")
        try:
            while not self._finished():
                for descriptor, _ in self._epoll.poll(self._patience()):
                    handler = self._handlers.get(descriptor)
                    if handler is not None:
                        handler()
                self._follow_orders()
                self._check_clock()
        except Terminated:
            log.warning("%s: ended in the middle of a request", self._name)
        for connection in self._connections.values():
            connection.close()

    def _finished(self) -> bool:
        return self._leaving and not self._connections

    def _follow_orders(self) -> None:
        """What the channel and signals have asked for: they only set flags, since a handler can
        interrupt the loop, or the application, at any point."""
        if self._reopen:
            self._reopen = False
            reopen_log_files()
        if self._draining and not self._retiring:
            self._drain()
        if self._retiring and not self._leaving:
            self._leave()

    def _patience(self) -> Optional[float]:
        """Seconds to the nearest deadline; None to wait for an event alone."""
        deadlines = [self._sweep_at]
        if self._recycling.expires is not None and not self._asked:
            deadlines.append(self._recycling.expires)
        if self._accept_again is not None:
            deadlines.append(self._accept_again)
        nearest = min(deadlines)
        if nearest == float("inf"):
            return None
        return min(max(0.0, nearest - time.monotonic()), LONGEST_WAIT)

    def _check_clock(self) -> None:
        now = time.monotonic()
        if self._accept_again is not None and now >= self._accept_again:
            self._accept_again = None
            self._watch_listeners()
        if now >= self._sweep_at:
            self._sweep(now)
        reason = self._recycling.aged()
        if reason:
            self._ask_to_be_replaced(reason)

    def _watch(self, descriptor: int, handler: Callable[[], object], flags: int = 0) -> None:
        self._handlers[descriptor] = handler
        self._epoll.register(descriptor, select.EPOLLIN | flags)

    def _unwatch(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None) is not None:
            # Closing is not enough: other processes hold the same socket, and epoll goes by that.
            self._epoll.unregister(descriptor)

    # -- accepting -------------------------------------------------------------------------------

    def _watch_listeners(self) -> None:
        # EPOLLEXCLUSIVE: one connection wakes one worker, not the whole pool.
        for listener in self._listeners:
            accept = functools.partial(self._accept, listener)
            self._watch(listener.fileno(), accept, select.EPOLLEXCLUSIVE)
        if self._handoff is not None:
            self._watch(self._handoff.fileno(), self._take_over, select.EPOLLEXCLUSIVE)

    def _unwatch_listeners(self) -> None:
        for listener in self._listeners:
            self._unwatch(listener.fileno())
        if self._handoff is not None:
            self._unwatch(self._handoff.fileno())

    def _accept(self, listener: socket.socket) -> bool:
        """Accept one connection and serve what is there; False when there was none."""
        try:
            sock, address = listener.accept()
        except BlockingIOError:
            return False  # another worker was quicker
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._pause_accepting(error)
                return False
            # accept(2): the connection went away before it was accepted; or the listener did.
            return not self._retiring
        if self._config.web_servers and not self._is_web_server(sock, address):
            sock.close()
            return True
        self._serve(Connection(sock, self._config.ceilings))
        return True

    def _is_web_server(self, sock: socket.socket, address: object) -> bool:
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return True
        assert isinstance(address, tuple)
        host = str(address[0])
        if host.startswith("::ffff:"):
            host = host[len("::ffff:") :]
        if host in self._config.web_servers:
            return True
        log.warning("refused a connection from %s: not in FCGI_WEB_SERVER_ADDRS", host)
        return False

    def _pause_accepting(self, error: OSError) -> None:
        log.error("cannot accept: %s (a higher --rlimit-files may help)", error.strerror)
        self._unwatch_listeners()
        self._accept_again = time.monotonic() + ACCEPT_PAUSE

    def _take_over(self) -> None:
        assert self._handoff is not None
        sock = self._handoff.accept()
        if sock is not None:
            self._serve(Connection(sock, self._config.ceilings))

    # -- connections -----------------------------------------------------------------------------

    def _serve(self, connection: Connection) -> None:
        """Something has arrived, or may have: answer it when it is a whole request."""
        if connection.receive():
            self._answer(connection)
        self._keep_or_close(connection)

    def _keep_or_close(self, connection: Connection) -> None:
        descriptor = connection.socket.fileno()
        known = descriptor in self._connections
        if connection.closed or (self._leaving and connection.idle):
            if known:
                self._forget(descriptor)
            connection.close()
        else:
            if not known:
                self._connections[descriptor] = connection
                self._watch(descriptor, lambda: self._serve(connection))
            self._sweep_at = min(self._sweep_at, connection.deadline)

    def _forget(self, descriptor: int) -> None:
        self._unwatch(descriptor)
        del self._connections[descriptor]

    def _sweep(self, now: float) -> None:
        """End the connections whose time is over, and find the next deadline among the rest."""
        for connection in list(self._connections.values()):
            if connection.deadline <= now:
                connection.expire()
                self._keep_or_close(connection)
        deadlines = [connection.deadline for connection in self._connections.values()]
        self._sweep_at = min(deadlines, default=float("inf"))

    # -- answering -------------------------------------------------------------------------------

    def _answer(self, connection: Connection) -> None:
        if connection.refusal is not None:
            connection.refuse(connection.refusal)
            return
        self._slot.begin(time.monotonic_ns())
        self._entitle(f"busy {connection.describe_request()}")
        self._output = AnswerOutput(connection)
        try:
            self._call_application(connection, self._output)
        finally:
            self._output = None
            self._slot.end()
        self._entitle("idle")
        self._requests += 1
        reason = self._recycling.due(self._requests)
        if reason:
            self._ask_to_be_replaced(reason)

    def _call_application(self, connection: Connection, output: AnswerOutput) -> None:
        errors = ErrorStream(output.error)
        environ = make_environ(connection.params, connection.body, errors, self._environ)
        try:
            result = respond(self._application.call, environ, output, log)
        except (SystemExit, KeyboardInterrupt) as error:
            # sys.exit() in application code ends its request, not the worker.
            log.error("%s in the application: %s", type(error).__name__, connection.describe_request())
            if output.started:
                connection.finish(clean=False)
            else:
                connection.refuse(BadRequest("500 Internal Server Error", "the application ended itself"))
        else:
            connection.finish(result.clean)

    # -- leaving ---------------------------------------------------------------------------------

    def _ask_to_be_replaced(self, reason: str) -> None:
        """Make before break: serve on until the master has a ready replacement and says "retire"."""
        if self._asked:
            return
        self._asked = True
        if self._channel is None:
            self._retiring = True
        else:
            self._tell({"event": "recycle", "reason": reason})

    def _drain(self) -> None:
        """The pool stops: answer all that is queued, on kept-open connections too."""
        for listener in list(self._listeners):
            while self._accept(listener):
                pass
        for descriptor, _ in self._epoll.poll(0):
            if descriptor in self._connections:
                self._serve(self._connections[descriptor])
        self._retiring = True

    def _leave(self) -> None:
        """Accept nothing more; idle connections go to other workers, begun requests are finished here."""
        self._leaving = True
        self._close_listeners()
        for descriptor, connection in list(self._connections.items()):
            if connection.idle:
                self._forget(descriptor)
                if self._handoff is not None and not self._draining:
                    self._handoff.offer(connection.socket)
                connection.close()

    def _close_listeners(self) -> None:
        self._unwatch_listeners()
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    # -- the master and signals ------------------------------------------------------------------

    def _tell(self, message: Message) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def _read_channel(self) -> None:
        """Obey what the master has said; the end of the channel says that it is gone."""
        assert self._channel is not None
        while True:
            try:
                message, _ = self._channel.receive()
            except BlockingIOError:
                return
            if message is None:
                self._orphaned()
                return
            self._obey(message["command"])

    def _obey(self, command: str) -> None:
        if command == "drain":
            self._draining = True
        elif command == "retire":
            self._retiring = True
        elif command == "reopen":
            self._reopen = True
        elif command == "terminate":
            self._retiring = True
            if self._output is not None:
                self._output.abandon()
                raise Terminated

    def _orphaned(self) -> None:
        """The master is gone: let go of its sockets at once, so that a new one can take its place."""
        if self._channel is not None:
            self._unwatch(self._channel.fileno())
            self._channel.close()
            self._channel = None
        self._close_listeners()
        self._handoff = None
        self._retiring = True

    def _watch_signals(self) -> None:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        # The handlers below run between two bytecodes; this wakes the selector after one has.
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._wakeup = (reader, writer)
        self._watch(reader.fileno(), lambda: self._swallow(reader))
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGQUIT, self._on_term)
        signal.signal(signal.SIGUSR1, self._on_usr1)
        # A terminal sends these to the whole foreground group; stopping is the master's decision.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)

    @staticmethod
    def _swallow(reader: socket.socket) -> None:
        try:
            reader.recv(4096)
        except BlockingIOError:
            pass

    def _on_term(self, number: int, frame: Optional[FrameType]) -> None:
        """SIGTERM and SIGQUIT: look what the master wants; without a word from it, ask to be replaced.

        systemd signals every process of the service at once, so this alone must lose no request.
        The kernel sends SIGTERM too, the moment the master dies.
        """
        if self._channel is not None:
            self._read_channel()
        if not (self._draining or self._retiring):
            self._ask_to_be_replaced(signal.Signals(number).name)

    def _on_usr1(self, number: int, frame: Optional[FrameType]) -> None:
        self._reopen = True

    def _entitle(self, state: str) -> None:
        setproctitle(f"trac-spawn: {self._name} {state}")


def web_servers_from_environment() -> frozenset[str]:
    """FCGI_WEB_SERVER_ADDRS: the addresses that may connect (FastCGI 1.0, section 3.2)."""
    text = os.environ.get("FCGI_WEB_SERVER_ADDRS", "")
    return frozenset(address.strip() for address in text.split(",") if address.strip())

"""The process that answers requests: it accepts, collects a request, calls the application, goes on.

One request at a time, in the main thread. Connections without a complete request wait in the
selector and keep nobody from being served.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import Optional, Sequence

from setproctitle import setproctitle

from workers import interruption
from workers.accesslog import AccessLog, take_files
from workers.answer import AnswerOutput
from workers.application import Application
from workers.channel import Channel, Message
from workers.connection import Ceilings, Connection
from workers.connections import Connections
from workers.environ import BadRequest, ErrorStream, make_environ
from workers.fastcgi.connection import ServerConnection
from workers.footprint import Footprint
from workers.handoff import Handoff, Waiting
from workers.heap import Heap
from workers.http import HttpConnection
from workers.interruption import RequestTimedOut
from workers.ledger import Ledger
from workers.logs import reopen_log_files
from workers.peers import Doorkeeper, PeerRules
from workers.reception import Listener, Reception, queued
from workers.recycling import Recycling, RecyclingLimits
from workers.scheduling import let_others_go_on
from workers.scoreboard import Slot
from workers.selector import Selector
from workers.statuspages import Page, Pages
from workers.wsgi import NOTHING, Result, respond, server_keys

log = logging.getLogger("trac-spawn")

#: A request that takes longer than this has kept the worker from reading others, whose deadlines
#: are then moved.
SHORT_REQUEST = 1.0
#: For so long (seconds) after an answer, the process title goes on naming its request.
STILL_BUSY = 0.05


class Terminated(BaseException):
    """The master wants this worker to end now, in the middle of a request. Not for applications to catch."""


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker needs to know besides its application."""

    ceilings: Ceilings = field(default_factory=Ceilings)
    recycling: RecyclingLimits = field(default_factory=RecyclingLimits)
    peers: PeerRules = PeerRules()
    #: Seconds after which the master ends a request, 0 for never; and where stacks are written.
    request_timeout: float = 0.0
    stacks: int = -1
    #: What is answered before the application is asked.
    pages: Pages = field(default_factory=Pages)
    #: How often the worker may freeze what has gathered on its heap.
    gc_freezes: int = 16
    #: As in AnswerOutput.
    wsgi_errors: str = "web-server"
    access_log: Optional[AccessLog] = None
    #: Of the listeners, those where HTTP is spoken instead of FastCGI.
    http: Sequence[socket.socket] = ()
    #: For the access log: the pool's name, and this worker's slot.
    pool: str = ""
    number: int = 0


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
        self._config = config
        self._slot = slot
        self._ledger = Ledger(slot, config.access_log, config.pool, config.number)
        self._name = name
        self._channel = channel
        self._handoff = handoff
        self._recycling = Recycling(config.recycling)
        self._footprint = Footprint(2 if application.environ.get("trac.env_parent_dir") else 1)
        self._heap = Heap(config.gc_freezes)
        self._requests = 0
        self._asked = False  # a replacement, of the master
        self._draining = False  # told to answer what is queued on the listeners, then leave
        self._retiring = False  # told to leave
        self._orphan = False  # the master is gone
        self._reopen = False  # told to open its log files again
        self._fresh_files: dict[str, int] = {}  # opened again by the master
        self._output: Optional[AnswerOutput] = None  # of the request in progress
        self._begun = 0  # time.monotonic_ns() of the request in progress
        self._at_rest = False
        self._state = ""  # as the process title has it
        self._selector = Selector()
        self._connections = Connections(self._selector, slot, self._serve, self._offer, self._refuse)
        doorkeeper = Doorkeeper(config.peers, slot.refuse)
        self._reception = Reception(
            listeners, handoff, doorkeeper, self._selector, self._welcome, self._has_room
        )
        self._environ = {**server_keys(), **application.environ}

    # -- the loop --------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to leave; the last answer has been sent when this returns."""
        self._watch_signals()
        let_others_go_on()
        os.register_at_fork(after_in_child=self._shed)
        self._reception.open()
        self._entitle("idle")
        self._ledger.measure_size()  # at once: should its first request be its last, it is told
        if self._channel is not None:
            self._channel.socket.setblocking(False)
            self._selector.watch(self._channel.fileno(), self._read_channel)
            self._tell({"event": "ready"})
        try:
            while not self._finished():
                self._wait()
                self._follow_orders()
                self._check_clock()
        except Terminated:
            lost = self._slot.snapshot().request
            log.warning("%s: ended in the middle of a request: %s", self._name, lost)
        self._tell_growth(leaving=True)
        self._connections.close()

    def _wait(self) -> None:
        if not self._at_rest:
            # Title and memory cost system calls, and under load the next request is soon there. So it is
            # after birth: whoever this worker replaces may have left a queue. No deadline is so near that
            # it could not wait for so long.
            if self._selector.dispatch(STILL_BUSY):
                return
            self._entitle("leaving" if self._connections.leaving else "idle")
            self._ledger.look_at_memory()
            self._at_rest = True
        self._selector.dispatch(self._patience())

    def _finished(self) -> bool:
        return self._connections.leaving and not self._connections

    def _follow_orders(self) -> None:
        """What the channel and signals have asked for: they only set flags, since a handler can
        interrupt the loop, or the application, at any point."""
        if self._orphan:
            self._let_go()
        if self._reopen:
            self._reopen = False
            reopen_log_files()
        if self._fresh_files:
            fresh, self._fresh_files = self._fresh_files, {}
            take_files(fresh, self._config.access_log)
        if self._draining and not self._retiring:
            self._drain()
        if self._retiring and not self._connections.leaving:
            self._leave()

    def _patience(self) -> Optional[float]:
        """Seconds to the nearest deadline; None to wait for an event alone."""
        deadlines = [self._connections.sweep_at]
        if self._recycling.expires is not None and not self._asked:
            deadlines.append(self._recycling.expires)
        if self._reception.opens_again is not None:
            deadlines.append(self._reception.opens_again)
        nearest = min(deadlines)
        return None if nearest == float("inf") else nearest - time.monotonic()

    def _check_clock(self) -> None:
        now = time.monotonic()
        opens_again = self._reception.opens_again
        if opens_again is not None and now >= opens_again:
            self._reception.open()
        if now >= self._connections.sweep_at:
            self._connections.sweep(now)
        if self._recycling.aged(now):
            self._ask_to_be_replaced("max-age")

    # -- connections -----------------------------------------------------------------------------

    def _welcome(
        self, sock: socket.socket, listener: Optional[Listener], waited: Optional[Waiting]
    ) -> None:
        network = sock.family != socket.AF_UNIX if listener is None else listener.network
        http = listener is not None and listener.socket in self._config.http
        protocol = HttpConnection if http else ServerConnection
        connection = Connection(sock, self._config.ceilings, network, waited, protocol)
        if network and waited is None:
            connection.queued = queued(sock)
        self._serve(connection)

    def _has_room(self) -> bool:
        """Whether one connection more can be held, for which an idle one may have to go."""
        if not self._connections.full:
            return True
        dispensable = self._connections.longest_idle()
        if dispensable is not None:
            room = self._connections.room
            self._reception.complain(f"over {room} connections: closing those idle the longest")
            self._connections.expire(dispensable)
        return not self._connections.full

    def _serve(self, connection: Connection) -> None:
        """Something has arrived, or may have: answer it when it is a whole request. Or the peer may
        take more of an answer."""
        try:
            if connection.sending:
                connection.send_on()
            elif connection.receive():
                self._answer(connection)
            self._connections.settle(connection)
        except Exception:  # a mistake of ours; even so, one connection must not end those of others
            log.exception("an error in trac-spawn itself; the connection is closed")
            self._connections.part_with(connection)

    def _offer(self, waiting: Waiting) -> bool:
        """To the other workers, who take up no more connections while the pool stops."""
        return self._handoff is not None and not self._draining and self._handoff.offer(waiting)

    # -- answering -------------------------------------------------------------------------------

    def _answer(self, connection: Connection) -> None:
        if connection.refusal is not None:
            self._refuse(connection, connection.refusal)
            return
        # At once: the status and the access log shall name nobody either who is not believed.
        self._application.rules.judge_user(connection.params)
        if self._connections:
            self._connections.hand_over_idle()
        self._begun = self._ledger.begin(connection.params, connection.queued)
        connection.queued = None  # the next one on it has not waited for that
        self._footprint.begin()
        params = connection.params  # they are forgotten with the request
        self._at_rest = False
        self._entitle(f"busy {connection.describe_request()}")
        self._output = AnswerOutput(
            connection, self._ledger.request_id, self._config.wsgi_errors, self._slot.sent
        )
        result = NOTHING
        try:
            result = self._call_application(connection, self._output)
        finally:
            took = self._ledger.end(result) / 1e9
        if took > SHORT_REQUEST:
            self._connections.postpone(took)
        self._look_at_itself(params)

    def _look_at_itself(self, params: dict[str, str]) -> None:
        """After each request: what it has left, and whether it was one too many."""
        self._requests += 1
        self._footprint.end(params)
        if self._footprint.untold:
            self._tell_growth()
        self._heap.settle(self._requests)
        reason = self._recycling.due(self._requests)
        if reason:
            self._ask_to_be_replaced(reason)

    def _refuse(self, connection: Connection, refusal: BadRequest) -> None:
        """The application is not asked, but the request is seen as any other."""
        self._application.rules.judge_user(connection.params)
        self._ledger.begin(connection.params)
        self._ledger.end(self._refused(connection, refusal))

    def _refused(self, connection: Connection, refusal: BadRequest) -> Result:
        sent = connection.refuse(refusal, self._ledger.request_id)
        return Result(refusal.code, sent, True)

    def _tell_growth(self, leaving: bool = False) -> None:
        kinds = self._footprint.news(leaving)
        if kinds:
            self._tell({"event": "growth", "kinds": kinds})

    def _call_application(self, connection: Connection, output: AnswerOutput) -> Result:
        errors = ErrorStream(output.error)
        result = NOTHING
        try:
            try:
                environ = make_environ(connection.params, connection.body, errors, self._environ)
                # Like the application, they may take too long: they look at directories.
                self._application.rules.apply(environ)
                result = respond(self._called(connection.params), environ, output, log)
            finally:
                self._output = None  # here, so that a time-out at the last moment is caught as well
        except RequestTimedOut:
            pass
        except BadRequest as refusal:
            return self._refused(connection, refusal)
        except (SystemExit, KeyboardInterrupt) as error:
            # sys.exit() in application code ends its request, not the worker.
            log.error("%s in the application: %s", type(error).__name__, connection.describe_request())
        if result.clean or output.started:
            connection.finish(result.clean)
            return result
        why = BadRequest("500 Internal Server Error", "the application ended itself")
        if output.timed_out:
            why = BadRequest("504 Gateway Timeout", "the request took too long")
        return self._refused(connection, why)

    def _called(self, params: dict[str, str]) -> Page:
        return self._config.pages.find(params) or self._application.call

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
        self._reception.accept_all()
        self._selector.dispatch(0)
        self._retiring = True

    def _leave(self) -> None:
        """Accept nothing more; idle connections go to other workers, begun requests are finished here."""
        self._slot.leave()
        self._entitle("leaving")
        self._reception.close()
        self._tell({"event": "leaving"})
        self._connections.leave()

    # -- the master and signals ------------------------------------------------------------------

    def _tell(self, message: Message) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def _read_channel(self) -> None:
        """Obey what the master has said; the end of the channel says that it is gone."""
        assert self._channel is not None
        while True:
            try:
                message, descriptors = self._channel.receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if message is None:
                self._orphan = True
                return
            self._obey(message, descriptors)

    def _obey(self, message: Message, descriptors: list[int]) -> None:
        command = message["command"]
        if command == "drain":
            self._draining = True
        elif command == "retire":
            self._retiring = True
        elif command == "reopen":
            self._reopen = True
            for descriptor in self._fresh_files.values():
                os.close(descriptor)  # told twice before there was time to
            self._fresh_files = dict(zip(message["files"], descriptors))
        elif command == "terminate":
            self._retiring = True
            if self._output is not None:
                self._output.abandon()
                raise Terminated

    def _let_go(self) -> None:
        """The master is gone: let go of its sockets at once, so that a new one can take its place."""
        # First of all: the signal that its end sends may come at any point of this, and asks the channel.
        channel, self._channel = self._channel, None
        if channel is not None:
            self._selector.unwatch(channel.fileno())
            channel.close()
        self._reception.close()
        self._handoff = None
        self._retiring = True
        self._connections.hurry()

    def _shed(self) -> None:
        """In a process that the application has forked: what it kept would stay open as long as it
        lives, connections that this worker has closed and the pool's sockets among it."""
        self._selector.close()
        self._reception.shed()
        if self._channel is not None:
            self._channel.close()
        if self._handoff is not None:
            self._handoff.close()
        self._connections.shed()

    def _watch_signals(self) -> None:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        # The handlers below run between two bytecodes; this wakes the selector after one has.
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._wakeup = (reader, writer)
        self._selector.watch(reader.fileno(), lambda: self._swallow(reader))
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGQUIT, self._on_term)
        signal.signal(signal.SIGUSR1, self._on_usr1)
        if self._config.stacks >= 0:
            interruption.obey(self._config.stacks, self._end_request)
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
        if self._orphan:
            # The loop does it, which may be in the middle of watching a socket, but not while it is
            # in the application.
            if self._output is not None:
                self._let_go()
        elif not (self._draining or self._retiring):
            self._ask_to_be_replaced(signal.Signals(number).name)

    def _end_request(self) -> None:
        """The master finds that the request takes too long: raise in it, wherever it is."""
        limit = self._config.request_timeout
        if self._output is None or time.monotonic_ns() - self._begun < limit * 1e9:
            return  # that was the one before
        self._retiring = True
        self._output.time_out()
        raise RequestTimedOut

    def _on_usr1(self, number: int, frame: Optional[FrameType]) -> None:
        self._reopen = True

    def _entitle(self, state: str) -> None:
        if state != self._state:
            self._state = state
            setproctitle(f"trac-spawn: {self._name} {state}")

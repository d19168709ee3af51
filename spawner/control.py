"""The control socket at the master's end: a few clients, each a line of JSON and a line back.

Clients are just more descriptors in the master's selector. Nothing here waits for a client: what
it does not send is not there, what it does not read is kept up to a ceiling, and both for a limited
time.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import struct
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Optional

from spawner import verbs, wire
from spawner.calls import Call, Client, Peer
from spawner.controlpath import default_control_path
from spawner.listeners import Access, Listener, open_listener, parse_address
from workers.errors import BootError

__all__ = ["Call", "Control", "Handler", "Peer", "default_control_path", "open_control"]

log = logging.getLogger("trac-spawn")

#: Two or three administrators and their monitoring. When all places are taken, the one that has
#: been silent for longest makes room.
MAX_CLIENTS = 16
#: accept() fails for want of descriptors until somebody closes some; asking sooner only costs time.
ACCEPT_PAUSE = 1.0
#: Connections that wait while the master is busy; the rest of a burst waits in connect().
BACKLOG = MAX_CLIENTS

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)

Handler = Callable[[Call], None]


def open_control(path: str) -> Listener:
    """Listen on the Unix socket ``path``, mode 0600. Raises BootError, also when another master
    has it; may take seconds to find that out, so not from within the loop."""
    try:
        return open_listener(parse_address(f"unix:{path}"), BACKLOG, Access(0o600))
    except ValueError as error:
        raise BootError(f"--control: {error}", os.EX_USAGE) from error
    except BootError as error:
        raise BootError(f"the control socket: {error}", error.exit_code) from error


class Control:
    """Takes requests from the control socket and hands them to the handlers, each as a Call.

    Answers who is in ``allowed`` (root and the owner of this process, unless given). Raises
    ValueError when ``handlers`` are not exactly those of the table of verbs.
    """

    def __init__(
        self,
        listener: Listener,
        selector: selectors.BaseSelector,
        handlers: Mapping[str, Handler],
        allowed: Optional[frozenset[int]] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if set(handlers) != set(verbs.ON_THE_WIRE):
            raise ValueError(f"handlers, or verbs: {set(handlers) ^ set(verbs.ON_THE_WIRE)}")
        self.listener = listener
        self.selector = selector
        self.clock = clock
        self._handlers = handlers
        self._allowed = frozenset((0, os.geteuid())) if allowed is None else allowed
        self._clients: list[Client] = []
        self._accepting = False
        self._accept_again = float("inf")
        self.start_accepting()

    def start_accepting(self) -> None:
        if not self._accepting:
            self.selector.register(self.listener.socket, selectors.EVENT_READ, self._accept)
            self._accepting = True
        self._accept_again = float("inf")

    def stop_accepting(self) -> None:
        """Those who connect from now on wait in the queue, for us or for another process that has
        the socket; those who have connected are served."""
        if self._accepting:
            self.selector.unregister(self.listener.socket)
            self._accepting = False
        self._accept_again = float("inf")

    def close(self) -> None:
        """Remove the socket. What has not been answered fails; what has no room now is lost."""
        self.stop_accepting()
        self.listener.close()
        for client in list(self._clients):
            client.dismiss("trac-spawn has stopped", os.EX_UNAVAILABLE)
            client.close()

    def forget(self) -> None:
        """In a child: close the descriptors, which would keep connections open that the master
        closes. The selector, shared with the master, is left alone."""
        self.listener.close()
        for client in self._clients:
            client.socket.close()

    # -- time ------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """When check_clock() is due, on the monotonic clock; infinity when nothing is."""
        return min([self._accept_again, *(client.deadline for client in self._clients)])

    def check_clock(self) -> None:
        """Close the connections of clients whose time is over."""
        now = self.clock()
        if now >= self._accept_again:
            self.start_accepting()
        for client in [client for client in self._clients if client.deadline <= now]:
            client.expire()

    # -- connections -----------------------------------------------------------------------------

    def _accept(self) -> None:
        if not self._accepting:
            return  # since an earlier callback of the same round of the loop
        # One a round: whoever connects without end must not keep the master from the rest.
        try:
            connection, _ = self.listener.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.warning("control: cannot accept a connection: %s", error.strerror)
            self.stop_accepting()
            self._accept_again = self.clock() + ACCEPT_PAUSE
            return
        connection.setblocking(False)
        self.adopt(connection)

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connected, non-blocking Unix socket."""
        pid, uid, _ = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        peer = Peer(pid, uid)
        if uid not in self._allowed:
            log.warning("control: refused: %s", peer)
            _refuse(connection, "only root and the owner of trac-spawn may do that", os.EX_NOPERM)
        elif not self._make_room():
            _refuse(connection, f"{MAX_CLIENTS} clients wait for an answer; try again", os.EX_TEMPFAIL)
        else:
            self._clients.append(Client(self, connection, peer))

    def _make_room(self) -> bool:
        if len(self._clients) < MAX_CLIENTS:
            return True
        for client in [client for client in self._clients if client.has_hung_up()]:
            client.close()
        if len(self._clients) == MAX_CLIENTS:
            # Without a deadline are those that wait for an answer of ours: they are not to blame.
            silent = min(self._clients, key=lambda client: client.deadline)
            if silent.deadline < float("inf"):
                silent.close()
        return len(self._clients) < MAX_CLIENTS

    def drop(self, client: Client) -> None:
        """``client`` has closed its connection."""
        self._clients.remove(client)

    # -- requests --------------------------------------------------------------------------------

    def handle(self, call: Call) -> None:
        """Let the handler of its verb do what ``call`` asks for."""
        if verbs.BY_NAME[call.verb].changes:
            log.info("control: %s (%s)", " ".join((call.verb, *call.arguments.values())), call.peer)
        try:
            self._handlers[call.verb](call)
        except BootError as error:
            call.fail(str(error), error.traceback, error.exit_code)
        # Whatever a handler runs into, the pools go on.
        except Exception as error:
            log.exception("control: %s failed", call.verb)
            call.fail(f"internal error: {error!r}", traceback.format_exc())


def _refuse(connection: socket.socket, message: str, status: int) -> None:
    # It fits into the buffer of a new connection, so a client that reads nothing is no trouble.
    try:
        connection.send(wire.failure(message, "", status))
    except OSError:
        pass  # it has gone
    connection.close()

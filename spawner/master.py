"""The master: one thread around one selector. It binds, decides, reaps, and imports no application code."""

from __future__ import annotations

import atexit
import logging
import os
import selectors
import signal
import socket
import time
from types import FrameType
from typing import Optional

from setproctitle import setproctitle

from spawner import children, logs, privileges
from spawner.daemon import Notifier, PidFile, daemonize
from spawner.lifecycle import Action, Event, Lifecycle, State
from spawner.listeners import Access, Listener, open_listener
from spawner.settings import Settings
from spawner.supervisor import KILL_AFTER, Supervisor
from spawner.workplace import Workplace
from workers import prctl
from workers.errors import BootError
from workers.handoff import Handoff
from workers.scoreboard import Scoreboard

log = logging.getLogger("trac-spawn")

#: select() and epoll_wait() count milliseconds in 32 bits; a day is well below that.
LONGEST_WAIT = 86_400.0
#: SIGTTIN may add workers beyond --workers; memory of a slot that nobody uses is never touched.
SCOREBOARD_SLOTS = 4096

_EVENTS = {
    signal.SIGTERM: Event.STOP,
    signal.SIGQUIT: Event.STOP,
    signal.SIGINT: Event.STOP,
    signal.SIGTTIN: Event.MORE,
    signal.SIGTTOU: Event.FEWER,
    signal.SIGUSR1: Event.REOPEN,
}


def run(settings: Settings) -> int:
    """Be the master until told to stop; the exit status.

    Raises BootError when the pool cannot start. With --daemonize the calling process does not
    return: it ends once the pool is ready, or has failed, with a status that says which.
    """
    notifier = daemonize() if settings.daemonize else None
    try:
        return _run(settings, notifier)
    except BootError as error:
        if notifier is not None:
            # At the very end: the starting process must not leave before the message is out.
            atexit.register(notifier.failed, error.exit_code)
        raise


def _run(settings: Settings, notifier: Optional[Notifier]) -> int:
    identity = privileges.resolve(settings.user, settings.group)
    logs.configure(settings, identity.uid)
    _warn_of_root(settings)
    privileges.set_rlimits(settings.rlimit_files, settings.rlimit_core)
    # From here on there is something to leave behind: a signal waits until the master watches.
    signal.pthread_sigmask(signal.SIG_BLOCK, _EVENTS)
    pidfile = PidFile(settings.pidfile) if settings.pidfile else None
    listeners: list[Listener] = []
    try:
        access = Access(settings.socket_mode, settings.socket_user, settings.socket_group)
        for address in settings.listeners():
            listeners.append(open_listener(address, settings.backlog, access))
        workplace = Workplace(
            settings, identity, listeners, Handoff(), Scoreboard(SCOREBOARD_SLOTS), os.getpid()
        )
        return Master(workplace, notifier, pidfile).run()
    finally:
        for listener in listeners:
            listener.close()
        if pidfile is not None:
            pidfile.close()


def _warn_of_root(settings: Settings) -> None:
    if os.geteuid() == 0 and settings.user is None:
        log.warning("running as root: the application can do anything here; use --user")


class Master:
    """Waits for signals and for words from its children, and lets the lifecycle say what follows."""

    def __init__(
        self, workplace: Workplace, notifier: Optional[Notifier], pidfile: Optional[PidFile]
    ) -> None:
        self._workplace = workplace
        self._notifier = notifier
        self._pidfile = pidfile
        self._lifecycle = Lifecycle()
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._wakeup_writer = socket.socketpair()
        self._timeout = float("inf")
        self._supervisor = Supervisor(workplace, self._selector, self.happen, self._in_child)

    def run(self) -> int:
        """The loop, until the pool has been stopped. Raises BootError when it cannot start."""
        self._entitle()
        self._watch_signals()
        prctl.become_subreaper()
        log.info("listening on %s", ", ".join(self._addresses()))
        while self._lifecycle.state is not State.STOPPED:
            self._supervisor.balance()
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._reap()
            self._check_clock()
        failure = self._supervisor.failure
        if failure is not None:
            raise failure
        recycled = ", ".join(f"{n} {why}" for why, n in sorted(self._supervisor.recycled.items()))
        log.info("stopped; workers recycled: %s", recycled or "none")
        return os.EX_OK

    def _patience(self) -> Optional[float]:
        """Seconds to the nearest deadline; None to wait for an event alone."""
        if self._lifecycle.state is State.STOPPED:
            return 0.0
        deadline = min(self._timeout, self._supervisor.next_deadline())
        if deadline == float("inf"):
            return None
        return min(max(0.0, deadline - time.monotonic()), LONGEST_WAIT)

    def _check_clock(self) -> None:
        self._supervisor.check_clock()
        if time.monotonic() >= self._timeout:
            self._timeout = float("inf")
            self.happen(Event.TIMEOUT)

    def _reap(self) -> None:
        for pid, status in children.reap():
            if not self._supervisor.child_ended(pid, status):
                # As PID 1, or as a subreaper, one inherits the children of others.
                log.debug("reaped process %d: %s", pid, children.describe_status(status))

    # -- signals ---------------------------------------------------------------------------------

    def _watch_signals(self) -> None:
        for end in (self._wakeup, self._wakeup_writer):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._read_signals)
        for number in (*_EVENTS, signal.SIGCHLD):
            signal.signal(number, _let_the_loop_handle_it)
        # The terminal is gone; the pool is not, and SIGTERM still stops it.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _EVENTS)

    def _read_signals(self) -> None:
        for number in self._wakeup.recv(4096):
            event = _EVENTS.get(signal.Signals(number))
            if event is not None:
                log.info("%s received", signal.Signals(number).name)
                self.happen(event)

    # -- the lifecycle ---------------------------------------------------------------------------

    def happen(self, event: Event) -> None:
        """Something has happened to the program as a whole: do what the table says."""
        action = self._lifecycle.happen(event)
        if action is not Action.NOTHING:
            getattr(self, action.value)()

    def announce(self) -> None:
        """The pool is ready for the first time."""
        log.info("ready: %d workers", self._supervisor.target)
        if self._notifier is not None:
            self._notifier.ready()
            self._notifier = None

    def drain(self) -> None:
        """Stop gracefully: let nobody new in, answer everybody who is."""
        log.info("stopping: answering what has been accepted or queued")
        self._entitle()
        # First of all, so that nobody joins a queue that is not served any more.
        for listener in self._workplace.listeners:
            listener.stop_accepting()
        self._supervisor.drain()
        self._timeout = time.monotonic() + self._workplace.settings.stop_timeout

    def terminate(self) -> None:
        """End all that still runs."""
        log.warning("ending the workers that are left")
        for listener in self._workplace.listeners:
            listener.stop_accepting()
        self._supervisor.terminate()
        self._timeout = time.monotonic() + KILL_AFTER

    def kill(self) -> None:
        log.warning("killing the workers that are left")
        self._supervisor.kill()

    def grow(self) -> None:
        self._resize(self._supervisor.target + 1)

    def shrink(self) -> None:
        self._resize(self._supervisor.target - 1)

    def _resize(self, target: int) -> None:
        self._supervisor.target = max(1, min(target, SCOREBOARD_SLOTS // 2))
        log.info("%d workers wanted", self._supervisor.target)

    def reopen(self) -> None:
        """Open the log files again: ours first, so that it exists for the workers' user."""
        logs.reopen(self._workplace.identity.uid)
        self._supervisor.reopen()
        log.info("log files opened again")

    # -- the process -----------------------------------------------------------------------------

    def _in_child(self) -> None:
        """Close what belongs to the master alone: a copy of it would hide its death."""
        self._supervisor.close_channels()
        self._selector.close()
        self._wakeup.close()
        self._wakeup_writer.close()
        if self._notifier is not None:
            self._notifier.forget()
        if self._pidfile is not None:
            self._pidfile.forget()

    def _addresses(self) -> list[str]:
        return [str(listener.address) for listener in self._workplace.listeners]

    def _entitle(self) -> None:
        state = "" if self._lifecycle.serving else f" {self._lifecycle.state.value}"
        setproctitle(f"trac-spawn: master [{', '.join(self._addresses())}]{state}")


def _let_the_loop_handle_it(number: int, frame: Optional[FrameType]) -> None:
    """The number has been written to the wake-up descriptor; the loop does the rest."""

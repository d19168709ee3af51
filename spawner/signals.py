"""The signals that the master obeys. Their handlers do nothing: the loop reads the numbers from a pipe."""

from __future__ import annotations

import selectors
import signal
import socket
from types import FrameType
from typing import Callable, Optional

from spawner.lifecycle import Event

EVENTS = {
    signal.SIGTERM: Event.STOP,
    signal.SIGQUIT: Event.STOP,
    signal.SIGINT: Event.STOP,
    signal.SIGTTIN: Event.MORE,
    signal.SIGTTOU: Event.FEWER,
    signal.SIGUSR1: Event.REOPEN,
    signal.SIGHUP: Event.RELOAD,
    signal.SIGWINCH: Event.PAUSE,
    signal.SIGUSR2: Event.UPGRADE,
}
#: All that a master has handlers for.
HANDLED = frozenset({*EVENTS, signal.SIGCHLD})


def block() -> None:
    """Let them wait until watch()."""
    signal.pthread_sigmask(signal.SIG_BLOCK, EVENTS)


class Signals:
    """Calls ``hear`` for each that has come, from the loop around ``selector``. SIGCHLD only wakes it."""

    def __init__(
        self, selector: selectors.BaseSelector, hear: Callable[[signal.Signals, Event], None]
    ) -> None:
        self._selector = selector
        self._hear = hear
        self._wakeup, self._writer = socket.socketpair()

    def watch(self) -> None:
        for end in (self._wakeup, self._writer):
            end.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._read)
        for number in HANDLED:
            signal.signal(number, _let_the_loop_handle_it)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, EVENTS)

    def _read(self) -> None:
        for value in self._wakeup.recv(4096):
            number = signal.Signals(value)
            if number in EVENTS:
                self._hear(number, EVENTS[number])

    def close(self) -> None:
        """In a child of the master."""
        self._wakeup.close()
        self._writer.close()


def _let_the_loop_handle_it(number: int, frame: Optional[FrameType]) -> None:
    """The number has been written to the wake-up descriptor; the loop does the rest."""

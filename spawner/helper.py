"""The status process as the master has it: its sockets, its birth, and another one when it dies."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from collections.abc import Mapping
from typing import Callable, Optional

from spawner.addresses import Address, parse_address
from spawner.children import describe_status, fork_child, reap, send_signal
from spawner.configuration import Configuration
from spawner.inheritance import Inheritance
from spawner.listeners import Access, Listener, open_listener
from spawner.news import NewsPage
from spawner.pool import Backoff
from spawner.switchboard import Switchboard
from workers.channel import Channel
from workers.errors import BootError
from workers.logs import own_log_file
from workers.peers import is_exposed

log = logging.getLogger("trac-spawn")

#: Monitoring asks now and then; what waits here waits no longer than one page takes.
BACKLOG = 64
#: At the end of the master, for an answer that has begun (seconds).
LEAVING_TIME = 1.0
#: A signal such as SIGSTOP may keep it from running for so long (seconds) before another takes its place.
STOPPED_TIME = 5.0


class Helper:
    """Runs while the configuration asks for it. Its sockets are the master's, and stay open while one
    process takes the place of another: whoever connects is answered."""

    def __init__(
        self, selector: selectors.BaseSelector, run: Callable[[list[Listener], Channel], None]
    ) -> None:
        """``run`` is what the process does, given its sockets and its end of a channel."""
        self._run = run
        self._switchboard = Switchboard(selector)
        self.listeners: list[Listener] = []
        self.news = NewsPage()
        #: Another master's process answers.
        self._retired = False
        self._channel: Optional[Channel] = None
        self._pid: Optional[int] = None
        #: Since when a signal keeps it from running (monotonic clock); None while it runs.
        self._stopped: Optional[float] = None
        self._former: set[int] = set()
        self._born = 0.0
        self._backoff = Backoff()

    @property
    def wanted(self) -> bool:
        return bool(self.listeners) and not self._retired

    def configure(
        self, configuration: Configuration, inheritance: Inheritance, start: bool = True
    ) -> None:
        """Listen as ``configuration`` says, and begin anew with its pools. Raises BootError, and then all
        is as it was. ``start`` False: start() follows, when an earlier master makes way."""
        master = configuration.master
        first = configuration.pools[0]
        access = Access(first.socket_mode, first.socket_user, first.socket_group)
        asked = (("--status-listen", master.status_listen), ("--metrics", master.metrics))
        named: dict[Address, str] = {}
        for option, text in asked:
            if text is not None:
                if named.setdefault(_parse(text, option), option) != option:
                    raise BootError("--metrics: --status-listen has this address already", os.EX_USAGE)
        kept = {**inheritance.listeners, **{listener.asked: listener for listener in self.listeners}}
        listeners = _open_all(named, access, kept)
        for address in named:
            inheritance.listeners.pop(address, None)
        for listener in self.listeners:
            if listener not in listeners:
                listener.close()
        self.listeners = listeners
        self._dismiss()
        self._backoff.succeeded()
        self._retired = not start
        if start:
            self.start()

    def claim(self) -> None:
        """As Listener.claim(). Raises OSError."""
        for listener in self.listeners:
            listener.claim(BACKLOG)

    def start(self) -> None:
        """Fork the process, when one is wanted. From now on there is always one."""
        self._retired = False
        if not self.wanted:
            return
        # Also of one that cannot be forked: the back-off tells by it that this is another try.
        self._born = time.monotonic()
        try:
            ours, theirs = Channel.pair()
        except OSError as error:
            self._failed(f"cannot be started: {error.strerror}")
            return
        with theirs:
            try:
                self._pid = fork_child(lambda: self._be(ours, theirs))
            except OSError as error:
                ours.close()
                self._failed(f"cannot be started: {error.strerror}")
                return
        self._channel = ours
        self._switchboard.connect(ours, self._hear)

    def _be(self, ours: Channel, theirs: Channel) -> None:
        ours.close()
        self._run(self.listeners, theirs)

    def _hear(self) -> None:
        """It has nothing to say but that it is ready, or gone."""
        channel = self._channel
        if channel is None:
            return
        try:
            for message in self._switchboard.messages(channel):
                if message is None:
                    self._switchboard.hang_up(channel)
                elif message.get("event") == "ready":
                    self._backoff.succeeded()
        except ValueError:
            self._switchboard.hang_up(channel)

    def child_ended(self, pid: int, status: int) -> bool:
        """A child was reaped; False when it is not this one."""
        if pid in self._former:
            self._former.discard(pid)
            return True
        if pid != self._pid:
            return False
        self._pid = self._stopped = None
        self._hang_up()
        self._failed(f"died: {describe_status(status)}")
        return True

    def child_stopped(self, pid: int, stopped: bool) -> None:
        """A child has been stopped by a signal, or goes on."""
        if pid == self._pid:
            self._stopped = time.monotonic() if stopped else None
            log.info("the status process %s", "is stopped by a signal" if stopped else "goes on")
        elif stopped and pid in self._former:
            send_signal(pid, signal.SIGKILL)

    def _failed(self, how: str) -> None:
        delay = self._backoff.failed(time.monotonic(), self._born)
        log.warning("the status process %s; the next one starts in %.1f s", how, delay)

    def next_deadline(self) -> float:
        """When check_clock() is due, on the monotonic clock; infinity when nothing is."""
        if self._pid is not None:
            return float("inf") if self._stopped is None else self._stopped + STOPPED_TIME
        if not self.wanted:
            return float("inf")
        now = time.monotonic()
        return now + self._backoff.remaining(now)

    def check_clock(self) -> None:
        now = time.monotonic()
        if self._pid is None and self.wanted and not self._backoff.remaining(now):
            self.start()
        elif self._pid is not None and self._stopped is not None and now >= self._stopped + STOPPED_TIME:
            self._stopped = None
            send_signal(self._pid, signal.SIGKILL)

    def retire(self) -> None:
        """Leave the sockets to the process of a new master: of two, each would show half of all. When this
        returns, the process is gone: what is told to the other one is no less than what it has shown."""
        self._retired = True
        self._dismiss()
        deadline = time.monotonic() + LEAVING_TIME
        for pid in self._former:
            while not _has_ended(pid):
                if time.monotonic() > deadline:
                    send_signal(pid, signal.SIGKILL)
                time.sleep(0.002)
        self._former.clear()

    def reopen(self) -> None:
        """The log file has been opened again."""
        own = own_log_file()
        if self._channel is not None:
            files = [] if own is None else [own]
            self._channel.send({"command": "reopen", "files": ["log"] * len(files)}, files)

    def forget(self) -> None:
        """In a child of the master: close what is not for it."""
        self._switchboard.close()
        for listener in self.listeners:
            listener.close()

    def close(self) -> None:
        """At the end of the master."""
        for listener in self.listeners:
            listener.close()
        self.listeners = []
        self._dismiss()
        deadline = time.monotonic() + LEAVING_TIME
        while self._former and time.monotonic() < deadline:
            self._former.difference_update(pid for pid, _ in reap())
            time.sleep(0.005)
        for pid in self._former:
            send_signal(pid, signal.SIGKILL)

    def _dismiss(self) -> None:
        """Let the process finish what it has begun, and leave."""
        self._hang_up()
        if self._pid is not None:
            self._former.add(self._pid)
            send_signal(self._pid, signal.SIGTERM if self._stopped is None else signal.SIGKILL)
            self._pid = self._stopped = None

    def _hang_up(self) -> None:
        if self._channel is not None:
            self._switchboard.hang_up(self._channel)
            self._channel = None


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _parse(text: str, option: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise BootError(f"{option}: {error}", os.EX_USAGE) from None


def _open_all(
    named: Mapping[Address, str], access: Access, kept: Mapping[Address, Listener]
) -> list[Listener]:
    """Of each address with its option. Raises BootError, and then none but ``kept`` is open."""
    listeners: list[Listener] = []
    try:
        for address, option in named.items():
            listeners.append(kept.get(address) or _open(address, access, option))
    except BootError:
        for listener in listeners:
            if listener.asked not in kept:
                listener.close()
        raise
    return listeners


def _open(address: Address, access: Access, option: str) -> Listener:
    listener = open_listener(address, BACKLOG, access)
    log.info("%s: %s", option.lstrip("-"), listener.address)
    if is_exposed(listener.socket):
        log.warning("%s: whoever reaches %s sees what visitors request", option, listener.address)
    return listener

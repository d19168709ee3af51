"""The master: one thread around one selector. It binds, decides, reaps, and imports no application code."""

from __future__ import annotations

import functools
import logging
import os
import selectors
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Iterator, Optional, Sequence, Union

from setproctitle import setproctitle

from spawner import activation, children, listenqueue, logs, signals, systemd
from spawner.addresses import parse_address
from spawner.configuration import Configuration
from spawner.control import Control, open_control
from spawner.controlpath import default_control_path
from spawner.countdown import Countdown
from spawner.daemon import Launcher, PidFile
from spawner.helper import Helper
from spawner.inheritance import Inheritance
from spawner.lifecycle import Action, Event, Lifecycle, State
from spawner.listeners import Listener
from spawner.predecessor import Predecessor
from spawner.reload import Outcome, Reload
from spawner.sampler import Sampler
from spawner.settings import Settings
from spawner.supervisor import KILL_AFTER, Supervisor
from spawner.upgrade import Program, Upgrade, Upgraded
from spawner.watchers import Watchers
from spawner.workplace import SCOREBOARD_SLOTS, Workplace, open_workplace
from workers import prctl, sealing
from workers.channel import Channel
from workers.errors import BootError

if TYPE_CHECKING:
    from spawner.commands import Commands

log = logging.getLogger("trac-spawn")

#: select() and epoll_wait() count milliseconds in 32 bits; a day is well below that.
LONGEST_WAIT = 86_400.0


@dataclass
class Origin:
    """How this process came to be: from which files, by whom, and with what in its hands."""

    program: Program = ()
    predecessor: Optional[Predecessor] = None
    inheritance: Inheritance = field(default_factory=Inheritance)
    launcher: Optional[Launcher] = None


class Master:
    """Waits for signals and for words from its children, and lets the lifecycle say what follows."""

    def __init__(self, configuration: Configuration, origin: Origin) -> None:
        self.configuration = configuration
        self.program = origin.program
        self.predecessor = origin.predecessor
        self.inheritance = origin.inheritance
        self._launcher = origin.launcher
        self.pidfile: Optional[PidFile] = None
        self._lifecycle = Lifecycle()
        self._selector = selectors.DefaultSelector()
        self._signals = signals.Signals(self._selector, self._hear_signal)
        self._countdown = Countdown(lambda: self.happen(Event.TIMEOUT))
        self.pools: dict[str, Supervisor] = {}
        #: Pools that a reload has removed, until their last worker has left.
        self._removed: list[Supervisor] = []
        self.watchers = Watchers()
        self.systemd = systemd.Notifier.from_environment()
        self.helper = Helper(self._selector, self._be_status_process)
        self._sampler = Sampler(
            self._all_pools,
            lambda: self.helper.wanted,
            lambda: self.helper.news.write(self._commands.news()),
        )
        self.store = activation.Store(self.systemd)
        #: While a new program is on its way to take this one's place.
        self.upgrading: Optional[Upgrade] = None
        #: A reload was asked for while that was not possible.
        self._reload_waits = False
        self._failure: Optional[BootError] = None
        self.control: Optional[Control] = None
        self._stopped: list[Callable[[], None]] = []
        self._pid = os.getpid()

    @functools.cached_property
    def _commands(self) -> Commands:
        from spawner.commands import Commands  # it can wait until the templates load

        return Commands(self)

    def run(self) -> int:
        """The loop, until all has been stopped. Raises BootError when no pool can start."""
        if self.predecessor is None:
            self.open_pidfile()
        self.store.take_note(self.inheritance.listeners.values())
        self._signals.watch()
        prctl.become_subreaper()
        for settings in self.configuration.pools:
            self.add_pool(settings)
        sealing.seal()
        for pool in self.pools.values():
            pool.balance()  # the applications are loaded during all that follows
        self._open_control()
        self._entitle()
        if self.predecessor is not None:
            self.predecessor.watch(self, self._selector)
        self.helper.configure(self.configuration, self.inheritance, self.predecessor is None)
        log.info("listening on %s", ", ".join(self._addresses()))
        while self._lifecycle.state is not State.STOPPED:
            for pool in self._all_pools():
                pool.balance()
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._reap()
            self._check_clock()
        if self._failure is not None:
            raise self._failure
        recycled: Counter[str] = Counter()
        for pool in self.pools.values():
            recycled += pool.recycled
        told = ", ".join(f"{number} {why}" for why, number in sorted(recycled.items()))
        log.info("stopped; workers recycled: %s", told or "none")
        return os.EX_OK

    def close(self) -> None:
        """Remove what the file system shows of this process."""
        for told in self._stopped:
            told()
        if self.control is not None:
            self.control.close()
        for pool in self._all_pools():
            pool.close_listeners()
        self.helper.close()
        self.inheritance.close()
        if self.pidfile is not None:
            self.pidfile.close()
        if self.upgrading is not None:
            self.upgrading.close()

    def open_pidfile(self) -> None:
        """Raises BootError."""
        path = self.configuration.master.pidfile
        if path:
            self.pidfile = PidFile(path, self.predecessor.pid if self.predecessor else 0)

    def _open_control(self) -> None:
        """The control socket: one that was asked for has to be there, the default one may not."""
        settings = self.configuration.master
        path = settings.control or default_control_path(settings)
        inherited = self.inheritance.control
        if path is None or (inherited is not None and path == inherited.address.path):
            return
        try:
            listener = open_control(path)
        except BootError as error:
            if settings.control:
                raise
            # Several masters of one user without pid files: the first has it.
            log.info("trac-spawnctl cannot talk to this master: %s", error)
            return
        self.answer_at(listener)

    def answer_at(self, listener: Listener) -> None:
        """Take orders from there."""
        self.control = Control(listener, self._selector, self._commands.handlers())

    @property
    def serving(self) -> bool:
        return self._lifecycle.serving

    @property
    def state(self) -> str:
        """In one word, as the status shows it."""
        return self._lifecycle.state.value

    def _all_pools(self) -> list[Supervisor]:
        return [*self.pools.values(), *self._removed]

    def add_pool(self, settings: Settings) -> None:
        """Raises BootError."""
        self.watchers.watch(settings)
        workplace = self.open_workplace(settings)
        broken = self.inheritance.broken.pop(settings.name, None)
        self.pools[settings.name] = Supervisor(
            workplace, self._selector, self._pool_happens, self._in_child, broken,
            succeeds=self.predecessor is not None,
        )  # fmt: skip

    def drop_pools(self, wanted: Sequence[Settings]) -> None:
        """End every pool that is not in ``wanted``. An address that a new one is to have stays open."""
        kept = {pool.name for pool in wanted}
        removed = [self.pools.pop(name) for name in list(self.pools) if name not in kept]
        added = [pool for pool in wanted if pool.name not in self.pools]
        for pool in removed:
            before = pool.workplace
            self.inheritance.bequeath(before.settings.name, before.listeners, before.handoff, added)
        self.store.update([*self.listeners(), *self.inheritance.listeners.values()])
        for pool in removed:
            log.info("the pool %s is no longer wanted", pool.workplace.settings.name)
            self.watchers.forget(pool.workplace.settings.name)
            self._removed.append(pool)
            pool.drain()

    def open_workplace(self, settings: Settings, before: Optional[Workplace] = None) -> Workplace:
        """Raises BootError, and then nothing has been opened."""
        return open_workplace(settings, self._label(settings), self.inheritance, before)

    def _look_for_changes(self) -> None:
        for name, changed in self.watchers.changes():
            if self._lifecycle.state is State.RUNNING:
                more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
                log.info("changed: %s%s", ", ".join(changed[:3]), more)
                self.reload(name)

    def _label(self, settings: Settings) -> str:
        return f"{settings.name} " if len(self.configuration.pools) > 1 else ""

    def _patience(self) -> Optional[float]:
        """Seconds to the nearest deadline; None to wait for an event alone."""
        if self._lifecycle.state is State.STOPPED:
            return 0.0
        deadline = min(one.next_deadline() for one in (*self._timed(), self.watchers))
        if deadline == float("inf"):
            return None
        return min(max(0.0, deadline - time.monotonic()), LONGEST_WAIT)

    def _timed(
        self,
    ) -> list[Union[Supervisor, Control, systemd.Notifier, Sampler, Helper, Upgrade, Countdown]]:
        """Whoever has deadlines of its own."""
        others = [one for one in (self.control, self.upgrading) if one is not None]
        return [*self._all_pools(), self.systemd, self._sampler, self.helper, *others, self._countdown]

    def _check_clock(self) -> None:
        for one in self._timed():
            one.check_clock()
        self._look_for_changes()

    def _reap(self) -> None:
        for pid, status in children.reap(os.WUNTRACED | os.WCONTINUED):
            if os.WIFSTOPPED(status) or os.WIFCONTINUED(status):
                self.helper.child_stopped(pid, os.WIFSTOPPED(status))
                for pool in self._all_pools():
                    pool.child_stopped(pid, os.WIFSTOPPED(status))
            elif self.upgrading is not None and self.upgrading.child_ended(pid, status):
                pass
            elif not self.helper.child_ended(pid, status) and not any(
                pool.child_ended(pid, status) for pool in self._all_pools()
            ):
                # As PID 1, or as a subreaper, one inherits the children of others.
                log.debug("reaped process %d: %s", pid, children.describe_status(status))

    # -- the lifecycle ---------------------------------------------------------------------------

    def _hear_signal(self, number: signal.Signals, event: Event) -> None:
        if number == signal.SIGQUIT and not self._lifecycle.serving:
            return  # it never means "at once": the kernel sends it when a web server has left
        if event is Event.PAUSE and not self.configuration.master.daemonize:
            return  # a terminal sends it when its window changes size
        log.info("%s received", number.name)
        self.happen(event)

    def happen(self, event: Event) -> None:
        """Something has happened to the program as a whole: do what the table says."""
        action = self._lifecycle.happen(event)
        if action is not Action.NOTHING:
            getattr(self, action.value)()

    def _pool_happens(self, pool: Supervisor, event: Event) -> None:
        """One pool has come to be ready, has failed or has ended: what is that for the whole?"""
        if event is Event.POOL_EMPTY:
            if pool in self._removed:
                self._removed.remove(pool)
                pool.close_listeners()
            if all(one.ended for one in self._all_pools()):
                self.happen(Event.POOL_EMPTY)
        elif all(one.was_ready or one.failure for one in self.pools.values()):
            failed = [one.failure for one in self.pools.values() if one.failure]
            if self.predecessor is not None and failed:
                # It has all of them at work.
                self._failure = self._failure or failed[0]
                self.happen(Event.POOL_FAILED)
            elif any(one.was_ready for one in self.pools.values()):
                # One that cannot load does not keep the others from serving; it tries again.
                self.happen(Event.POOL_READY)
            else:
                if self._lifecycle.state is State.STARTING:
                    self._failure = pool.failure
                self.happen(Event.POOL_FAILED)

    def announce(self) -> None:
        """The pools are ready for the first time."""
        ready = sum(pool.target for pool in self.pools.values() if pool.was_ready)
        log.info("ready: %d workers", ready)
        if self.predecessor is None:
            self.inheritance.close()
            self.store.update(self.listeners())
        self.systemd.ready(f"serving with {ready} workers")
        if self.predecessor is not None:
            self.predecessor.ready([str(listener.asked) for listener in self.all_listeners()])
        if self._launcher is not None:
            self._launcher.ready()
            self._launcher = None
        self.reload_if_asked()

    def drain(self) -> None:
        """Stop gracefully: let nobody new in, answer everybody who is."""
        if self.upgrading is not None:
            self.upgrading.abandon("trac-spawn is being stopped")
        log.info("stopping: answering what has been accepted or queued")
        self.systemd.stopping()
        self._entitle()
        for pool in self._all_pools():
            pool.drain()
        self._countdown.start(self.configuration.master.stop_timeout)
        if not self._all_pools():  # a reload has stopped the last, and could start no other
            self.happen(Event.POOL_EMPTY)

    def stop(self, done: Callable[[], None]) -> None:
        """Stop gracefully; ``done`` is called at the very end."""
        self._stopped.append(done)
        if self._lifecycle.serving:
            self.happen(Event.STOP)

    def pause(self) -> None:
        """Retire all workers; the sockets stay open, and what comes queues up."""
        for pool in self.pools.values():
            pool.paused = True

    def terminate(self) -> None:
        """End all that still runs."""
        if any(pool.workers for pool in self._all_pools()):
            log.warning("ending the workers that are left")
        for pool in self._all_pools():
            pool.terminate()
        self._countdown.start(KILL_AFTER)

    def kill(self) -> None:
        log.warning("killing the workers that are left")
        for pool in self._all_pools():
            pool.kill()

    def grow(self) -> None:
        for pool in self.pools.values():
            self.resize(pool, pool.scaling.maximum + 1)

    def shrink(self) -> None:
        for pool in self.pools.values():
            self.resize(pool, pool.scaling.maximum - 1)

    def resize(self, pool: Supervisor, wanted: int) -> None:
        """Of a pool that follows its load that is the number that it may have."""
        number = max(1, min(wanted, SCOREBOARD_SLOTS // 2))
        pool.scaling.move_maximum(number)
        most = "" if pool.scaling.bounds.manager == "static" else "at most "
        log.info("%s%s%d workers wanted", pool.workplace.label, most, number)

    def reopen(self) -> None:
        """Open the log files again."""
        logs.reopen()
        for pool in self._all_pools():
            pool.reopen()
        self.helper.reopen()
        if self.upgrading is not None:
            self.upgrading.tell("reopen")
        log.info("log files opened again")

    def reload(self, only: str = "", done: Callable[[Outcome], None] = lambda outcome: None) -> None:
        """Read the configuration again and load every pool anew, or ``only`` that one.

        What cannot be read or loaded changes nothing. ``done`` gets what became of each pool, once
        all is decided, and raises no error.
        """
        if self.upgrading is not None:
            # What it has loaded may be older than what has made somebody ask.
            self.reload_later()
            why = "an upgrade is under way; when that is over, a reload follows"
            done({only: BootError(why, os.EX_TEMPFAIL)})
            return
        Reload(self, only, done).begin()
        self._entitle()

    def reload_later(self) -> None:
        """As soon as that is possible."""
        log.info("a reload follows")
        self._reload_waits = True

    def reload_if_asked(self) -> None:
        """Now it is possible: here, or in the new program that has taken over."""
        if self._reload_waits:
            self._reload_waits = False
            if self.upgrading is None:
                self.happen(Event.RELOAD)
            else:
                self.upgrading.tell("reload")

    # -- upgrade ---------------------------------------------------------------------------------

    def upgrade(self, done: Upgraded = lambda pid, failure: None) -> None:
        """Start the program anew, and make way once it serves; ``done`` gets what became of it."""
        try:
            if self._lifecycle.state is not State.RUNNING:
                raise BootError(f"trac-spawn is {self.state}", os.EX_TEMPFAIL)
            if self.upgrading is not None or self.predecessor is not None:
                raise BootError("an upgrade is under way already", os.EX_TEMPFAIL)
            self.upgrading = Upgrade(self, self._selector, done)
        except (BootError, OSError) as error:
            failure = BootError(f"cannot fork: {error.strerror}") if isinstance(error, OSError) else error
            log.error("upgrade failed, nothing is changed: %s", failure)
            done(None, failure)

    def give_up(self, failure: BootError) -> None:
        """Stop gracefully, and end with this failure."""
        self._failure = failure
        self.happen(Event.STOP)

    def listeners(self) -> list[Listener]:
        """Of all pools but those that a reload has removed."""
        return [one for pool in self.pools.values() for one in pool.workplace.listeners]

    def all_listeners(self) -> list[Listener]:
        """Those of the status process too."""
        return [*self.listeners(), *self.helper.listeners]

    def claim_listeners(self) -> None:
        """Be the one whom others find listening. Raises OSError."""
        for pool in self.pools.values():
            for listener in pool.workplace.listeners:
                listener.claim(pool.workplace.settings.backlog)
        self.helper.claim()

    # -- the process -----------------------------------------------------------------------------

    def _in_child(self, workplace: Optional[Workplace]) -> None:
        """Close what belongs to the master alone: a copy of it would hide its death."""
        for pool in self._all_pools():
            pool.close_in_child(workplace)
        if workplace is not None:
            self.helper.forget()
        self.systemd.forget()
        listenqueue.forget()
        if self.control is not None:
            self.control.forget()
        self.inheritance.close()
        if self.predecessor is not None:
            self.predecessor.forget()
        if self.upgrading is not None:
            self.upgrading.forget()
        self._selector.close()
        self._signals.close()
        if self._launcher is not None:
            self._launcher.forget()
        if self.pidfile is not None:
            self.pidfile.forget()

    def _be_status_process(self, listeners: list[Listener], channel: Channel) -> None:
        """What its process does; it sees the pools that there are now."""
        from spawner.statusprocess import View, run_status_process  # not for a master without one

        settings = {pool.name: pool for pool in self.configuration.pools}
        where = self.configuration.master.metrics
        metrics = parse_address(where) if where is not None else None
        views = [
            View(
                settings.get(name, pool.workplace.settings),
                pool.workplace.scoreboard,
                pool.workplace.history,
            )
            for name, pool in self.pools.items()
        ]
        self._in_child(None)
        sockets = [listener.socket for listener in listeners]
        http = [listener.socket for listener in listeners if listener.asked == metrics]
        run_status_process(sockets, http, views, self.helper.news, channel, self._pid)

    def _addresses(self) -> Iterator[str]:
        return (str(listener.address) for listener in self.listeners())

    def _entitle(self) -> None:
        state = "" if self._lifecycle.serving else f" {self._lifecycle.state.value}"
        setproctitle(f"trac-spawn: master [{', '.join(self._addresses())}]{state}")

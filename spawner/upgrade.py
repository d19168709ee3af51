"""An upgrade, as the master that is to be replaced goes about it.

The program is started anew, as a child, and is given the sockets. It loads its pools beside ours; when
all of them are ready we let go of the pid file and the control socket, it takes them up, and then
our workers retire. Until it has said that this is done, whatever becomes of it changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import selectors
import signal
import sys
import time
from typing import TYPE_CHECKING, Callable, Iterator, NoReturn, Optional, Tuple

from spawner import HANDOVER, handover, totals
from spawner.children import describe_status, fork_child, send_signal
from spawner.inheritance import SUCCESSOR
from spawner.lifecycle import Event
from spawner.template import one_line, reported_failure
from spawner.totals import Totals
from workers.channel import Channel, Message
from workers.errors import BootError

if TYPE_CHECKING:
    from spawner.master import Master

log = logging.getLogger("trac-spawn")

#: A new program that has not taken over after so many seconds is ended. Loading the pools has a
#: limit of its own, --startup-timeout, so this is for one that hangs without even doing that.
TIMEOUT = 300.0
#: How long the end of a replaced master waits, in seconds, for the service manager to take notice.
SUCCESSION_TIMEOUT = 5.0
#: What is kept of what it says on stderr, in bytes: the end of a traceback.
_LAST_WORDS = 16_384

#: How the running program was started, for os.execve().
Program = Tuple[str, ...]


def own_command() -> Program:
    """The command line of this process, such that the same files are run again in whatever version
    they are then: a script by its own first line, which names the interpreter."""
    script, *arguments = sys.argv
    if os.path.basename(script) == "__main__.py":
        return (sys.executable, "-m", __package__, *arguments)
    if os.access(script, os.X_OK):
        return (os.path.abspath(script), *arguments)
    return (sys.executable, os.path.abspath(script), *arguments) if os.path.isfile(script) else ()


#: Called with the new master's pid, or with the reason why there is none.
Upgraded = Callable[[Optional[int], Optional[BootError]], None]


class Upgrade:
    """One attempt. ``done`` is called in the end. Raises BootError or OSError when there is no way."""

    def __init__(self, master: Master, selector: selectors.BaseSelector, done: Upgraded) -> None:
        if not master.program:
            raise BootError("this was not started as trac-spawn; restart what started it", os.EX_USAGE)
        if os.getpid() == 1:
            raise BootError("process 1 cannot be replaced; restart the container", os.EX_USAGE)
        self._master = master
        self._selector = selector
        #: Readable when the service manager knows who is the master now.
        self._known: Optional[int] = None
        self._done = done
        self._deadline = time.monotonic() + TIMEOUT
        self._conceded = False
        #: The new master serves.
        self._over = False
        #: It is no more: what it has said before that it had done, nobody does.
        self._ended = False
        self._kept: set[str] = set()
        #: What the pools had counted when it took over.
        self._told: dict[str, Totals] = {}
        self._last_words = b""
        self._failure: Optional[BootError] = None
        self._channel, theirs = Channel.pair()
        try:
            self._stderr, stderr = os.pipe()
        except OSError:
            self._channel.close()
            theirs.close()
            raise
        try:
            self._hand_over()
            self.pid = fork_child(lambda: self._execute(theirs, stderr))
        except (BootError, OSError):
            self.forget()
            raise
        finally:
            theirs.close()
            os.close(stderr)
        self._channel.socket.setblocking(False)
        os.set_blocking(self._stderr, False)
        selector.register(self._channel, selectors.EVENT_READ, self._hear)
        selector.register(self._stderr, selectors.EVENT_READ, self._listen)
        log.info("upgrading: started %s (pid %d)", self._master.program[0], self.pid)

    def _hand_over(self) -> None:
        """Before it has started: what the channel holds waits there for it."""
        self._channel.socket.setblocking(False)
        sent = all(self._channel.send(*message) for message in self._estate())
        if not (sent and self._channel.send({"event": "end"})):
            raise BootError("upgrade: there are too many pools to hand over at once", os.EX_OSERR)

    def _estate(self) -> Iterator[tuple[Message, list[int]]]:
        """All that it takes up, as messages with descriptors beside them."""
        for name, pool in self._master.pools.items():
            yield handover.pool_message(pool, self._master.inheritance.additional.get(name, ()))
        pools = self._master.listeners()
        yield handover.message_of([one for one in self._master.all_listeners() if one not in pools])
        if self._master.control is not None:
            yield handover.control_message(self._master.control.listener)

    def _execute(self, theirs: Channel, stderr: int) -> NoReturn:
        log_place = os.dup(2)
        os.dup2(stderr, 2)
        for descriptor in (log_place, theirs.fileno()):
            os.set_inheritable(descriptor, True)
        variables = {**os.environ, **self._master.systemd.environment()}
        variables[HANDOVER] = f"{theirs.fileno()}:{log_place}"
        program = self._master.program
        try:
            os.execve(program[0], program, variables)
        except OSError as error:
            # ENOENT may be about the interpreter that the first line of a script names.
            hint = " (or its interpreter)" if error.errno == errno.ENOENT else ""
            print(f"cannot execute {program[0]}{hint}: {error.strerror}", file=sys.stderr)
            raise SystemExit(os.EX_NOINPUT) from error

    # -- what it says ----------------------------------------------------------------------------

    def _listen(self) -> None:
        """Its stderr, until it says things in its own name."""
        with contextlib.suppress(BlockingIOError):
            while self._stderr >= 0:
                said = os.read(self._stderr, _LAST_WORDS)
                self._last_words = (self._last_words + said)[-_LAST_WORDS:]
                if not said:
                    self._selector.unregister(self._stderr)
                    os.close(self._stderr)
                    self._stderr = -1

    def _hear(self) -> None:
        try:
            while self._master.upgrading is self and not self._over:
                message, _ = self._channel.receive()
                if message is None:
                    # How it ended is told by SIGCHLD; unless it has merely closed its end.
                    self._selector.unregister(self._channel)
                    send_signal(self.pid, signal.SIGKILL)
                    return
                self._obey(message)
        except BlockingIOError:
            pass
        except (KeyError, TypeError, ValueError) as error:
            log.error("the new program says what is not understood: %r", error)
            send_signal(self.pid, signal.SIGKILL)

    def _obey(self, message: Message) -> None:
        if message["event"] == "failed":
            self._failure = reported_failure(message)
        elif message["event"] == "ready" and not self._conceded:
            self._kept = set(message["addresses"])
            self._concede()
            self._master.helper.retire()
            self._told = totals.tell(self._master.pools)
            self._channel.send({"command": "take over", "totals": totals.message(self._told, {})})
            for name, pool in self._master.pools.items():
                # Of very many pools not all may fit, and then those begin anew.
                rows = pool.workplace.history.rows(time.time())
                self._channel.send({"command": "remember", "pool": name, "history": rows})
        elif message["event"] == "done" and self._conceded and not self._ended:
            log.info("upgraded: process %d serves from now on", self.pid)
            self._over = True
            self._deadline = float("inf")
            # The channel stays open as long as we are there: the end of it says that we are not.
            self._selector.unregister(self._channel)
            self._retire()
            self._master.reload_if_asked()
            self._done(self.pid, None)

    def tell(self, command: str) -> None:
        """What was said to us alone and is for it as well; it obeys when it is there. An older
        version ignores what it does not know."""
        self._channel.send({"command": command})

    # -- making way ------------------------------------------------------------------------------

    def _concede(self) -> None:
        """It is ready: let go of what only one can have."""
        self._conceded = True
        if self._master.pidfile is not None:
            self._master.pidfile.release()
        if self._master.control is not None:
            self._master.control.stop_accepting()

    def _take_back(self) -> None:
        """It has failed at the last moment."""
        master = self._master
        for again in (self._take_pidfile_back, master.claim_listeners):
            try:
                again()
            except (BootError, OSError) as error:
                log.error("after the failed upgrade: %s", error)
        if master.control is not None:
            master.control.start_accepting()
        master.helper.start()

    def _take_pidfile_back(self) -> None:
        pidfile, self._master.pidfile = self._master.pidfile, None
        if pidfile is not None:
            pidfile.forget()
            self._master.open_pidfile()

    def _retire(self) -> None:
        """It serves, and goes on listening at the addresses that it has kept."""
        master = self._master
        for listener in master.all_listeners():
            if str(listener.asked) in self._kept:
                listener.others.add(SUCCESSOR)
        if master.control is not None:
            master.control.listener.others.add(SUCCESSOR)
        master.systemd.main_pid(self.pid)
        self._known = master.systemd.barrier()
        master.systemd.forget()
        if master.serving:
            master.happen(Event.STOP)

    def close(self) -> None:
        """At the very end. Who ends before the service manager has read what it said is no longer
        known as the one that may name another."""
        if self._over:
            latest = totals.tell(self._master.pools)
            self._channel.send({"command": "count", "totals": totals.message(latest, self._told)})
        if self._known is not None:
            # Not select(), which knows no descriptor beyond 1023.
            poll = select.poll()
            poll.register(self._known, select.POLLIN)
            poll.poll(SUCCESSION_TIMEOUT * 1000)

    # -- the end ---------------------------------------------------------------------------------

    def child_ended(self, pid: int, status: int) -> bool:
        """A child was reaped; False when it is not the new program."""
        if pid != self.pid:
            return False
        if self._over:
            return True
        self._ended = True
        self._listen()
        if self._channel in self._selector.get_map():
            self._hear()  # its last words
        if self._master.upgrading is self and not self._over:
            self._fail(self._failure or self._explain(status))
        return True

    def _explain(self, status: int) -> BootError:
        """It has not said why in its own way: what the interpreter has left on stderr."""
        text = self._last_words.decode("utf-8", "replace").rstrip()
        lines = text.splitlines()
        why = one_line(lines[-1]) if lines else "it did not say why"
        message = f"the new program ended with {describe_status(status)}: {why}"
        return BootError(message, os.EX_SOFTWARE, text, len(lines) > 1)

    def abandon(self, why: str) -> None:
        """We are told to stop, or it takes too long: end it, and go on as if nothing had been."""
        if self._over:
            return
        self._failure = self._failure or BootError(f"upgrade given up: {why}", os.EX_TEMPFAIL)
        send_signal(self.pid, signal.SIGKILL)

    def _fail(self, failure: BootError) -> None:
        log.error("upgrade failed, nothing is changed: %s", failure)
        if failure.unexpected:
            log.error("%s", failure.traceback.rstrip())
        self._finish()
        if self._conceded:
            self._take_back()
        self._done(None, failure)
        self._master.reload_if_asked()

    def _finish(self) -> None:
        self._master.upgrading = None
        if self._channel in self._selector.get_map():
            self._selector.unregister(self._channel)
        if self._stderr >= 0:
            self._selector.unregister(self._stderr)
        self.forget()

    def forget(self) -> None:
        """In a child as well: close what leads to the new program."""
        self._channel.close()
        if self._stderr >= 0:
            os.close(self._stderr)
            self._stderr = -1

    def next_deadline(self) -> float:
        """When check_clock() is due, on the monotonic clock."""
        return self._deadline

    def check_clock(self) -> None:
        if time.monotonic() >= self._deadline:
            self._deadline = float("inf")
            self.abandon(f"the new program was not ready after {TIMEOUT:.0f} seconds")

"""The one place that forks, and what the master knows of each child."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Callable, NoReturn, Optional

from spawner.capture import Capture
from spawner.pool import WorkerState
from spawner.signals import HANDLED
from workers.channel import Channel
from workers.errors import BootError
from workers.scoreboard import Slot

log = logging.getLogger("trac-spawn")


#: The number of a worker that is still to get one.
SPARE = 0


def fork_child(body: Callable[[], None]) -> int:
    """Run ``body`` in a new process, which ends with it; the pid of that process. Raises OSError.

    Signals are blocked until the child has shed the parent's handlers and wake-up descriptor:
    that descriptor is shared, so a signal for the child would otherwise arrive in the parent.
    """
    _flush()  # what is buffered would be written once by each copy of the process
    # Not all that there are: Python makes an object of each one that was blocked, here and in the child,
    # which would be a fifth of the processor time that a fork takes.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        pid = os.fork()
        if pid == 0:
            _run(body, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _run(body: Callable[[], None], mask: set[signal.Signals | int]) -> NoReturn:
    status = os.EX_SOFTWARE
    try:
        _reset_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        body()
        status = os.EX_OK
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else os.EX_SOFTWARE
    except BaseException:  # nothing may get out of here: above is the parent's own stack
        log.critical("the process ends on an error of its own", exc_info=True)
    finally:
        _flush()
        # Not sys.exit(): what the parent has registered to run at its exit is the parent's.
        os._exit(status)


def _reset_signals() -> None:
    """Only SIGTERM is for a child too. What else the master handles is an order to the master, also
    when the terminal or a service manager sends it to every process, and would kill or stop this.

    A template has no such loop: what is handled there, the application has set up.
    """
    if signal.set_wakeup_fd(-1) == -1:
        return
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            own = number in (signal.SIGTERM, signal.SIGCHLD)
            signal.signal(number, signal.SIG_DFL if own else signal.SIG_IGN)


def _flush() -> None:
    """Write what application code has printed; it may have closed or replaced these files, too."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass


def describe_status(status: int) -> str:
    """How a child ended, from waitpid(2)'s status: "SIGKILL" or "exit status 70"."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return signal.Signals(number).name
        except ValueError:
            return f"signal {number}"  # a real-time signal has no name
    return f"exit status {os.WEXITSTATUS(status)}"


@dataclass(eq=False)
class WorkerHandle:
    """A worker as the master knows it. It has a pid once it has said so itself."""

    number: int
    generation: int
    channel: Channel
    slot: Slot
    state: WorkerState = WorkerState.STARTING
    pid: Optional[int] = None
    #: Why it is to be replaced; empty while it is not.
    reason: str = ""
    #: Asked for before its template had warmed up.
    cold: bool = False
    #: What it is told when it is: whether to answer first what is queued.
    farewell: str = "retire"
    born: float = field(default_factory=time.monotonic)
    #: When it became ready (monotonic clock).
    ready_at: float = float("inf")
    #: When it was told to leave (monotonic clock), and whether it may still take up a new request.
    leaving_since: float = float("inf")
    accepts: bool = True
    #: When a worker that was told to end at once is killed; None for one that was not.
    kill_at: Optional[float] = None
    #: Told, before anything else, to answer what is queued and then to leave.
    drains: bool = False
    #: A file in memory to which it writes its stack, see stacks.py; None before it has one.
    stacks: Optional[int] = None
    #: Whether the master has ended it in the middle of a request.
    ended: bool = False
    #: What it writes to standard output; None when nobody listens.
    output: Optional[Capture] = None
    #: Since when a signal such as SIGSTOP keeps it from running; None while it runs.
    stopped: Optional[float] = None
    #: Why it cannot start, in its own words or ours.
    failure: Optional[BootError] = None
    #: As in Workplace.
    label: str = ""

    @property
    def worn(self) -> bool:
        return bool(self.reason)

    @property
    def idle(self) -> bool:
        """It would take up a request at once."""
        return self.state is WorkerState.READY and not self.slot.busy and self.stopped is None

    @property
    def idle_since(self) -> float:
        """On the monotonic clock; infinity while it is not idle."""
        return max(self.ready_at, self.slot.idle_since / 1e9) if self.idle else float("inf")

    def describe(self) -> str:
        """The same words in the log, in process titles and for whoever reads ps."""
        name = f"worker {self.number}" if self.number != SPARE else "spare"
        return f"{self.label}{name} gen {self.generation} (pid {self.pid or 'unknown'})"

    def tell(self, command: str) -> None:
        self.channel.send({"command": command})

    def close_files(self) -> None:
        """It is gone, or was never born."""
        if self.stacks is not None:
            os.close(self.stacks)
            self.stacks = None
        if self.output is not None:
            self.output.close()
            self.output = None

    def signal(self, number: int) -> None:
        if self.pid is not None:
            send_signal(self.pid, number)


@dataclass
class TemplateHandle:
    """A template as the master knows it."""

    generation: int
    channel: Channel
    pid: int
    #: It takes orders, and warms up between them.
    early: bool = False
    ready: bool = False
    #: A worker of it has become ready, which shows that nothing is wrong with it.
    proven: bool = False
    born: float = field(default_factory=time.monotonic)
    #: As in WorkerHandle.
    stopped: Optional[float] = None
    failure: Optional[BootError] = None
    label: str = ""

    @property
    def takes_orders(self) -> bool:
        return self.ready or self.early

    def describe(self) -> str:
        return f"{self.label}template gen {self.generation} (pid {self.pid})"


def send_signal(pid: int, number: int) -> None:
    """Signal a child of ours. Its pid is its own until it has been reaped, so this hits nobody else."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def reap(besides: int = 0) -> list[tuple[int, int]]:
    """(pid, status) of every child that has ended, adopted ones too. Never waits.

    ``besides`` are waitpid(2)'s WUNTRACED and WCONTINUED, for those that a signal has stopped or
    sent on again. A debugger stops a child in another way, of which its parent hears nothing.
    """
    found: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | besides)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        found.append((pid, status))

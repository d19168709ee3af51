"""Processes that a test starts: waited for by events, ended by pid, and nothing of them left."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

import psutil

T = TypeVar("T")

#: How long anything may take on a busy machine before a test calls it broken.
PATIENCE = 20.0
#: How often a state that sends no event (a log file, /proc) is looked at.
LOOK = 0.01
PR_SET_CHILD_SUBREAPER = 36


class Leftover(AssertionError):
    """Something that should have ended by itself had to be killed."""


def adopt_orphans() -> None:
    """Make this process inherit what its descendants leave behind, daemons included.

    Without it a process whose parent was killed would belong to init, and no test could find it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def wait_until(
    predicate: Callable[[], T], timeout: float = PATIENCE, what: str = "the expected state"
) -> T:
    """The first true value of ``predicate()``; AssertionError when there is none in time."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"no {what} within {timeout:g} s (last: {value!r})")
        time.sleep(LOOK)


def alive(process: psutil.Process) -> bool:
    """Whether it still runs. A zombie does not; one that this process adopted is reaped."""
    try:
        if process.status() != psutil.STATUS_ZOMBIE:
            return True
        if process.ppid() == os.getpid() and process.pid not in _started:
            process.wait(0)
    except (psutil.NoSuchProcess, psutil.TimeoutExpired):
        pass
    return False


def gone(pid: int) -> bool:
    """Whether no process of this id runs; ``os.kill(pid, 0)`` would count zombies as running."""
    try:
        return not alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


def wait_gone(pids: Iterable[int], timeout: float = PATIENCE) -> None:
    """Wait until none of these processes runs any more."""
    left = set(pids)
    wait_until(lambda: all(gone(pid) for pid in left), timeout, f"end of processes {sorted(left)}")


def descendants(of: Optional[int] = None) -> list[psutil.Process]:
    """Everything that runs below a process (default: this one)."""
    try:
        found = psutil.Process(of).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process for process in found if alive(process)]


def title(process: psutil.Process) -> str:
    """What ``ps`` shows: the process title, or the command line."""
    try:
        return " ".join(process.cmdline()).strip()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def kill_all(processes: Iterable[psutil.Process], timeout: float = 5.0) -> list[str]:
    """SIGKILL each of them and wait; returns what they were."""
    killed = []
    victims = [process for process in processes if alive(process)]
    for process in victims:
        killed.append(f"{process.pid} ({title(process)})")
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    wait_until(lambda: not any(alive(p) for p in victims), timeout, "end of what was killed")
    return killed


# Popen must reap its own children itself, or it cannot tell how they ended.
_started: dict[int, subprocess.Popen[bytes]] = {}


class Program:
    """A program that a test started, and its log (stdout and stderr together, in a file)."""

    #: Set this when the test means to leave the program in a state in which it has to be killed.
    may_be_killed = False

    def __init__(
        self,
        argv: Sequence[str],
        log_path: Path,
        env: Optional[Mapping[str, str]] = None,
        cwd: Optional[Path] = None,
        stdin: Optional[int] = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
        own_group: bool = True,
    ) -> None:
        self.argv = [str(word) for word in argv]
        self.log_path = log_path
        with open(log_path, "ab") as log:
            self.popen = subprocess.Popen(
                self.argv,
                stdin=stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(os.environ if env is None else env),
                cwd=cwd,
                pass_fds=pass_fds,
                # Its own group, so that a test can send what Ctrl-C sends, and not to itself.
                start_new_session=own_group,
            )
        _started[self.pid] = self.popen

    def __repr__(self) -> str:
        return f"<{self.log_path.stem}, pid {self.pid}>"

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def mark(self) -> int:
        """Where the log ends now: ``wait_for_line(..., after=mark)`` ignores what stands before."""
        return len(self.log)

    def wait_for_line(self, regex: str, timeout: float = PATIENCE, after: int = 0) -> re.Match[str]:
        """The first line of the log that matches; fails at once when the program ends without it.

        The program's own end is no failure for a daemon's launcher: there, wait for the log first.
        """
        pattern = re.compile(regex)
        deadline = time.monotonic() + timeout
        while True:
            # Before the log is read: whatever an ended program wrote is then in it.
            ended = not self.running and not descendants(self.pid)
            # A line that is still being written is not one yet.
            complete = self.log[after:].rpartition("\n")[0]
            for line in complete.split("\n"):
                match = pattern.search(line)
                if match:
                    return match
            if ended or time.monotonic() > deadline:
                reason = f"ended ({self.popen.returncode})" if ended else f"ran {timeout:g} s"
                raise AssertionError(f"{self!r} {reason}; no line matches {regex!r}:\n{self.log}")
            time.sleep(LOOK)

    def wait_exit(self, timeout: float = PATIENCE) -> int:
        """Its exit status; negative: the signal that ended it. AssertionError when it runs on."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self!r} still runs after {timeout:g} s:\n{self.log}") from None

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def interrupt(self) -> None:
        """What Ctrl-C in a terminal does: SIGINT to the whole foreground process group."""
        os.killpg(self.pid, signal.SIGINT)

    def stop(self, timeout: float = PATIENCE) -> int:
        """SIGTERM, then its exit status."""
        if self.running:
            self.popen.terminate()
        return self.wait_exit(timeout)

    def descendants(self) -> list[psutil.Process]:
        return descendants(self.pid)

    def end(self, timeout: float = PATIENCE) -> list[str]:
        """End it, firmly if need be; returns what had to be killed."""
        killed = []
        if self.running:
            # A stopped (SIGSTOP) program cannot end before it goes on.
            self.popen.send_signal(signal.SIGCONT)
            self.popen.terminate()
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                killed.append(f"{self.pid} ({' '.join(self.argv)})")
                self.popen.kill()
                self.popen.wait(timeout)
        _started.pop(self.pid, None)
        return [] if self.may_be_killed else killed


class Supervisor:
    """Ends, for one test, every program it started and everything those left behind."""

    #: What a pool may need to notice that its master is gone.
    GRACE = 3.0

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.programs: list[Program] = []
        self._before = {process.pid for process in descendants()}

    def add(self, program: Program) -> None:
        self.programs.append(program)

    def log_path(self, name: str) -> Path:
        """A log file's path that no other program of this test has."""
        return self.directory / f"{name}-{len(self.programs) + 1}.log"

    def start(self, argv: Sequence[str], name: str = "", **options: Any) -> Program:
        """Start any program; the options are those of :class:`Program`."""
        path = self.log_path(name or Path(argv[0]).name)
        program = Program(argv, path, **options)
        self.add(program)
        return program

    def strays(self) -> list[psutil.Process]:
        return [process for process in descendants() if process.pid not in self._before]

    def finish(self) -> None:
        """End all, the latest first. Raises Leftover when anything had to be killed."""
        killed: list[str] = []
        forgiven = any(program.may_be_killed for program in self.programs)
        for program in reversed(self.programs):
            killed += program.end()
        try:
            wait_until(lambda: not self.strays(), self.GRACE)
        except AssertionError:
            left = kill_all(self.strays())
            if not forgiven:
                killed += left
        if killed:
            raise Leftover("had to be killed after the test: " + ", ".join(killed))

"""Programs that the benchmark starts, with all that they fork: found and ended by pid."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Callable

import psutil

from benchmarks.errors import BenchmarkError

ROOT = Path(__file__).resolve().parents[1]
#: Debian keeps web servers where an ordinary user does not look.
SEARCH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
#: Settings of whoever runs the benchmark that would change what is measured.
FOREIGN = re.compile("TRAC_|PHP_FCGI_|FCGI_|LISTEN_|UWSGI_|GUNICORN_|WEB_CONCURRENCY|NOTIFY_|PYTHON")
#: Seconds for all to end by themselves; then they are killed.
GRACE = 5.0


def find(program: str, package: str) -> str:
    """Its path. Raises BenchmarkError naming Debian's package."""
    found = shutil.which(program, path=SEARCH)
    if found is None:
        raise BenchmarkError(f"{program} is not installed: apt-get install {package}")
    return found


class Program:
    """A running program; its output goes to a file in its home, which is its directory too."""

    def __init__(
        self,
        command: list[str],
        home: Path,
        variables: Mapping[str, str],
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.name = home.name
        self.log = home / "log"
        env = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
        env.update(PATH=SEARCH, HOME=str(home), PYTHONPATH=str(ROOT))
        env.update(variables)
        try:
            with open(self.log, "wb") as log:
                self.popen = subprocess.Popen(
                    command,
                    cwd=home,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=pass_fds,
                    # Ctrl-C is for us alone: we end the others in order.
                    start_new_session=True,
                )
        except OSError as error:
            raise BenchmarkError(f"cannot start {self.name}: {error}") from None
        self.roots = [psutil.Process(self.popen.pid)]

    def follow_detached(self, pidfile: Path) -> None:
        """Wait until the command has ended, and go on with the processes that it left behind."""
        try:
            status = self.popen.wait(GRACE)
        except subprocess.TimeoutExpired:
            raise self.failed("does not detach") from None
        if status != 0:
            raise self.failed(f"ended with status {status}")
        self.roots = [psutil.Process(int(pid)) for pid in pidfile.read_text().split()]

    def processes(self) -> list[psutil.Process]:
        """All of it that runs now."""
        found = []
        for root in self.roots:
            try:
                found += [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        return [process for process in found if _runs(process)]

    def failed(self, what: str) -> BenchmarkError:
        words = self.log.read_text(errors="replace").strip()[-3000:]
        return BenchmarkError(f"{self.name} {what}:\n{words}")


def end(programs: Sequence[Program]) -> None:
    """SIGTERM to each program's roots, SIGKILL to what is left of any after the grace."""
    everything = [process for program in programs for process in program.processes()]
    for program in programs:
        for root in program.roots:
            _quietly(root.terminate)
    _wait(everything, GRACE)
    kill(everything)


def kill(processes: Iterable[psutil.Process]) -> None:
    left = [process for process in processes if _runs(process)]
    for process in left:
        _quietly(process.kill)
    _wait(left, GRACE)


def descendants() -> list[psutil.Process]:
    """Also those whose parents are gone: they are adopted (PR_SET_CHILD_SUBREAPER)."""
    return psutil.Process().children(recursive=True)


def _wait(processes: list[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(_runs(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    """Whether it is there and no zombie; one that has become our child is reaped."""
    try:
        if process.status() != psutil.STATUS_ZOMBIE:
            return process.is_running()
        if process.ppid() == os.getpid():
            process.wait(0)
    except (psutil.NoSuchProcess, psutil.TimeoutExpired):
        pass
    return False


def _quietly(call: Callable[[], object]) -> None:
    try:
        call()
    except psutil.NoSuchProcess:
        pass

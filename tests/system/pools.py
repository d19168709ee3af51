"""trac-spawn as a real process, and the processes of its pool as ``ps`` shows them."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import psutil
import pytest

from .processes import PATIENCE, Program, Supervisor, title, wait_until

ROOT = Path(__file__).resolve().parents[2]
#: Where the commands of the interpreter under test are; not resolved, which would leave the venv.
BIN = Path(sys.executable).parent
#: Settings of whoever runs the tests that would change what the programs under test do.
FOREIGN = re.compile("TRAC_|PHP_FCGI_|FCGI_|LISTEN_|PYTEST|NOTIFY_SOCKET|XDG_|PYTHON")
#: For a test of both ways to start workers.
MODES = pytest.mark.parametrize("mode", [[], ["--no-template"]], ids=["template", "no-template"])
SPARE = re.compile(r"^trac-spawn: (\S+ )?spare gen \d+$")
TITLE = re.compile(
    r"^trac-spawn: (?P<role>master|template|worker)"
    r"(?: (?P<slot>\d+))?(?: gen (?P<generation>\d+))?(?: (?P<rest>.*))?$"
)


def base_environment(directory: Path, code: Path = ROOT) -> dict[str, str]:
    """The environment of a program under test: ours without foreign settings, a HOME of its own."""
    env = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
    # Debian keeps the web servers where an ordinary user does not look.
    env["PATH"] = f"{BIN}:{env.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    env["HOME"] = str(directory)
    # The tree under test, and tests.system.apps.
    env["PYTHONPATH"] = str(code)
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    return env


def readable_by(user: str, *paths: Path) -> bool:
    """Whether another user can read these and run the interpreter; only root can ask."""
    script = "import sys; [open(name).close() for name in sys.argv[1:]]; import trac, setproctitle"
    command = [sys.executable, "-c", script, *map(str, paths)]
    group = pwd.getpwnam(user).pw_gid
    try:
        done = subprocess.run(
            command, user=user, group=group, extra_groups=[], cwd="/", capture_output=True
        )
        return done.returncode == 0
    except PermissionError:
        return False


def public_code(user: str, directory: Path) -> Path:
    """A copy of the code under test that another user can read; the tree itself when it is."""
    if readable_by(user, ROOT / "workers" / "__init__.py"):
        return ROOT
    copy = directory / "code"
    for package in ("spawner", "workers", "tests"):
        shutil.copytree(ROOT / package, copy / package)
    if not readable_by(user, copy / "workers" / "__init__.py"):
        raise AssertionError(
            f"{user} cannot run {sys.executable}, so nothing can drop privileges with it: "
            "use tests/run, which makes an environment that all users can read"
        )
    return copy


@dataclass(frozen=True)
class Member:
    """One process of a pool, read from its title."""

    pid: int
    role: str
    slot: Optional[int]
    generation: Optional[int]
    #: "idle", "busy", "draining"...; for the master, what it listens on.
    state: str
    title: str

    @classmethod
    def of(cls, process: psutil.Process) -> Optional[Member]:
        text = title(process)
        match = TITLE.match(text)
        if match is None:
            return None
        slot, generation = match["slot"], match["generation"]
        return cls(
            pid=process.pid,
            role=match["role"],
            slot=int(slot) if slot else None,
            generation=int(generation) if generation else None,
            state=(match["rest"] or "").split(" ")[0],
            title=text,
        )


def descriptors_by_role(master: int) -> dict[str, int]:
    """How many the master has open, its template and its worker."""
    process = psutil.Process(master)
    members = filter(None, (Member.of(one) for one in [process, *process.children()]))
    found = {}
    for member in members:
        with contextlib.suppress(FileNotFoundError):  # it has left meanwhile
            found[member.role] = len(os.listdir(f"/proc/{member.pid}/fd"))
    return found


def no_more(found: dict[str, int], before: dict[str, int]) -> bool:
    """Whether each has at most so many; who has only just been born has one for its birth as well."""
    return found.keys() == before.keys() and all(found[role] <= before[role] for role in before)


class Pool(Program):
    """A running trac-spawn (or trac.fcgi with children)."""

    #: The Unix socket it was told to listen on, when the harness chose one.
    socket: Path
    #: What trac-spawnctl talks to.
    control: Path

    def wait_ready(self, timeout: float = PATIENCE) -> Pool:
        self.wait_for_line(r"ready: \d+ workers?\b", timeout)
        return self

    def wait_warm(self) -> Pool:
        """Until the templates that have forked their first workers early are warm, and those are gone."""
        for template in re.findall(r"(\S* ?template gen \d+ \(pid \d+\)) warms up while", self.log):
            self.wait_for_line(rf"{re.escape(template)} ready$")
            before, _ = self.log.split(f"{template} ready\n", 1)
            label = template.partition("template")[0]
            cold = set(re.findall(rf"{label}worker \d+ gen \d+ \(pid (\d+)\) ready$", before, re.M))
            wait_until(lambda: not cold & {str(one.pid) for one in self.workers()}, what="warm workers")  # noqa: B023
        return self

    def members(self, role: str = "") -> list[Member]:
        """Its processes with a title of ours, the master first, then by generation and slot."""
        processes = [psutil.Process(self.pid)] if self.running else []
        found = [m for m in map(Member.of, processes + self.descendants()) if m is not None]
        # While a worker is being forked it has the template's title at first.
        templates = [m for m in found if m.role == "template"]
        copies = [m for m in templates if any(m.title == one.title and m.pid > one.pid for one in templates)]
        order = {"master": 0, "template": 1, "worker": 2}
        return sorted(
            (m for m in found if m not in copies and role in ("", m.role)),
            key=lambda m: (order[m.role], m.generation or 0, m.slot or 0),
        )

    def workers(self, state: str = "") -> list[Member]:
        return [m for m in self.members("worker") if state in ("", m.state)]

    def template(self) -> Member:
        """The template process, once there is exactly one."""
        only = wait_until(
            lambda: found if len(found := self.members("template")) == 1 else [],
            what="single template",
        )
        return only[0]

    def spare(self) -> int:
        """The pid of the worker that waits to be employed, once there is one."""
        spares = wait_until(
            lambda: [one.pid for one in self.descendants() if SPARE.search(title(one))], what="spare worker"
        )
        return int(spares[0])

    def wait_workers(self, count: int, state: str = "", timeout: float = PATIENCE) -> list[Member]:
        """Wait until there are exactly so many workers (in that state)."""
        wait_until(
            lambda: len(self.workers(state)) == count, timeout, f"{count} {state or 'live'} workers"
        )
        return self.workers(state)


class Spawner:
    """Starts trac-spawn for one test: ``spawn("-n", "2", "--env", path)``."""

    def __init__(self, supervisor: Supervisor, directory: Path, code: Path) -> None:
        self.supervisor = supervisor
        self.directory = directory
        self.code = code

    def __call__(
        self,
        *options: object,
        ready: bool = True,
        listen: bool = True,
        command: str = "trac-spawn",
        env: Optional[Mapping[str, str]] = None,
        cwd: Optional[Path] = None,
        stdin: Optional[int] = subprocess.DEVNULL,
        pass_fds: tuple[int, ...] = (),
        timeout: float = PATIENCE,
    ) -> Pool:
        """Start it, on a Unix socket of its own unless ``listen`` is False, and wait until ready and warm.

        ``env`` is laid over a clean environment without any TRAC_ setting.
        """
        number = len(self.supervisor.programs)
        socket = self.directory / (f"trac{number}.sock" if number else "trac.sock")
        where = ["-s", str(socket)] if listen else []
        pool = Pool(
            [str(BIN / command), *where, *map(str, options)],
            self.supervisor.log_path(command),
            env={
                **base_environment(self.directory, self.code),
                "TRAC_SPAWN_CONTROL": str(self.directory / f"control{number}"),
                **(env or {}),
            },
            cwd=cwd or self.directory,
            stdin=stdin,
            pass_fds=pass_fds,
        )
        pool.socket = socket
        pool.control = self.directory / f"control{number}"
        self.supervisor.add(pool)
        return pool.wait_ready(timeout).wait_warm() if ready else pool

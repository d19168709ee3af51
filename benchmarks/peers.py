"""Who is measured: how each is started, and what it needs. A new one is an entry in ``PEERS``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

import psutil


@dataclass(frozen=True)
class Job:
    """What one service of a peer has to do."""

    #: MODULE:CALLABLE; for Trac, TRAC_ENV in its process environment names the environment.
    target: str
    env: Optional[Path]
    workers: int
    #: Where the front end expects it, a Unix socket.
    socket: Path
    #: A directory of its own, which is its HOME and working directory too.
    home: Path
    #: The path below which the front end mounts it.
    mount: str
    #: The interpreter of the venv for the peers.
    python: Path

    @property
    def pidfile(self) -> Path:
        return self.home / "pids"


Command = Callable[[Job], "list[str]"]
Workers = Callable[[psutil.Process], "list[psutil.Process]"]


def children_of(root: psutil.Process) -> list[psutil.Process]:
    return root.children()


def titled_workers(root: psutil.Process) -> list[psutil.Process]:
    """trac-spawn's: the template is a child of the master as well."""
    return [p for p in root.children() if " ".join(p.cmdline()).startswith("trac-spawn: worker")]


@dataclass(frozen=True)
class Peer:
    name: str
    title: str
    command: Command
    #: Its name on PyPI, for the venv and for its version; empty when it comes with Trac or us.
    distribution: str = ""
    #: Runs in the venv for the peers, not in the project's own.
    in_venv: bool = True
    #: Debian's programs that it needs; each is in the package of its name.
    programs: tuple[str, ...] = ()
    #: What the front end speaks to it: fastcgi, uwsgi or http.
    protocol: str = "fastcgi"
    #: Variables of its processes; ``{mount}`` is filled in.
    variables: Mapping[str, str] = field(default_factory=dict)
    #: Its command ends once the servers run, and has written their pids to ``Job.pidfile``.
    detaches: bool = False
    #: Finds, from its root process, those that are replaced when they die; None: none is.
    respawning: Optional[Workers] = None


def _trac_spawn(job: Job) -> list[str]:
    served = ["--env", str(job.env)] if job.env else ["--app", job.target]
    command = [sys.executable, "-m", "spawner", "-n", str(job.workers), "-s", str(job.socket)]
    return [*command, *served, "--log-level", "warning"]


def _server(name: str, job: Job) -> list[str]:
    words = [name, job.target, str(job.socket), str(job.workers)]
    return [str(job.python), "-m", "benchmarks.servers", *words]


def _under_spawn_fcgi(name: str) -> Command:
    def command(job: Job) -> list[str]:
        options = ["-s", str(job.socket), "-F", str(job.workers), "-P", str(job.pidfile)]
        return ["spawn-fcgi", *options, "--", *_server(name, job)]

    return command


def _uwsgi(job: Job) -> list[str]:
    venv = job.python.parent.parent
    return [
        str(venv / "bin" / "uwsgi"), "--master", "--need-app", "--die-on-term", "--disable-logging",
        "--home", str(venv), "--processes", str(job.workers),
        "--socket", str(job.socket), "--module", job.target,
    ]  # fmt: skip


def _gunicorn(job: Job) -> list[str]:
    # Preloading shares what it can and costs nothing, so this is gunicorn at its best.
    options = ["--preload", "--workers", str(job.workers), "--bind", f"unix:{job.socket}"]
    return [str(job.python), "-m", "gunicorn", *options, job.target]


PEERS = (
    Peer("trac-spawn", "trac-spawn", _trac_spawn, in_venv=False, respawning=titled_workers),
    Peer(
        "trac-fcgi",
        "Trac's FastCGI",
        _under_spawn_fcgi("trac_fcgi"),
        programs=("spawn-fcgi",),
        detaches=True,
    ),
    Peer(
        "flup",
        "flup prefork",
        lambda job: _server("flup", job),
        distribution="flup",
        respawning=children_of,
    ),
    Peer(
        "flipflop",
        "flipflop",
        _under_spawn_fcgi("flipflop"),
        distribution="flipflop",
        programs=("spawn-fcgi",),
        detaches=True,
    ),
    Peer(
        "uwsgi",
        "uWSGI",
        _uwsgi,
        distribution="uWSGI",
        protocol="uwsgi",
        respawning=children_of,
    ),
    Peer(
        "gunicorn",
        "gunicorn",
        _gunicorn,
        distribution="gunicorn",
        protocol="http",
        variables={"SCRIPT_NAME": "{mount}"},
        respawning=children_of,
    ),
)
OURS = PEERS[0]


def named(names: Iterable[str]) -> tuple[Peer, ...]:
    """Those peers in the table's order; all when no name is given."""
    wanted = set(names)
    return tuple(peer for peer in PEERS if not wanted or peer.name in wanted)

"""Who is measured: how each is started, and what it needs. A new one is an entry in ``PEERS``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Callable, Optional

import psutil

from benchmarks import modwsgi
from benchmarks.job import Job
from benchmarks.pages import TRAC, Page

Command = Callable[[Job], "list[str]"]
Workers = Callable[[psutil.Process], "list[psutil.Process]"]


def children_of(root: psutil.Process) -> list[psutil.Process]:
    return root.children()


def titled(root: psutil.Process, role: str) -> list[psutil.Process]:
    """Those children of trac-spawn's master that are a "worker", "template" or "spare"."""
    found = []
    for child in root.children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if " ".join(child.cmdline()).startswith(f"trac-spawn: {role} "):
                found.append(child)
    return found


def titled_workers(root: psutil.Process) -> list[psutil.Process]:
    return titled(root, "worker")


def has_spare(root: psutil.Process) -> bool:
    """trac-spawn forks one once all workers are those that stay."""
    return bool(titled(root, "spare"))


@dataclass(frozen=True)
class Peer:
    name: str
    title: str
    command: Command
    #: Its name on PyPI, for the venv and for its version; empty when it comes with Trac or us.
    distribution: str = ""
    #: Runs in the venv for the peers, not in the project's own.
    in_venv: bool = True
    #: Programs that it needs, and Debian's packages that have them.
    programs: Mapping[str, str] = field(default_factory=dict)
    #: What the front end speaks to it: fastcgi, fastcgi-kept (connections stay open),
    #: uwsgi, http, or tcp (HTTP to a port).
    protocol: str = "fastcgi"
    #: Variables of its processes; ``{mount}`` is filled in.
    variables: Mapping[str, str] = field(default_factory=dict)
    #: Its command ends once the servers run, and has written their pids to ``Job.pidfile``.
    detaches: bool = False
    #: Finds, from its root process, those that are replaced when they die; None: none is.
    respawning: Optional[Workers] = None
    #: Whether it is done with replacing those that it has started with; None: it does not do that.
    settled: Optional[Callable[[psutil.Process], bool]] = None
    #: Can be told how many workers to have.
    scales: bool = True
    #: Serves any WSGI application, not Trac alone.
    any_application: bool = True

    def served(self, pages: Iterable[Page]) -> list[Page]:
        return [page for page in pages if self.any_application or page.application == TRAC]


def ours(*options: str) -> Command:
    def command(job: Job) -> list[str]:
        served = ["--env", str(job.env)] if job.env else ["--app", job.target]
        command = [sys.executable, "-m", "spawner", "-n", str(job.workers), "-s", str(job.socket)]
        return [*command, *served, "--log-level", "warning", *options]

    return command


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
    # Loaded once and forked (no --lazy-apps), one interpreter, nothing written for a request.
    return [
        str(venv / "bin" / "uwsgi"), "--master", "--single-interpreter", "--need-app",
        "--die-on-term", "--disable-logging", "--thunder-lock",
        "--home", str(venv), "--processes", str(job.workers),
        "--socket", str(job.socket), "--module", job.target,
    ]  # fmt: skip


def _gunicorn(job: Job) -> list[str]:
    # Preloading shares what it can and costs nothing; heartbeats on a disk would, says its FAQ.
    options = ["--preload", "--worker-tmp-dir", "/dev/shm", "--workers", str(job.workers)]
    return [str(job.python), "-m", "gunicorn", *options, "--bind", f"unix:{job.socket}", job.target]


def _mod_wsgi(job: Job) -> list[str]:
    return ["apache2", "-D", "FOREGROUND", "-f", str(modwsgi.write(job))]


def _tracd(job: Job) -> list[str]:
    address = ["--hostname", "127.0.0.1", "--port", str(job.port), "--base-path", job.mount]
    return [sys.executable, "-m", "trac.web.standalone", *address, "--single-env", str(job.env)]


_SPAWN_FCGI = {"spawn-fcgi": "spawn-fcgi"}
PEERS = (
    Peer(
        "trac-spawn",
        "trac-spawn",
        ours(),
        in_venv=False,
        respawning=titled_workers,
        settled=has_spare,
    ),
    Peer(
        "trac-fcgi",
        "Trac's FastCGI",
        _under_spawn_fcgi("trac_fcgi"),
        programs=_SPAWN_FCGI,
        detaches=True,
    ),
    Peer(
        "tracd",
        "tracd",
        _tracd,
        in_venv=False,
        protocol="tcp",
        scales=False,
        any_application=False,
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
        programs=_SPAWN_FCGI,
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
    Peer(
        "mod-wsgi",
        "mod_wsgi",
        _mod_wsgi,
        distribution="mod_wsgi",
        programs={"apache2": "apache2", "apxs": "apache2-dev"},
        protocol="tcp",
        respawning=modwsgi.daemons,
    ),
)
OURS = PEERS[0]


def named(names: Iterable[str]) -> tuple[Peer, ...]:
    """Those peers in the table's order; all when no name is given."""
    wanted = set(names)
    return tuple(peer for peer in PEERS if not wanted or peer.name in wanted)

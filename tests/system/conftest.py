"""Fixtures of the system tests. Whatever they start is ended by pid, also when a test fails."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from . import tracenv
from .pools import ROOT, Spawner, public_code
from .processes import Leftover, Supervisor, adopt_orphans
from .webservers import WebServers

SUPERVISOR = pytest.StashKey[Supervisor]()
FAILED = pytest.StashKey[bool]()
#: As much of a log as helps; the whole one stays in the directory.
LOG_SHOWN = 20_000


@pytest.fixture(scope="session", autouse=True)
def _orphans_come_here() -> None:
    adopt_orphans()


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_heard() -> None:
    """A shell has what it starts with "&" ignore them, and so would all that the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def session_dir(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory that all users can reach, with a path short enough for Unix sockets (107)."""
    path = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    if not request.session.stash.get(FAILED, False):
        shutil.rmtree(path)


@pytest.fixture
def tmp_path(session_dir: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """In place of pytest's own, which is long and closed to other users; kept on failure."""
    name = request.node.name.partition("[")[0][5:29]
    path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=session_dir))
    path.chmod(0o777)
    yield path
    if not request.node.stash.get(FAILED, False):
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def supervisor(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Supervisor]:
    """Starts any program; at the end nothing of it is left, or the test fails."""
    logs = tmp_path / "logs"
    logs.mkdir()
    supervisor = request.node.stash[SUPERVISOR] = Supervisor(logs)
    yield supervisor
    try:
        supervisor.finish()
    except Leftover:
        # The report of this comes after the directory's own finalizer, which must know.
        remember_failure(request.node)
        raise


@pytest.fixture
def spawn(supervisor: Supervisor, tmp_path: Path) -> Spawner:
    """Start trac-spawn: ``pool = spawn("-n", 2, "--env", trac_env)``."""
    return Spawner(supervisor, tmp_path, ROOT)


@pytest.fixture
def webservers(supervisor: Supervisor, tmp_path: Path) -> WebServers:
    """Start lighttpd, nginx, Apache, HAProxy and Caddy: ``webservers.nginx(config).browser().get("/")``."""
    return WebServers(supervisor, tmp_path, ROOT)


@pytest.fixture(scope="session")
def other_user() -> str:
    """An unprivileged user to become; for tests that need root, which must ask for it."""
    for name in ("www-data", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise AssertionError("there is neither www-data nor nobody here")


@pytest.fixture(scope="session")
def _public_code(session_dir: Path, other_user: str) -> Path:
    return public_code(other_user, session_dir)


@pytest.fixture
def spawn_as_root(supervisor: Supervisor, tmp_path: Path, _public_code: Path) -> Spawner:
    """As ``spawn``, with code that ``other_user`` can read; only where the tests run as root."""
    assert os.geteuid() == 0
    return Spawner(supervisor, tmp_path, _public_code)


@pytest.fixture(scope="session")
def pristine_env(session_dir: Path) -> Path:
    """The environment that the others are copies of. Nothing ever serves it."""
    return tracenv.make(session_dir / "pristine")


@pytest.fixture(scope="session")
def trac_env(session_dir: Path, pristine_env: Path) -> Path:
    """An environment for tests that only read; anonymous is TRAC_ADMIN."""
    return tracenv.copy(pristine_env, session_dir / "env")


@pytest.fixture
def own_env(tmp_path: Path, pristine_env: Path) -> Path:
    """An environment for the test to change."""
    return tracenv.copy(pristine_env, tmp_path / "env")


@pytest.fixture(scope="session")
def trac_parent(session_dir: Path, pristine_env: Path) -> Path:
    """A directory with two environments: ``one`` ("Project One") and ``two`` ("Project Two")."""
    parent = session_dir / "projects"
    parent.mkdir()
    for name in ("one", "two"):
        tracenv.copy(pristine_env, parent / name, f"Project {name.title()}")
    # trac-admin leaves its history here, which is no environment.
    for stray in parent.iterdir():
        if not (stray / "VERSION").exists():
            stray.unlink()
    parent.chmod(0o777)
    return parent


def remember_failure(item: pytest.Item) -> None:
    item.stash[FAILED] = item.session.stash[FAILED] = True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of whatever a failed test had started, and say where it all is."""
    report = yield
    supervisor = item.stash.get(SUPERVISOR, None)
    if report.failed:
        remember_failure(item)
    if report.failed and supervisor is not None:
        for program in supervisor.programs:
            if program.log_path.exists():
                report.sections.append((f"log of {program!r}", program.log[-LOG_SHOWN:]))
        report.sections.append(("kept", str(supervisor.directory.parent)))
    return report

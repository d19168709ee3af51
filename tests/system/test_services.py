"""What is printed for systemd, SysV init, logrotate and tmpfiles.d, used as it is."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .pools import Spawner, base_environment
from .printed import text_for
from .processes import PATIENCE, Supervisor, gone, wait_gone, wait_until
from .visits import APP, get

UNITS = {
    "service": "trac-spawn.service",
    "socket": "trac-spawn.socket",
    "template": "trac-spawn@.service",
    "template-socket": "trac-spawn@.socket",
}


def run(*words: object, directory: Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, words)),
        env=base_environment(directory),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=4 * PATIENCE,
        **options,  # type: ignore[call-overload]
    )


def values(unit: str, key: str) -> list[str]:
    joined = unit.replace("\\\n", " ")
    return re.findall(rf"^{key}=(.*)$", joined, re.MULTILINE)


# -- systemd -------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["", "www-data"])
def test_systemd_finds_nothing_to_say(tmp_path: Path, trac_env: Path, user: str) -> None:
    options = ["--", "--env", trac_env, "-s", "/run/trac/trac.sock", "-G", "www-data"]
    options += ["--user", user] if user else []
    for form, name in UNITS.items():
        (tmp_path / name).write_text(text_for("systemd", "--form", form, *options))
    (tmp_path / "trac-spawn@project.service").symlink_to("trac-spawn@.service")
    (tmp_path / "trac-spawn@project.socket").symlink_to("trac-spawn@.socket")
    names = ["trac-spawn.service", "trac-spawn.socket"]
    names += ["trac-spawn@project.service", "trac-spawn@project.socket"]
    done = run("systemd-analyze", "verify", "--man=no", *names, directory=tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_command_of_the_service_starts_and_reloads_the_pool(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    socket, control = tmp_path / "trac.sock", tmp_path / "control"
    options = ("-s", socket, "--control", control, "-n", 1, "--max-requests", 500, "--no-template")
    unit = text_for("systemd", "--", *APP, *options)
    (start,), (reload,) = values(unit, "ExecStart"), values(unit, "ExecReload")
    service = supervisor.start(shlex.split(start), "service", env=base_environment(tmp_path))
    service.wait_for_line(r"ready: 1 worker")
    assert get(str(socket), "/echo?id=1").startswith("id=1 ")
    assert "--max-requests 500" in start and "--no-template" in start
    done = run(*shlex.split(reload), directory=tmp_path)
    assert done.returncode == 0, done.stdout
    assert service.stop() == 0


def test_the_socket_is_the_one_that_the_service_listens_on(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    options = ("--", *APP, "-s", tmp_path / "trac.sock", "--control", tmp_path / "control", "-n", 1)
    (where,) = values(text_for("systemd", "--form", "socket", *options), "ListenStream")
    (start,) = values(text_for("systemd", *options), "ExecStart")
    command = ["systemd-socket-activate", "-E", "PATH", "-E", "PYTHONPATH", "-l", where]
    service = supervisor.start([*command, *shlex.split(start)], "service", env=base_environment(tmp_path))
    service.wait_for_line("Listening on ")  # bound is not yet open to visitors
    assert get(where, "/echo?id=1").startswith("id=1 ")
    assert service.stop() == 0


# -- SysV init -----------------------------------------------------------------------------------


class InitScript:
    """The printed script, with the folders of a test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.conf = directory / "etc"
        self.conf.mkdir()
        self.run = directory / "run"
        self.path = directory / "init.d"
        self.path.write_text(text_for("sysv", "--conf-dir", self.conf, "--run-dir", self.run))
        self.path.chmod(0o755)

    def add(self, name: str, more: str = "") -> Path:
        """An instance; where it listens."""
        socket = self.directory / f"{name}.sock"
        text = f"[trac-spawn]\nsocket = {socket}\napp = {APP[1]}\nworkers = 1\n{more}"
        (self.conf / f"{name}.conf").write_text(text)
        return socket

    def __call__(self, *words: str) -> int:
        done = run(self.path, *words, directory=self.directory)
        self.said = done.stdout
        return done.returncode

    def pid(self, name: str) -> int:
        return int((self.run / f"{name}.pid").read_text())


@pytest.fixture
def init(tmp_path: Path) -> Iterator[InitScript]:
    script = InitScript(tmp_path)
    yield script
    for file in script.run.glob("*.pid"):
        pid = int(file.read_text())
        if not gone(pid):
            psutil.Process(pid).terminate()
            wait_gone([pid])


def test_shellcheck_finds_nothing_to_say(init: InitScript, tmp_path: Path, trac_env: Path) -> None:
    wrapper = tmp_path / "trac.fcgi"
    wrapper.write_text(text_for("trac.fcgi", "--", "--env", trac_env, "--user", "nobody"))
    done = run("shellcheck", init.path, wrapper, directory=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_life_of_an_instance(init: InitScript) -> None:
    socket = init.add("trac")
    assert (init("status"), init("reload"), init("stop"), init("try-restart")) == (3, 7, 0, 0)
    assert init("start") == 0, init.said
    first = init.pid("trac")
    assert get(str(socket), "/echo?id=1").startswith("id=1 ")
    assert (init("status"), init("start"), init("reload")) == (0, 0, 0), init.said
    assert init.pid("trac") == first
    assert init("restart") == 0, init.said
    assert init.pid("trac") != first and gone(first)
    assert get(str(socket), "/echo?id=2").startswith("id=2 ")
    psutil.Process(init.pid("trac")).kill()
    wait_gone([init.pid("trac")])
    assert init("status") == 1
    assert (init("start"), init("stop"), init("status")) == (0, 0, 3), init.said
    assert (init(), init("dance"), init("start", "unknown")) == (2, 2, 6)


def test_several_instances_and_one_that_is_broken(init: InitScript) -> None:
    sockets = [init.add(name) for name in ("one", "two")]
    assert init("start") == 0, init.said
    before = [init.pid("one"), init.pid("two")]
    init.add("one", "nonsense = 1\n")
    assert init("configtest", "two") == 0
    assert init("configtest") != 0 and "one.conf:5: unknown key 'nonsense'" in init.said
    # What would not start again goes on, and the other is restarted.
    assert init("restart") != 0
    assert init.pid("one") == before[0] and init.pid("two") != before[1]
    for socket in sockets:
        assert get(str(socket), "/echo?id=3").startswith("id=3 ")
    assert init("stop") == 0


# -- files ---------------------------------------------------------------------------------------


def test_logrotate_rotates_and_the_log_goes_on(spawn: Spawner, tmp_path: Path) -> None:
    logs = tmp_path / "log"
    logs.mkdir(mode=0o755)
    log = logs / "pool.log"
    pool = spawn(*APP, "-n", 1, "--log-file", log, ready=False)
    wait_until(lambda: log.exists() and "ready: 1 worker" in log.read_text())
    config = tmp_path / "logrotate.conf"
    config.write_text(text_for("logrotate", pool=pool))
    config.chmod(0o644)
    done = run("logrotate", "-f", "-s", tmp_path / "state", config, directory=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "ready: 1 worker" in (logs / "pool.log.1").read_text()
    psutil.Process(pool.workers()[0].pid).kill()
    wait_until(lambda: log.exists() and "died" in log.read_text(), what="line in the new file")


def test_tmpfiles_makes_the_folder(tmp_path: Path) -> None:
    config = tmp_path / "trac.conf"
    config.write_text(text_for("tmpfiles", "--", *APP, "-s", "/run/trac/trac.sock", "--user", "nobody"))
    root = tmp_path / "root"
    root.mkdir()
    (root / "etc").mkdir()
    for name in ("passwd", "group"):
        (root / "etc" / name).write_bytes(Path("/etc", name).read_bytes())
    done = run("systemd-tmpfiles", "--create", f"--root={root}", config, directory=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    made = root / "run" / "trac"
    assert made.is_dir() and (made.stat().st_mode & 0o777) == 0o755
    if os.geteuid() == 0:
        assert made.owner() == "nobody"

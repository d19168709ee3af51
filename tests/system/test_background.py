"""-D: the exit status is that of the start, the pool goes on in the background."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from .pools import BIN, Pool, Spawner, base_environment
from .processes import PATIENCE, descendants, title, wait_gone, wait_until
from .visits import APP, get


def start(spawn: Spawner, tmp_path: Path, *options: object) -> tuple[Pool, int]:
    """The launcher, which has ended with 0, and the pid of the daemon it has left behind."""
    pidfile = tmp_path / "pool.pid"
    pool = spawn("-D", "-P", pidfile, *options, ready=False)
    assert pool.wait_exit() == 0, pool.log
    return pool, int(pidfile.read_text())


def end(pid: int) -> None:
    family = [pid, *(process.pid for process in descendants(pid))]
    os.kill(pid, signal.SIGTERM)
    wait_gone(family)


def test_it_is_ready_when_the_command_has_ended(spawn: Spawner, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pool, pid = start(spawn, tmp_path, "-n", 2, *APP, "--log-file", log)
    try:
        assert get(pool, "/echo?id=first").startswith("id=first")
        assert "ready: 2 workers" in log.read_text()
        daemon = psutil.Process(pid)
        assert daemon.terminal() is None
        assert os.getsid(pid) != os.getsid(0)
        for process in [daemon, *daemon.children()]:
            for fd in (0, 1, 2):
                assert os.readlink(f"/proc/{process.pid}/fd/{fd}") == "/dev/null"
    finally:
        end(pid)
    assert not pool.socket.exists()
    assert not (tmp_path / "pool.pid").exists()
    assert "stopped" in log.read_text()
    assert pool.log.count("\n") <= 1  # the warning about root


def test_whoever_reads_its_output_to_the_end_does_not_wait_for_the_daemon(
    spawn: Spawner, tmp_path: Path
) -> None:
    """As ssh and $(...) do."""
    pidfile = tmp_path / "pid"
    for mode in ([], ["--no-template"]):
        words = [BIN / "trac-spawn", "-D", "-P", pidfile, "-s", tmp_path / "x.sock", "-n", 2, *APP, *mode]
        done = subprocess.run(
            [str(word) for word in words],
            env=base_environment(tmp_path, spawn.code),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
        )
        assert done.returncode == 0
        end(int(pidfile.read_text()))


def test_without_a_log_file_it_still_works(spawn: Spawner, tmp_path: Path) -> None:
    pool, pid = start(spawn, tmp_path, "-n", 1, *APP)
    try:
        get(pool, "/echo")
        # Its stderr is gone; writing there must not matter.
        os.kill(pid, signal.SIGTTIN)
        workers = "trac-spawn: worker"
        wait_until(lambda: sum(title(one).startswith(workers) for one in psutil.Process(pid).children()) == 2)
    finally:
        end(pid)


@pytest.mark.parametrize(
    "source, status, words",
    [
        ("import missing_module\n", 70, "No module named 'missing_module'"),
        ("raise RuntimeError('no luck')\n", 70, "RuntimeError: no luck"),
        ("application = 5\n", 65, "is not callable"),
    ],
)
def test_a_failed_start_is_the_commands_status_and_message(
    spawn: Spawner, tmp_path: Path, source: str, status: int, words: str
) -> None:
    (tmp_path / "broken.py").write_text(source)
    pool = spawn("-D", "-P", tmp_path / "pid", "--app", "broken:application", ready=False)
    assert pool.wait_exit() == status
    assert words in pool.log
    wait_until(lambda: not descendants())
    assert not pool.socket.exists()
    assert not (tmp_path / "pid").exists()


def test_a_second_one_with_the_same_pid_file_is_refused(spawn: Spawner, tmp_path: Path) -> None:
    first, pid = start(spawn, tmp_path, "-n", 1, *APP)
    try:
        second = spawn("-D", "-P", tmp_path / "pool.pid", *APP, ready=False)
        assert second.wait_exit() == os.EX_UNAVAILABLE
        assert f"is held by process {pid}" in second.log
        get(first, "/echo")
    finally:
        end(pid)


def test_a_signal_during_start_up_stops_it(spawn: Spawner, tmp_path: Path) -> None:
    (tmp_path / "slowapp.py").write_text("import time\ntime.sleep(600)\n")
    pidfile = tmp_path / "pid"
    pool = spawn("-D", "-P", pidfile, "--app", "slowapp:application", ready=False)
    wait_until(lambda: pidfile.exists() and pool.socket.exists())
    os.kill(int(pidfile.read_text()), signal.SIGTERM)
    assert pool.wait_exit() != 0
    wait_until(lambda: not descendants())
    assert not pool.socket.exists()
    assert not pidfile.exists()

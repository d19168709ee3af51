"""USR1 opens log files again after they were rotated: the program's own and Trac's."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from .pools import MODES, Pool, Spawner
from .processes import wait_until
from .tracenv import configure
from .visits import APP, Visit, get

ONE_LINE_A_REQUEST = """
import logging
log = logging.getLogger("trac-spawn")

def application(environ, start_response):
    log.warning("a visit to %s", environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"seen"]
"""


def open_files(pool: Pool) -> dict[int, set[str]]:
    """What each process of the pool has open, by pid."""
    found: dict[int, set[str]] = {}
    for member in pool.members():
        folder = f"/proc/{member.pid}/fd"
        found[member.pid] = {os.readlink(f"{folder}/{name}") for name in os.listdir(folder)}
    return found


def rotate(pool: Pool, path: Path) -> Path:
    old = path.with_name(path.name + ".1")
    path.rename(old)
    pool.signal(signal.SIGUSR1)
    wait_until(lambda: path.exists() and nobody_has(pool, old), what=f"nobody with {old} open")
    return old


def nobody_has(pool: Pool, path: Path) -> bool:
    try:
        return not any(str(path) in files for files in open_files(pool).values())
    except FileNotFoundError:
        return False  # a process that has just ended, or a descriptor


@MODES
def test_the_own_log(spawn: Spawner, tmp_path: Path, mode: list[str]) -> None:
    (tmp_path / "visits.py").write_text(ONE_LINE_A_REQUEST)
    log = tmp_path / "spawn.log"
    pool = spawn("-n", 2, "--app", "visits:application", "--log-file", log, *mode, ready=False)
    wait_until(lambda: log.exists() and "ready: 2 workers" in log.read_text())
    get(pool, "/before")
    old = rotate(pool, log)
    get(pool, "/after")
    wait_until(lambda: "a visit to /after" in log.read_text())
    assert "a visit to /before" in old.read_text()
    assert "a visit to /after" not in old.read_text()
    assert "log files opened again" in log.read_text()
    # Those that are born later write to the new one too.
    os.kill(pool.workers()[0].pid, signal.SIGKILL)
    wait_until(lambda: "died: SIGKILL" in log.read_text())
    pool.wait_workers(2, "idle")
    assert nobody_has(pool, old)
    assert pool.stop() == 0
    assert pool.log == ""


def test_the_own_log_with_another_user(
    spawn_as_root: Spawner, tmp_path: Path, other_user: str
) -> None:
    folder = tmp_path / "log"
    folder.mkdir(mode=0o700)  # the workers cannot even look into it
    log = folder / "spawn.log"
    pool = spawn_as_root("-n", 2, "-u", other_user, *APP, "--log-file", log, ready=False)
    wait_until(lambda: log.exists() and "ready: 2 workers" in log.read_text())
    rotate(pool, log)
    assert log.stat().st_uid == 0  # the workers are given the open file, not the right to it
    Visit(pool, "/raise?message=after").join()
    wait_until(lambda: "RuntimeError: after" in log.read_text())
    assert pool.stop() == 0


def test_a_device_is_not_given_away(spawn_as_root: Spawner, other_user: str) -> None:
    before = os.stat("/dev/null").st_uid
    pool = spawn_as_root(
        "-n", 1, "-u", other_user, *APP, "--log-file", "/dev/null", "-P", "pid", ready=False
    )
    wait_until(lambda: pool.workers("idle"))
    assert os.stat("/dev/null").st_uid == before
    assert pool.stop() == 0


@pytest.mark.parametrize("user", [False, True], ids=["same-user", "other-user"])
def test_tracs_own_log(
    spawn_as_root: Spawner, own_env: Path, other_user: str, user: bool
) -> None:
    configure(own_env, "logging", "log_type", "file")
    configure(own_env, "logging", "log_level", "DEBUG")
    log = own_env / "log" / "trac.log"
    if log.exists():
        log.unlink()
    (own_env / "log").chmod(0o777)
    as_user = ["-u", other_user] if user else []
    pool = spawn_as_root("-n", 2, *as_user, "--env", own_env)
    get(pool, "/wiki/WikiStart")
    assert log.exists()
    old = rotate(pool, log)
    size = old.stat().st_size
    get(pool, "/wiki/TracGuide")
    wait_until(lambda: "TracGuide" in log.read_text())
    assert old.stat().st_size == size
    assert pool.stop() == 0


def test_a_log_that_cannot_be_opened_again_is_kept(spawn: Spawner, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    pool = spawn("-n", 1, *APP, "--log-file", folder / "spawn.log", ready=False)
    wait_until(lambda: pool.workers("idle"))
    folder.rename(tmp_path / "elsewhere")
    pool.signal(signal.SIGUSR1)
    wait_until(lambda: "cannot open" in (tmp_path / "elsewhere" / "spawn.log").read_text())
    get(pool, "/echo")
    assert pool.stop() == 0


def test_a_full_disk_does_not_stop_the_pool(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, "--log-file", "/dev/full", ready=False)
    wait_until(lambda: pool.workers("idle"))
    os.kill(pool.workers()[0].pid, signal.SIGKILL)
    wait_until(lambda: pool.workers("idle"))
    get(pool, "/echo")
    assert pool.stop() == 0
    assert "Traceback" not in pool.log


TALKATIVE = """
import os, sys
def application(environ, start_response):
    print("printed for", environ["PATH_INFO"])
    print("to stderr for", environ["PATH_INFO"], file=sys.stderr)
    os.system("echo from a child")
    environ["wsgi.errors"].write("an error for %s" % environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"said"]
"""


@MODES
def test_what_workers_print_is_logged_with_who_said_it(
    spawn: Spawner, tmp_path: Path, mode: list[str]
) -> None:
    (tmp_path / "talkative.py").write_text(TALKATIVE)
    log = tmp_path / "spawn.log"
    pool = spawn(
        "-n", 1, "--app", "talkative:application", "--log-file", log, "--capture-output",
        "--wsgi-errors", "log", *mode, ready=False,
    )  # fmt: skip
    wait_until(lambda: log.exists() and "ready: 1 workers" in log.read_text())
    assert get(pool, "/here") == "said"
    who = f"worker 1 gen 1 (pid {pool.workers()[0].pid}) says: "
    for words in ("printed for /here", "to stderr for /here", "from a child"):
        wait_until(lambda words=words: f"INFO: {who}{words}\n" in log.read_text(), what=words)
    assert "ERROR: an error for /here (request " in log.read_text()
    assert pool.stop() == 0
    assert pool.log == ""


def test_the_own_log_of_a_captured_worker_goes_where_it_went(spawn: Spawner, tmp_path: Path) -> None:
    (tmp_path / "visits.py").write_text(ONE_LINE_A_REQUEST)
    pool = spawn("-n", 1, "--app", "visits:application", "--capture-output")
    get(pool, "/there")
    line = pool.wait_for_line("a visit to /there").string
    assert "says:" not in line and "(request " in line

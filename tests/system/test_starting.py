"""What can go wrong at the start: one clear message, the right status, nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
from pathlib import Path

import pytest

from .pools import MODES, Pool, Spawner
from .processes import descendants, wait_until
from .tracenv import copy
from .visits import APP, get


def fail(spawn: Spawner, *options: object, **more: object) -> Pool:
    pidfile = spawn.directory / "pid"
    pool = spawn("-n", 2, "-P", pidfile, *options, ready=False, **more)  # type: ignore[arg-type]
    pool.wait_exit()
    assert not pidfile.exists()
    assert not pool.socket.exists()
    assert descendants(pool.pid) == []
    return pool


def message(pool: Pool) -> str:
    """The one line that says why."""
    (line,) = [line for line in pool.log.splitlines() if line.startswith("trac-spawn: ")]
    return line


CASES = {
    "syntax": ("def application(:\n", 70, "importing broken failed: SyntaxError: "),
    "raises": ("raise RuntimeError('no luck')\n", 70, "RuntimeError: no luck$"),
    "import": ("import missing_module\n", 70, "No module named 'missing_module'"),
    "attribute": ("other = None\n", 65, "broken has no 'application'"),
    "callable": ("application = 5\n", 65, "'application' is not callable"),
    "exit": ("import os; os._exit(3)\n", 70, "died (early|before it was ready): exit status 3$"),
    "sysexit": ("import sys; sys.exit(4)\n", 70, "died (early|before it was ready): exit status 4$"),
    "crash": ("import os; os.abort()\n", 70, "died (early|before it was ready): SIGABRT$"),
}


@MODES
@pytest.mark.parametrize("case", CASES)
def test_an_application_that_cannot_be_loaded(
    spawn: Spawner, tmp_path: Path, mode: list[str], case: str
) -> None:
    source, status, words = CASES[case]
    (tmp_path / "broken.py").write_text(source)
    pool = fail(spawn, "--app", "broken:application", *mode)
    assert pool.wait_exit() == status
    assert re.search(words, message(pool))
    # Foreign code that fails for reasons of its own is told with its traceback, once.
    told = pool.log.count("Traceback (most recent call last)")
    assert told == (1 if case in ("syntax", "raises") else 0)


def test_a_module_that_is_not_there(spawn: Spawner) -> None:
    pool = fail(spawn, "--app", "nosuchmodule:application")
    assert pool.wait_exit() == 70
    assert "No module named 'nosuchmodule'" in message(pool)
    assert "Traceback" not in pool.log


def test_debug_shows_the_traceback(spawn: Spawner) -> None:
    pool = fail(spawn, "--app", "nosuchmodule:application", "--debug")
    assert pool.wait_exit() == 70
    assert "Traceback (most recent call last)" in pool.log
    assert "No module named 'nosuchmodule'" in message(pool)


@MODES
def test_an_environment_that_needs_an_upgrade(spawn: Spawner, own_env: Path, mode: list[str]) -> None:
    connection = sqlite3.connect(own_env / "db" / "trac.db")
    connection.execute("UPDATE system SET value = 40 WHERE name = 'database_version'")
    connection.commit()
    connection.close()
    pool = fail(spawn, "--env", own_env, *mode)
    assert pool.wait_exit() == os.EX_CONFIG
    assert re.search(rf'trac-admin "?{own_env}"? upgrade', message(pool))
    assert "Traceback" not in pool.log


def test_an_environment_that_the_user_may_not_read(
    spawn_as_root: Spawner, pristine_env: Path, tmp_path: Path, other_user: str
) -> None:
    env = copy(pristine_env, tmp_path / "closed")
    env.chmod(0o700)
    pool = fail(spawn_as_root, "--env", env, "-u", other_user)
    assert pool.wait_exit() == os.EX_NOPERM
    assert "Permission denied" in message(pool) and str(env) in message(pool)
    assert "Traceback" not in pool.log


def test_a_broken_configuration(spawn: Spawner, own_env: Path) -> None:
    (own_env / "conf" / "trac.ini").write_text("[trac\nnonsense\n")
    pool = fail(spawn, "--env", own_env)
    assert pool.wait_exit() != 0
    assert "trac.ini" in message(pool)


def test_where_it_cannot_listen(spawn: Spawner, tmp_path: Path) -> None:
    pool = fail(spawn, "-s", tmp_path / "no" / "such" / "dir" / "x.sock", *APP, listen=False)
    assert pool.wait_exit() == os.EX_CANTCREAT
    assert "there is no directory" in message(pool)


def test_where_somebody_else_listens(spawn: Spawner) -> None:
    first = spawn("-n", 1, *APP)
    second = spawn("-s", first.socket, *APP, listen=False, ready=False)
    assert second.wait_exit() == os.EX_UNAVAILABLE
    assert f"{first.pid}" in message(second)
    get(first, "/echo")


# -- later failures, of a pool that has served ---------------------------------------------------

FRAGILE = """
import os
if os.path.exists("broken"):
    raise RuntimeError("broken for now")

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"whole"]
"""


@MODES
def test_a_pool_that_has_served_keeps_what_it_has_and_tries_again(
    spawn: Spawner, tmp_path: Path, mode: list[str]
) -> None:
    (tmp_path / "fragile.py").write_text(FRAGILE)
    pool = spawn("-n", 2, "--app", "fragile:application", *mode)
    (tmp_path / "broken").touch()
    if not mode:
        os.kill(pool.template().pid, signal.SIGKILL)
    os.kill(pool.workers()[0].pid, signal.SIGKILL)
    # In the one case the first failure is that of the worker which the template took with it.
    for delay in ("0.2", "0.4", "0.8"):
        line = pool.wait_for_line(rf"cannot start: .*broken for now; next try in {delay} s")
        assert "Traceback" not in line[0]
        assert get(pool, "/") == "whole"
    # Its own traceback, once and not at every try.
    assert pool.log.count("Traceback (most recent call last)") == 1
    assert pool.log.count("raise RuntimeError(\"broken for now\")") == 1
    (tmp_path / "broken").unlink()
    pool.wait_workers(2, "idle")
    assert pool.stop() == 0


def test_many_workers_of_one_try_fail_as_one(spawn: Spawner, tmp_path: Path) -> None:
    (tmp_path / "fragile.py").write_text(FRAGILE)
    pool = spawn("-n", 6, "--app", "fragile:application", "--no-template")
    (tmp_path / "broken").touch()
    for worker in pool.workers():
        os.kill(worker.pid, signal.SIGKILL)
    pool.wait_for_line("next try in 0.1 s")
    pool.wait_for_line("next try in 0.4 s")
    (tmp_path / "broken").unlink()
    pool.wait_workers(6, "idle")
    # Each of the six doubling it, the delay would have passed ten seconds in the second round.
    assert max(map(float, re.findall(r"next try in (\d+\.\d) s", pool.log))) < 10.0


def test_a_template_that_dies_as_soon_as_it_is_ready_backs_off(spawn: Spawner, tmp_path: Path) -> None:
    (tmp_path / "mortal.py").write_text(
        "import os, signal\n"
        "os.register_at_fork(before=lambda: os.path.exists('broken') and os.kill(os.getpid(), 9))\n"
        + FRAGILE.replace("raise RuntimeError", "print")
    )
    pool = spawn("-n", 1, "--app", "mortal:application")
    (tmp_path / "broken").touch()
    os.kill(pool.workers()[0].pid, signal.SIGKILL)
    pool.wait_for_line("template gen 1 .* died: SIGKILL")
    for delay in ("0.1", "0.2", "0.4"):
        pool.wait_for_line(rf"; next try in {delay} s")
    (tmp_path / "broken").unlink()
    pool.wait_workers(1, "idle")


# -- fork safety ---------------------------------------------------------------------------------

SERVE = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served"]
"""

UNSAFE = {
    "thread": (
        "import threading\n"
        "threading.Thread(target=threading.Event().wait, name='cleaner', daemon=True).start()\n",
        r"1 thread\(s\) are running: cleaner",
    ),
    "connection": (
        "import os, socket\n"
        "connection = socket.create_connection(('127.0.0.1', int(os.environ['DATABASE_PORT'])))\n",
        r"a connection is open: descriptor \d+, to 127\.0\.0\.1 port \d+",
    ),
    "child": (
        # It ends when whoever has started it is gone.
        "import subprocess\nchild = subprocess.Popen(['cat'], stdin=subprocess.PIPE)\n",
        r"a child process is running: cat \(pid \d+\)",
    ),
    "database": (
        "import sqlite3\nconnection = sqlite3.connect('kept.db')\n"
        "connection.execute('CREATE TABLE IF NOT EXISTS t (x)')\n",
        r"a file is open for writing: /.*/kept\.db",
    ),
}


@pytest.mark.parametrize("case", UNSAFE)
def test_an_application_that_is_not_safe_to_fork(spawn: Spawner, tmp_path: Path, case: str) -> None:
    source, reason = UNSAFE[case]
    (tmp_path / "unsafe.py").write_text(source + SERVE)
    with socket.create_server(("127.0.0.1", 0)) as database:
        env = {"DATABASE_PORT": str(database.getsockname()[1])}
        pool = spawn("-n", 2, "--app", "unsafe:application", env=env)
        pool.wait_for_line(
            rf"WARNING: template gen 1 .*: the loaded application is not safe to fork, .*: {reason}$"
        )
        wait_until(lambda: not pool.members("template"))
        assert len(pool.workers()) == 2
        assert get(pool, "/") == "served"
        os.kill(pool.workers()[0].pid, signal.SIGKILL)
        pool.wait_for_line("died: SIGKILL")
        pool.wait_workers(2, "idle")
        assert pool.log.count("not safe to fork") == 1
        assert pool.stop() == 0


@pytest.mark.parametrize("case", ["sigchld", "prints"])
def test_applications_with_ways_of_their_own(spawn: Spawner, tmp_path: Path, case: str) -> None:
    sources = {
        "sigchld": "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n",
        "prints": "import sys\nsys.stdout.write('loaded once\\n')\n",
    }
    (tmp_path / "own.py").write_text(sources[case] + SERVE)
    pool = spawn("-n", 3, "--app", "own:application")
    for _ in range(3):
        os.kill(pool.workers()[0].pid, signal.SIGKILL)
        wait_until(lambda: len(pool.workers("idle")) == 3)
    assert get(pool, "/") == "served"
    assert pool.stop() == 0
    assert "template gen 2" not in pool.log
    if case == "prints":
        assert pool.log.count("loaded once") == 1


def test_trac_itself_is_safe_to_fork(spawn: Spawner, trac_env: Path) -> None:
    pool = spawn("-n", 2, "--env", trac_env)
    assert "not safe to fork" not in pool.log
    assert pool.template().state == ""
    assert "WikiStart" in get(pool, "/wiki/WikiStart")


def test_trac_without_a_template(spawn: Spawner, trac_env: Path) -> None:
    pool = spawn("-n", 2, "--env", trac_env, "--no-template")
    assert pool.members("template") == []
    assert "WikiStart" in get(pool, "/wiki/WikiStart")

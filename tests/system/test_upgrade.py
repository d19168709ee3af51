"""An upgrade: the program is started anew and takes over the sockets, or nothing changes."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import sys
import textwrap
from pathlib import Path
from typing import Callable

import psutil
import pytest

from ..notify import Manager
from .clients import Load, fcgi_load
from .control import ask, end, refused, upgrade
from .pools import MODES, Pool, Spawner, descriptors_by_role, no_more
from .processes import wait_gone, wait_until
from .tracenv import GREETING
from .visits import APP, Visit, busy_visit, get, kept_open_load, serving_pid

PROGRAM = f"""#!{sys.executable}
import spawner
spawner.__version__ = "1.0"
from spawner.cli import main
main()
"""


def programmed(spawn: Spawner, tmp_path: Path, text: str, *options: object) -> Pool:
    """A pool of a program of its own, which a test can change."""
    program = tmp_path / "program"
    install(program, text)
    return spawn("-n", 2, *APP, *options, command=str(program))


def install(program: Path, text: str) -> None:
    """As pip does: another file in its place."""
    fresh = program.with_suffix(".new")
    fresh.write_text(textwrap.dedent(text))
    fresh.chmod(0o755)
    fresh.rename(program)


def pids(pool: Pool) -> set[int]:
    return {member.pid for member in pool.members()}


@MODES
@pytest.mark.parametrize("load_of", [fcgi_load, kept_open_load], ids=["connect", "kept-open"])
def test_five_upgrades_under_load_lose_nothing(
    spawn: Spawner, load_of: Callable[[Path], Load], mode: list[str]
) -> None:
    pool = spawn("-n", 2, *APP, *mode)
    masters = [pool.pid]
    with load_of(pool.socket) as load:
        load.wait_for(50)
        for _ in range(5):
            masters.append(upgrade(pool))
            load.wait_for(20)
    load.check(100)
    assert len(set(masters)) == 6
    wait_gone(masters[:-1])
    assert pool.wait_exit() == 0
    end(pool, masters[-1])


def test_the_signal_the_pid_file_and_who_answers(spawn: Spawner, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    pool = programmed(spawn, tmp_path, PROGRAM, "-P", pidfile)
    install(tmp_path / "program", PROGRAM.replace("1.0", "2.0"))
    os.kill(pool.pid, signal.SIGUSR2)
    assert pool.wait_exit() == 0
    successor = int(pidfile.read_text())
    assert successor != pool.pid
    master = ask(pool, "status")["master"]
    assert (master["version"], master["pid"]) == ("2.0", successor)
    assert all(one["error"] is None for one in ask(pool, "ping")["addresses"])
    assert peer_pid(pool.socket) == successor
    # Nobody else can take the file or the socket.
    second = spawn("-n", 1, "-P", pidfile, *APP, ready=False)
    assert second.wait_exit() == os.EX_UNAVAILABLE
    third = spawn("-s", pool.socket, "-n", 1, *APP, listen=False, ready=False)
    assert third.wait_exit() == os.EX_UNAVAILABLE
    end(pool, successor)
    assert not pidfile.exists()


def peer_pid(path: Path) -> int:
    """Who listens there, as SO_PEERCRED has it."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        found: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return found


BROKEN = {
    "syntax error": (f"#!{sys.executable}\nthis is no Python\n", "SyntaxError"),
    "import error": (f"#!{sys.executable}\nimport no_such_module\n", "No module named 'no_such_module'"),
    "exit": ("#!/bin/sh\necho out of order >&2\nexit 3\n", "exit status 3: out of order"),
    "killed": ("#!/bin/sh\nkill -9 $$\n", "SIGKILL"),
    "no interpreter": ("#!/no/such/interpreter\n", r"or its interpreter\): No such file"),
    "another program": ("#!/bin/sh\nexit 0\n", "exit status 0"),
}


@pytest.mark.parametrize("text, reason", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_program_changes_nothing(
    spawn: Spawner, tmp_path: Path, text: str, reason: str
) -> None:
    pidfile = tmp_path / "pid"
    pool = programmed(spawn, tmp_path, PROGRAM, "-P", pidfile)
    before = pids(pool)
    install(tmp_path / "program", text)
    with fcgi_load(pool.socket) as load:
        load.wait_for(10)
        said = refused(pool, "upgrade", status=os.EX_SOFTWARE)
        load.wait_for(10)
    load.check()
    assert re.search(reason, said), said
    pool.wait_for_line("upgrade failed, nothing is changed: .*" + reason)
    assert pids(pool) == before
    assert int(pidfile.read_text()) == pool.pid
    install(tmp_path / "program", PROGRAM)
    end(pool, upgrade(pool))


def test_a_broken_configuration_changes_nothing(spawn: Spawner, tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.write_text("[trac-spawn]\nworkers = 1\n")
    pool = spawn(*APP, "-f", conf)
    before = pids(pool)
    conf.write_text("[trac-spawn]\nworkres = 1\n")
    assert "workres" in refused(pool, "upgrade", status=os.EX_USAGE)
    conf.write_text("[trac-spawn]\nworkers = 1\nuser = nobody-at-all\n")
    assert "nobody-at-all" in refused(pool, "upgrade", status=os.EX_NOUSER)
    assert pids(pool) == before and get(pool, "/echo")
    assert pool.stop() == 0


def test_a_broken_application_changes_nothing(spawn: Spawner, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from tests.system.apps import application\n")
    pool = spawn("-n", 1, "--app", "mine:application", cwd=tmp_path)
    before = pids(pool)
    (tmp_path / "mine.py").write_text("from tests.system.apps import application, nothing_of_that_name\n")
    said = refused(pool, "upgrade", status=os.EX_SOFTWARE)
    assert "nothing_of_that_name" in said
    assert pids(pool) == before and get(pool, "/echo")
    assert pool.stop() == 0


def test_a_plugin_that_worked_is_not_taken_away(spawn: Spawner, own_env: Path) -> None:
    plugins = own_env / "plugins"
    (plugins / "hopeless.py").write_text("1 / 0\n")
    (plugins / "greeting.py").write_text(GREETING)
    pool = spawn("-n", 1, "--env", own_env)
    (plugins / "greeting.py").write_text("this is no Python\n")
    assert "SyntaxError" in refused(pool, "upgrade", status=os.EX_SOFTWARE)
    assert get(pool, "/greeting") == "hello from a plugin"
    (plugins / "greeting.py").write_text(GREETING)
    end(pool, upgrade(pool))


def test_one_pool_of_two_that_cannot_load_stops_the_upgrade(spawn: Spawner, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from tests.system.apps import application\n")
    conf = tmp_path / "conf"
    conf.write_text(
        f"[trac-spawn]\nworkers = 1\n[pool one]\nsocket = {tmp_path}/one\napp = {APP[1]}\n"
        f"[pool two]\nsocket = {tmp_path}/two\napp = mine:application\n"
    )
    pool = spawn("-f", conf, listen=False, cwd=tmp_path)
    (tmp_path / "mine.py").write_text("raise RuntimeError('not today')\n")
    assert "not today" in refused(pool, "upgrade", status=os.EX_SOFTWARE)
    assert get(f"{tmp_path}/one", "/echo") and get(f"{tmp_path}/two", "/echo")
    (tmp_path / "mine.py").write_text("from tests.system.apps import application\n")
    successor = upgrade(pool)
    assert pool.wait_exit() == 0
    assert get(f"{tmp_path}/one", "/echo") and get(f"{tmp_path}/two", "/echo")
    os.kill(successor, signal.SIGTERM)
    wait_gone([successor])


def test_a_worker_that_is_busy_finishes(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    visit = busy_visit(pool, "/sleep?seconds=1")
    successor = upgrade(pool)
    assert serving_pid(pool) in {child.pid for child in psutil.Process(successor).children()}
    visit.body()
    assert pool.wait_exit() == 0
    end(pool, successor)


def test_addresses_and_options_may_change(spawn: Spawner, tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.write_text(f"[trac-spawn]\nlisten = unix:{tmp_path}/old 127.0.0.1:0\nworkers = 1\n")
    pool = spawn(*APP, "-f", conf, listen=False)
    found = [one["address"] for one in ask(pool, "status")["pools"][0]["addresses"]]
    tcp = found[1].rpartition(":")[2]
    conf.write_text(f"[trac-spawn]\nlisten = unix:{tmp_path}/new 127.0.0.1:0\nworkers = 3\n")
    assert get(("127.0.0.1", int(tcp)), "/echo")
    visit = Visit(f"{tmp_path}/old", "/sleep?seconds=0.5")
    successor = upgrade(pool)
    visit.body()
    assert pool.wait_exit() == 0
    assert get(("127.0.0.1", int(tcp)), "/echo")
    assert not (tmp_path / "old").exists()
    assert get(f"{tmp_path}/new", "/echo")
    status = ask(pool, "status")["pools"][0]
    assert status["target"] == 3
    assert [one["address"] for one in status["addresses"]] == [f"unix:{tmp_path}/new", found[1]]
    os.kill(successor, signal.SIGTERM)
    wait_gone([successor])
    assert not (tmp_path / "new").exists()


def test_the_status_is_there_all_the_time(spawn: Spawner, tmp_path: Path) -> None:
    where = tmp_path / "status"
    options = ("--status-path", "/status", "--status-listen", f"unix:{where}")
    pool = spawn("-n", 1, *options, *APP)
    with fcgi_load(where, "/status?id={id}", pause=0.01) as load:
        successor = upgrade(pool)
        assert pool.wait_exit() == 0
        assert "pool:" in get(str(where), "/status")
    assert not [one for one in load.failures if "Error" in one.reason], load.failures
    assert peer_pid(where) == successor
    end(pool, successor)
    assert not where.exists()


def loading(spawn: Spawner, tmp_path: Path, **variables: str) -> tuple[Pool, int]:
    """A pool, and the new master whose template is still loading."""
    app = ("--app", "tests.system.slow:application")
    pool = spawn("-n", 1, "-P", tmp_path / "pid", *app, cwd=tmp_path, env=variables)
    (tmp_path / "slow").touch()
    os.kill(pool.pid, signal.SIGUSR2)
    wait_until(lambda: (tmp_path / "loading").exists())
    started = pool.wait_for_line(r"upgrading: started .* \(pid (\d+)\)")
    return pool, int(started[1])


def test_a_new_master_that_is_killed_changes_nothing(spawn: Spawner, tmp_path: Path) -> None:
    pool, successor = loading(spawn, tmp_path)
    assert "under way" in refused(pool, "upgrade", status=os.EX_TEMPFAIL)
    os.kill(successor, signal.SIGKILL)
    pool.wait_for_line("upgrade failed, nothing is changed: .*SIGKILL")
    (tmp_path / "slow").unlink()
    assert get(pool, "/echo") and int((tmp_path / "pid").read_text()) == pool.pid
    end(pool, upgrade(pool))


def test_a_stop_in_the_middle_ends_both(spawn: Spawner, tmp_path: Path) -> None:
    pool, successor = loading(spawn, tmp_path)
    assert pool.stop() == 0
    wait_gone([successor])
    assert not pool.socket.exists() and not (tmp_path / "pid").exists()


def test_a_master_that_is_killed_in_the_middle_leaves_nothing(spawn: Spawner, tmp_path: Path) -> None:
    manager = Manager(f"{tmp_path}/notify")
    pool, successor = loading(spawn, tmp_path, NOTIFY_SOCKET=manager.address)
    assert "READY" in manager.said()
    family = pool.descendants()
    os.kill(pool.pid, signal.SIGKILL)
    (tmp_path / "slow").unlink()
    wait_gone([process.pid for process in family])
    # The new one was not ready before, and is not when it ends for that reason.
    while not manager.is_silent():
        assert "READY" not in manager.said()
    manager.socket.close()
    again = spawn("-s", pool.socket, "-n", 1, *APP, listen=False)
    again.socket = pool.socket
    assert get(again, "/echo")
    assert again.stop() == 0


def test_the_daemon_stays_one(spawn: Spawner, tmp_path: Path) -> None:
    pidfile, log = tmp_path / "pid", tmp_path / "log"
    launcher = spawn("-n", 1, "-D", "-P", pidfile, "--log-file", log, *APP, ready=False)
    assert launcher.wait_exit() == 0
    old = int(pidfile.read_text())
    session = os.getsid(old)
    successor = upgrade(launcher)
    wait_gone([old])
    assert int(pidfile.read_text()) == successor
    assert os.getsid(successor) == session
    assert os.readlink(f"/proc/{successor}/fd/2") == os.devnull
    assert f"upgraded: process {successor} serves from now on" in log.read_text()
    end(launcher, successor)


def test_no_descriptor_is_left_open(spawn: Spawner) -> None:
    """Neither in a successor nor in its children: a socket that somebody still has never closes."""
    pool = spawn("-n", 1, *APP)
    pool.spare()
    before = descriptors_by_role(pool.pid)
    successor = pool.pid
    for _ in range(2):
        successor = upgrade(pool)
        wait_until(
            lambda pid=successor: no_more(descriptors_by_role(pid), before),  # type: ignore[misc]
            what=f"at most {before}",
        )
    end(pool, successor)


def test_what_cannot_be_upgraded_says_so(spawn: Spawner, tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "web"))
    listening.listen()
    with listening:
        os.set_inheritable(listening.fileno(), True)
        pool = spawn(
            listen=False, command="trac.fcgi", stdin=listening.fileno(), ready=False,
            env={"TRAC_FCGI_CHILDREN": "1", "TRAC_SPAWN_APP": APP[1]},
        )  # fmt: skip
        pool.wait_ready()
        assert "restart what started it" in refused(pool, "upgrade", status=os.EX_USAGE)
        assert pool.stop() == 0

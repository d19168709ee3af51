"""Several pools under one master: each with its own socket, user and application."""

from __future__ import annotations

import os
import pwd
import signal
from pathlib import Path

from . import tracenv
from .clients import fcgi_load
from .pools import Spawner
from .processes import wait_until
from .visits import get

APP = "app = tests.system.apps:application\n"


def section(name: str, socket: Path, *lines: str) -> str:
    return f"[pool {name}]\nsocket = {socket}\n" + "".join(line + "\n" for line in lines)


def test_each_serves_and_one_that_cannot_load_stops_nobody(spawn: Spawner, tmp_path: Path) -> None:
    file = tmp_path / "trac-spawn.conf"
    sockets = {name: tmp_path / f"{name}.sock" for name in ("good", "bad", "later")}
    file.write_text(
        "[trac-spawn]\nworkers = 2\n"
        + section("good", sockets["good"], "env[COLOUR] = green", "clear-env = yes", APP)
        + section("bad", sockets["bad"], "app = no_such_module:application")
    )
    pool = spawn("-f", file, listen=False, ready=False, env={"SECRET": "of the master"})
    pool.wait_for_line("ready: 2 workers")
    pool.wait_for_line("bad template gen 1 .*no_such_module")
    variables = get(str(sockets["good"]), "/variables")
    assert "COLOUR=green\n" in variables and "SECRET" not in variables
    with fcgi_load(sockets["good"]) as load:
        load.wait_for(10)
        # One is added, one removed; the third does not notice.
        file.write_text(
            "[trac-spawn]\nworkers = 2\n"
            + section("good", sockets["good"], "env[COLOUR] = green", "clear-env = yes", APP)
            + section("later", sockets["later"], APP)
        )
        os.kill(pool.pid, signal.SIGHUP)
        pool.wait_for_line("later worker 1 gen 1 .* ready")
        # Neither is another pool's business, and this one has not been told to forget.
        variables = get(str(sockets["later"]), "/variables")
        assert "COLOUR" not in variables and "SECRET=of the master\n" in variables
        wait_until(lambda: not sockets["bad"].exists())
        load.wait_for(10)
    load.check()
    assert pool.stop() == 0
    assert not any(socket.exists() for socket in sockets.values())


def test_when_none_can_load_the_program_ends(spawn: Spawner, tmp_path: Path) -> None:
    file = tmp_path / "trac-spawn.conf"
    file.write_text(
        section("one", tmp_path / "one.sock", "app = no_such_module:application")
        + section("two", tmp_path / "two.sock", "app = no_such_module:application")
    )
    pool = spawn("-f", file, listen=False, ready=False)
    assert pool.wait_exit() == os.EX_SOFTWARE
    assert "no_such_module" in pool.log
    assert not (tmp_path / "one.sock").exists()


def test_two_users_who_cannot_read_each_others(
    spawn_as_root: Spawner, tmp_path: Path, other_user: str
) -> None:
    file = tmp_path / "trac-spawn.conf"
    one, two = tmp_path / "one.sock", tmp_path / "two.sock"
    file.write_text(
        section("one", one, f"user = {other_user}", APP) + section("two", two, "user = nobody", APP)
    )
    pool = spawn_as_root("-f", file, listen=False)
    assert get(str(one), "/identity") != get(str(two), "/identity")
    for worker in pool.workers():
        # Nobody holds the socket of the other pool: it could take its requests.
        inodes = {
            os.readlink(f"/proc/{worker.pid}/fd/{name}") for name in os.listdir(f"/proc/{worker.pid}/fd")
        }
        listening = {f"socket:[{inode}]" for inode in listening_inodes({str(one), str(two)})}
        assert len(inodes & listening) == 1
    assert pool.stop() == 0


def test_nobody_serves_what_only_another_user_may_read(
    spawn_as_root: Spawner, tmp_path: Path, pristine_env: Path, other_user: str
) -> None:
    owners = {"one": other_user, "two": "nobody"}
    for name, owner in owners.items():
        env = tracenv.copy(pristine_env, tmp_path / name, f"Project {name.title()}")
        found = pwd.getpwnam(owner)
        for folder, _, files in os.walk(env):
            for path in (folder, *(os.path.join(folder, file) for file in files)):
                os.chown(path, found.pw_uid, found.pw_gid)
        env.chmod(0o700)
    sockets = {name: tmp_path / f"{name}.sock" for name in (*owners, "thief")}
    file = tmp_path / "trac-spawn.conf"
    file.write_text(
        "[trac-spawn]\nworkers = 1\n"
        + section("one", sockets["one"], f"user = {other_user}", f"env = {tmp_path / 'one'}")
        + section("two", sockets["two"], "user = nobody", f"env = {tmp_path / 'two'}")
        + section("thief", sockets["thief"], "user = nobody", f"env = {tmp_path / 'one'}")
    )
    pool = spawn_as_root("-f", file, listen=False, ready=False)
    pool.wait_for_line("thief template gen 1 .* cannot start: .*[Pp]ermission")
    for name in owners:
        assert f"Project {name.title()}" in get(str(sockets[name]), "/about")
    assert pool.stop() == 0


def listening_inodes(paths: set[str]) -> set[str]:
    with open("/proc/net/unix") as table:
        rows = [line.split() for line in table]
    # The flag says that it listens: connections have the same path.
    return {row[6] for row in rows if row[-1] in paths and row[3] == "00010000"}

"""--user, --group, --chroot, --chdir, --umask, --rlimit-*: what the application is and sees."""

from __future__ import annotations

import os
import pwd
import resource
import shlex
import sys
from pathlib import Path

import pytest

from .pools import BIN, MODES, ROOT, Pool, Spawner, base_environment
from .processes import descendants, title, wait_until
from .tracenv import copy
from .visits import APP, get

ROLES = ("trac-spawn: template", "trac-spawn: worker")


def ids(pid: int) -> dict[str, list[int]]:
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
    return {name: [int(n) for n in fields[name].split()] for name in ("Uid", "Gid", "Groups", "NoNewPrivs")}


@MODES
def test_user(spawn_as_root: Spawner, other_user: str, mode: list[str]) -> None:
    entry = pwd.getpwnam(other_user)
    pool = spawn_as_root("-n", 1, "-u", other_user, *APP, *mode)
    groups = sorted(set(os.getgrouplist(other_user, entry.pw_gid)))
    expected = f"uid={entry.pw_uid} gid={entry.pw_gid} groups={','.join(map(str, groups))} "
    assert get(pool, "/identity").startswith(expected)
    assert "running as root" not in pool.log
    for member in pool.members():
        found = ids(member.pid)
        if member.role == "master":
            assert found["Uid"] == [0] * 4
            continue
        assert found["Uid"] == [entry.pw_uid] * 4
        assert found["Gid"] == [entry.pw_gid] * 4
        assert sorted(found["Groups"]) == groups
        assert found["NoNewPrivs"] == [1]
    # Root's signals still reach them, and the other way round nothing is lost.
    victim = pool.workers()[0].pid
    os.kill(victim, 9)
    wait_until(lambda: [w for w in pool.workers("idle") if w.pid != victim])
    assert pool.stop() == 0


def test_root_without_a_user_is_warned(spawn_as_root: Spawner) -> None:
    pool = spawn_as_root("-n", 1, *APP)
    pool.wait_for_line("WARNING: running as root: .*--user")
    assert get(pool, "/identity").startswith("uid=0 gid=0 ")


def test_group(spawn_as_root: Spawner, other_user: str) -> None:
    pool = spawn_as_root("-n", 1, "-u", other_user, "-g", "12345", *APP)
    assert " gid=12345 " in get(pool, "/identity")


def test_when_the_master_dies_the_others_leave_as_another_user(
    spawn_as_root: Spawner, other_user: str
) -> None:
    """A change of user clears what makes the kernel tell them; it has to be set after it."""
    pool = spawn_as_root("-n", 2, "-u", other_user, *APP)
    members = pool.members()
    pool.may_be_killed = True
    pool.popen.kill()
    pool.wait_exit()
    wait_until(lambda: not any(p.pid in {m.pid for m in members} for p in descendants()))


def test_trac_as_another_user(spawn_as_root: Spawner, own_env: Path, other_user: str) -> None:
    pool = spawn_as_root("-n", 1, "-u", other_user, "--env", own_env)
    assert "WikiStart" in get(pool, "/wiki/WikiStart")


def test_chdir_and_umask(spawn: Spawner, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    pool = spawn("-n", 1, *APP, "-d", tmp_path / "place", "--umask", "027")
    assert f"umask=27 cwd={tmp_path}/place" in get(pool, "/identity")


def test_chdir_is_where_modules_are_found(spawn: Spawner, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "onlyhere.py").write_text(
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n    return [b'found']\n"
    )
    pool = spawn("-n", 1, "--app", "onlyhere:application", "-d", tmp_path / "place", cwd=Path("/"))
    assert get(pool, "/") == "found"


def test_limits(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, "--rlimit-files", 333, "--rlimit-core", "1M")
    for member in pool.members():
        with open(f"/proc/{member.pid}/limits") as limits:
            rows = {line[:26].strip(): line[26:].split()[0] for line in limits}
        assert rows["Max open files"] == "333"
        assert rows["Max core file size"] == str(1 << 20)
    get(pool, "/echo")


def test_unlimited_core(spawn: Spawner) -> None:
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        assert os.geteuid() == 0  # only root may raise it
    pool = spawn("-n", 1, *APP, "--rlimit-core", "unlimited")
    with open(f"/proc/{pool.workers()[0].pid}/limits") as limits:
        assert "unlimited" in next(line for line in limits if line.startswith("Max core"))


# -- chroot --------------------------------------------------------------------------------------


class Jail:
    """A root directory with nothing in it but an interpreter, the code, and perhaps /proc.

    They are bind mounts in a mount namespace of the program's own: nothing of them is seen
    outside, and all of it goes with the program.
    """

    def __init__(self, spawn: Spawner, tmp_path: Path) -> None:
        self.spawn = spawn
        self.directory = tmp_path
        self.root = tmp_path / "jail"
        self.root.mkdir()
        (self.root / "tmp").mkdir(mode=0o1777)
        (self.root / "dev").mkdir()
        self.socket = tmp_path / "outside.sock"

    def start(self, *options: object, proc: bool) -> Pool:
        places = {Path(sys.prefix), Path(sys.base_prefix), self.spawn.code, ROOT}
        places |= {path for path in map(Path, ("/lib", "/lib64", "/usr")) if path.exists()}
        script = ["set -e"]
        for place in sorted(places):
            inside = f"{self.root}{place}"
            script.append(f"mkdir -p {shlex.quote(inside)}")
            script.append(f"mount --rbind {shlex.quote(str(place))} {shlex.quote(inside)}")
        if proc:
            script.append(f"mkdir {self.root}/proc; mount -t proc proc {self.root}/proc")
        words = [BIN / "trac-spawn", "-s", self.socket, "-c", self.root, *options]
        script.append("exec " + shlex.join(map(str, words)))
        pool = Pool(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", "\n".join(script)],
            self.spawn.supervisor.log_path("jail"),
            env=base_environment(self.directory, self.spawn.code),
            cwd=self.directory,
        )
        pool.socket = self.socket
        self.spawn.supervisor.add(pool)
        return pool


@pytest.fixture
def jail(spawn_as_root: Spawner, tmp_path: Path) -> Jail:
    return Jail(spawn_as_root, tmp_path)


def root_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/root")


def test_chroot(jail: Jail, other_user: str) -> None:
    pool = jail.start("-n", 2, "-u", other_user, "-d", "/tmp", *APP, proc=True).wait_ready()
    identity = get(pool, "/identity")
    assert identity.endswith("cwd=/tmp\n")
    assert f"uid={pwd.getpwnam(other_user).pw_uid} " in identity
    for member in pool.members():
        assert (root_of(member.pid) == str(jail.root)) == (member.role != "master")
    assert "not safe to fork" not in pool.log
    victim = pool.workers()[0].pid
    os.kill(victim, 9)
    wait_until(lambda: len({w.pid for w in pool.workers("idle")} - {victim}) == 2)
    # The socket is outside, and the master is there to remove it.
    assert pool.stop() == 0
    assert not jail.socket.exists()


def test_trac_in_a_chroot(jail: Jail, pristine_env: Path) -> None:


    copy(pristine_env, jail.root / "srv")
    pool = jail.start("-n", 1, "--env", "/srv", proc=True).wait_ready()
    assert "WikiStart" in get(pool, "/wiki/WikiStart")


def test_a_chroot_without_proc_cannot_be_checked_for_fork_safety(jail: Jail) -> None:
    pool = jail.start("-n", 1, *APP, proc=False).wait_ready()
    pool.wait_for_line("not safe to fork, .*: there is no /proc behind --chroot")
    get(pool, "/echo")
    wait_until(lambda: [title(p) for p in descendants(pool.pid) if title(p).startswith(ROLES)])
    assert pool.stop() == 0


def test_a_chroot_without_proc_and_a_limit_that_needs_it(jail: Jail) -> None:
    pool = jail.start("-n", 1, *APP, "--max-memory", "100M", proc=False)
    assert pool.wait_exit() == os.EX_CONFIG
    assert "--max-memory: there is no /proc behind --chroot" in pool.log

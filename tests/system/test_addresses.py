"""Every way to say where to listen, each with a request that is answered there."""

from __future__ import annotations

import grp
import os
import pwd
import re
import signal
import socket
import stat
from pathlib import Path
from typing import Union

import pytest

from .pools import Pool, Spawner
from .processes import gone
from .visits import APP, Where, get


def answers(where: Where) -> None:
    assert get(where, "/echo?id=here").startswith("id=here ")


def stop(pool: Pool) -> None:
    assert pool.stop() == 0
    assert gone(pool.pid)


def port_of(pool: Pool, host: str) -> int:
    return int(pool.wait_for_line(rf"listening on .*?{re.escape(host)}:(\d+)")[1])


@pytest.mark.parametrize(
    "options", [["-s", "{}"], ["--socket", "{}"], ["--listen", "unix:{}"], ["--socket={}"]]
)
def test_a_path(spawn: Spawner, tmp_path: Path, options: list[str]) -> None:
    path = tmp_path / "x.sock"
    pool = spawn(*(word.format(path) for word in options), *APP, "-n", 1, listen=False)
    answers(str(path))
    stop(pool)
    assert not path.exists()


def test_a_relative_path(spawn: Spawner, tmp_path: Path) -> None:
    pool = spawn("-s", "x.sock", *APP, "-n", 1, listen=False, cwd=tmp_path)
    answers(str(tmp_path / "x.sock"))
    stop(pool)
    assert not (tmp_path / "x.sock").exists()


@pytest.mark.parametrize("options", [["-s", "{}"], ["--listen", "unix:{}"]])
def test_an_abstract_name(spawn: Spawner, options: list[str]) -> None:
    name = f"@trac-spawn-test-{os.getpid()}"
    pool = spawn(*(word.format(name) for word in options), *APP, "-n", 1, listen=False)
    answers(name)
    stop(pool)


@pytest.mark.parametrize(
    "options, host",
    [
        (["-p", "0"], "127.0.0.1"),
        (["-a", "127.0.0.1", "-p", "0"], "127.0.0.1"),
        (["--address", "localhost", "--port", "0"], "127.0.0.1"),
        (["-a", "::1", "-p", "0"], "[::1]"),
        (["--listen", "127.0.0.1:0"], "127.0.0.1"),
        (["--listen", "[::1]:0"], "[::1]"),
    ],
)
def test_tcp(spawn: Spawner, options: list[str], host: str) -> None:
    pool = spawn(*options, *APP, "-n", 1, listen=False)
    answers((host.strip("[]"), port_of(pool, host)))
    stop(pool)


def test_a_descriptor(spawn: Spawner, tmp_path: Path) -> None:
    path = tmp_path / "ours.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(10)
        fd = listening.fileno()
        pool = spawn("--listen", f"fd://{fd}", *APP, "-n", 1, listen=False, pass_fds=(fd,))
        answers(str(path))
        stop(pool)
    assert path.exists()  # it is ours


def test_descriptor_0(spawn: Spawner, tmp_path: Path) -> None:
    path = tmp_path / "ours.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(10)
        pool = spawn("--listen", "fd://0", *APP, "-n", 1, listen=False, stdin=listening.fileno())
        answers(str(path))
        stop(pool)


def test_many_at_once_and_by_the_environment(spawn: Spawner, tmp_path: Path) -> None:
    one, two = tmp_path / "one.sock", tmp_path / "two.sock"
    env = {"TRAC_SPAWN_LISTEN": f"unix:{one} unix:{two} 127.0.0.1:0 localhost:0"}
    pool = spawn(*APP, "-n", 2, listen=False, env=env)
    ports = re.findall(r"127\.0\.0\.1:(\d+)", pool.wait_for_line("listening on .*")[0])
    assert len(set(ports)) == 2
    places: list[Union[str, tuple[str, int]]] = [str(one), str(two)]
    places += [("127.0.0.1", int(port)) for port in ports]
    for _ in range(3):
        for place in places:
            answers(place)
    stop(pool)
    assert not one.exists() and not two.exists()


def test_many_at_once_by_options(spawn: Spawner, tmp_path: Path) -> None:
    one, two = tmp_path / "one.sock", tmp_path / "two.sock"
    pool = spawn("-s", one, "--listen", f"unix:{two}", "--listen", "[::1]:0", *APP, "-n", 1, listen=False)
    for place in (str(one), str(two), ("::1", port_of(pool, "[::1]"))):
        answers(place)
    stop(pool)


def test_the_backlog(spawn: Spawner) -> None:
    pool = spawn("-b", 5, *APP, "-n", 1)
    (worker,) = pool.workers()
    os.kill(worker.pid, signal.SIGSTOP)  # so that nobody accepts
    waiting: list[socket.socket] = []
    try:
        with pytest.raises(BlockingIOError):
            while len(waiting) < 50:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(pool.socket))
    finally:
        os.kill(worker.pid, signal.SIGCONT)
        for sock in waiting:
            sock.close()
    # The kernel lets one more in than the backlog says, and refused the next.
    assert len(waiting) == 5 + 1 + 1
    answers(pool)


@pytest.mark.parametrize("mode", ["600", "0666"])
def test_the_mode(spawn: Spawner, mode: str) -> None:
    pool = spawn("-M", mode, *APP, "-n", 1)
    assert stat.S_IMODE(pool.socket.stat().st_mode) == int(mode, 8)
    answers(pool)


def test_the_mode_by_default(spawn: Spawner) -> None:
    pool = spawn(*APP, "-n", 1)
    assert stat.S_IMODE(pool.socket.stat().st_mode) == 0o660


def test_user_and_group(spawn_as_root: Spawner, other_user: str) -> None:
    entry = pwd.getpwnam(other_user)
    group = grp.getgrgid(entry.pw_gid).gr_name
    pool = spawn_as_root("-U", other_user, "-G", group, *APP, "-n", 1)
    found = pool.socket.stat()
    assert (found.st_uid, found.st_gid) == (entry.pw_uid, entry.pw_gid)
    answers(pool)
    by_number = spawn_as_root("-U", entry.pw_uid, "-G", entry.pw_gid, *APP, "-n", 1)
    found = by_number.socket.stat()
    assert (found.st_uid, found.st_gid) == (entry.pw_uid, entry.pw_gid)


def test_a_stale_socket_is_replaced(spawn: Spawner, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "trac.sock"))
    pool = spawn(*APP, "-n", 1)
    assert pool.socket == tmp_path / "trac.sock"
    answers(pool)

"""Orders that meet: a reload, an upgrade and a stop, each while another of them is under way."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest

from workers.fastcgi import client

from ..notify import Manager
from .clients import fcgi_load, params
from .control import ask, end, refused, upgrade
from .pools import Pool, Spawner, descriptors_by_role, no_more
from .processes import PATIENCE, wait_gone, wait_until
from .visits import APP, busy_visit, get, kept_open_load

MINE = "from tests.system.apps import application\n"
BROKEN = "raise RuntimeError('not today')\n"
SLOW = "app = tests.system.slow:application"


def master_of(pool: Pool) -> int:
    pid: int = ask(pool, "status")["master"]["pid"]
    return pid


def target(pool: Pool) -> Any:
    return ask(pool, "status")["pools"][0]["target"]


def write(conf: Path, *lines: str) -> Path:
    conf.write_text("\n".join(("[trac-spawn]", *lines, "")))
    return conf


@pytest.mark.parametrize("verb", ["upgrade", "reload"])
def test_who_is_stopping_begins_nothing(spawn: Spawner, verb: str) -> None:
    pool = spawn("-n", 1, *APP)
    visit = busy_visit(pool, "/sleep?seconds=3")
    os.kill(pool.pid, signal.SIGTERM)
    pool.wait_for_line("stopping: answering")
    assert "stopp" in refused(pool, verb, status=os.EX_TEMPFAIL)
    visit.body()
    assert pool.wait_exit() == 0
    assert "reloading" not in pool.log and "upgrading" not in pool.log


def test_a_reload_of_a_pool_that_the_file_has_no_more(spawn: Spawner, tmp_path: Path) -> None:
    one, two = (f"[pool {name}]\nsocket = {tmp_path}/{name}\napp = {APP[1]}" for name in ("one", "two"))
    conf = write(tmp_path / "conf", "workers = 1", one, two)
    pool = spawn("-f", conf, listen=False)
    write(conf, "workers = 1", one)
    assert "has no pool two any more" in refused(pool, "reload", "two", status=os.EX_CONFIG)
    assert get(f"{tmp_path}/two", "/echo")
    assert list(ask(pool, "reload")["pools"]) == ["one"]
    assert pool.stop() == 0


def test_a_reload_that_fails_leaves_no_address_behind(spawn: Spawner, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    old = f"listen = unix:{tmp_path}/a"
    conf = write(tmp_path / "conf", "workers = 1", "app = mine:application", old)
    pool = spawn("-f", conf, listen=False, cwd=tmp_path)
    write(conf, "workers = 3", "max-requests = 7", "app = mine:application", f"{old} unix:{tmp_path}/b")
    (tmp_path / "mine.py").write_text(BROKEN)
    assert "not today" in refused(pool, "reload", status=os.EX_SOFTWARE)
    assert not (tmp_path / "b").exists()
    # What it does not have is not shown as if it had.
    settings = {one["name"]: one["value"] for one in ask(pool, "config")["settings"]}
    assert settings["workers"] == "1" and settings["max-requests"] == "0"
    (tmp_path / "mine.py").write_text(MINE)
    ask(pool, "reload")
    assert get(f"{tmp_path}/b", "/echo")
    assert pool.stop() == 0


def test_a_reload_that_overtakes_another_opens_the_same_address(spawn: Spawner, tmp_path: Path) -> None:
    conf = write(tmp_path / "conf", "workers = 1", SLOW, f"listen = unix:{tmp_path}/a")
    pool = spawn("-f", conf, listen=False, cwd=tmp_path)
    write(conf, "workers = 1", SLOW, f"listen = unix:{tmp_path}/a unix:{tmp_path}/b")
    (tmp_path / "slow").touch()
    os.kill(pool.pid, signal.SIGHUP)
    wait_until(lambda: (tmp_path / "loading").exists())
    mark = pool.mark()
    os.kill(pool.pid, signal.SIGHUP)
    pool.wait_for_line("another reload has begun", after=mark)
    (tmp_path / "slow").unlink()
    pool.wait_for_line("reloaded: generation", after=mark)
    assert get(f"{tmp_path}/b", "/echo")
    assert pool.stop() == 0


def starting_anew(spawn: Spawner, tmp_path: Path, *options: object) -> tuple[Pool, Path]:
    """A pool, and its file, whose new master is still loading."""
    conf = write(tmp_path / "conf", "workers = 1", SLOW)
    pool = spawn("-f", conf, *options, cwd=tmp_path)
    (tmp_path / "slow").touch()
    os.kill(pool.pid, signal.SIGUSR2)
    wait_until(lambda: (tmp_path / "loading").exists())
    return pool, conf


def test_a_reload_during_an_upgrade_reaches_the_new_master(spawn: Spawner, tmp_path: Path) -> None:
    pool, conf = starting_anew(spawn, tmp_path)
    write(conf, "workers = 2", SLOW)
    os.kill(pool.pid, signal.SIGHUP)
    pool.wait_for_line("a reload follows")
    assert "an upgrade is under way" in refused(pool, "reload", status=os.EX_TEMPFAIL)
    (tmp_path / "slow").unlink()
    assert pool.wait_exit() == 0
    wait_until(lambda: target(pool) == 2)
    end(pool, master_of(pool))


def test_a_reload_during_an_upgrade_that_fails_is_made_here(spawn: Spawner, tmp_path: Path) -> None:
    pool, conf = starting_anew(spawn, tmp_path)
    write(conf, "workers = 2", SLOW)
    os.kill(pool.pid, signal.SIGHUP)
    pool.wait_for_line("a reload follows")
    successor = pool.wait_for_line(r"upgrading: started .* \(pid (\d+)\)")[1]
    (tmp_path / "slow").unlink()
    os.kill(int(successor), signal.SIGKILL)
    pool.wait_for_line("reloaded: generation")
    assert target(pool) == 2 and master_of(pool) == pool.pid
    assert pool.stop() == 0


def test_a_reload_while_it_starts_follows(spawn: Spawner, tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    conf = write(tmp_path / "conf", "workers = 1", SLOW)
    pool = spawn("-f", conf, cwd=tmp_path, ready=False)
    wait_until(lambda: (tmp_path / "loading").exists())
    write(conf, "workers = 2", SLOW)
    os.kill(pool.pid, signal.SIGHUP)
    pool.wait_for_line("a reload follows")
    (tmp_path / "slow").unlink()
    pool.wait_for_line("reloaded: generation")
    assert target(pool) == 2
    assert pool.stop() == 0


def test_logs_are_rotated_during_an_upgrade(spawn: Spawner, tmp_path: Path) -> None:
    log, access = tmp_path / "access", tmp_path / "other"
    pool, _ = starting_anew(spawn, tmp_path, "--access-log", log, "--status-path", "/status")
    log.rename(access)
    ask(pool, "reopen")
    (tmp_path / "slow").unlink()
    assert pool.wait_exit() == 0
    successor = master_of(pool)
    wait_until(lambda: not [one for one in open_files(successor) if one == str(access)])
    get(pool, "/echo")
    wait_until(log.read_text)
    assert not access.read_text()
    end(pool, successor)


def open_files(master: int) -> list[str]:
    """Of the whole family."""
    process = psutil.Process(master)
    found = []
    for one in [process, *process.children()]:
        folder = Path(f"/proc/{one.pid}/fd")
        found += [os.readlink(entry) for entry in folder.iterdir() if entry.is_symlink()]
    return found


def test_the_folder_of_the_pid_file_vanishes(spawn: Spawner, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    pool = spawn("-n", 1, "-P", folder / "pid", *APP)
    (folder / "pid").unlink()
    folder.rmdir()
    for _ in range(2):
        assert "does not exist" in refused(pool, "upgrade", status=os.EX_CANTCREAT)
    assert get(pool, "/echo")
    folder.mkdir()
    end(pool, upgrade(pool))
    assert not (folder / "pid").exists()


def test_the_working_directory_vanishes(spawn: Spawner, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    pool = spawn("-n", 1, *APP, cwd=folder)
    folder.rmdir()
    assert "working directory has been removed" in refused(pool, "reload", status=os.EX_NOINPUT)
    assert "working directory has been removed" in refused(pool, "upgrade", status=os.EX_NOINPUT)
    assert get(pool, "/echo")
    assert pool.stop() == 0


def test_what_an_upgrade_adds_is_stored_once_the_manager_listens(spawn: Spawner, tmp_path: Path) -> None:
    """With NotifyAccess=main that is when the old master has said who is the new one."""
    manager = Manager(str(tmp_path / "notify"))
    conf = write(tmp_path / "conf", "workers = 1", f"app = {APP[1]}", f"listen = unix:{tmp_path}/a")
    environ = {"NOTIFY_SOCKET": manager.address, "FDSTORE": "16"}
    pool = spawn("-f", conf, listen=False, env=environ)
    write(conf, "workers = 1", f"app = {APP[1]}", f"listen = unix:{tmp_path}/a unix:{tmp_path}/b")
    os.kill(pool.pid, signal.SIGUSR2)
    told: list[dict[str, str]] = []
    while "FDSTORE" not in (told[-1] if told else {}) or not told[-1]["FDNAME"].endswith("/b"):
        said, fds = manager.receive()
        told.append(said)
        for fd in fds:
            os.close(fd)
    assert [one for one in told if "MAINPID" in one]
    successor = master_of(pool)
    os.kill(successor, signal.SIGTERM)
    wait_gone([successor])
    assert (tmp_path / "a").exists() and (tmp_path / "b").exists()
    manager.socket.close()


def pool_section(name: str, *addresses: str) -> str:
    return f"[pool {name}]\nlisten = {' '.join(addresses)}\napp = {APP[1]}"


@pytest.mark.parametrize("verb", ["reload", "upgrade"])
def test_a_pool_that_is_renamed_goes_on(spawn: Spawner, tmp_path: Path, verb: str) -> None:
    unix, probe = tmp_path / "a", socket.create_server(("127.0.0.1", 0))
    tcp = probe.getsockname()
    probe.close()
    where = (f"unix:{unix}", f"127.0.0.1:{tcp[1]}")
    conf = write(tmp_path / "conf", "workers = 2", pool_section("one", *where))
    pool = spawn("-f", conf, listen=False)
    kept = [client.connect(str(unix), PATIENCE), client.connect(tcp, PATIENCE)]
    for sock in kept:
        client.request(sock, params("/echo"), keep_connection=True, timeout=PATIENCE)
    write(conf, "workers = 2", pool_section("uno", *where))
    with fcgi_load(unix) as load, kept_open_load(unix) as kept_load:
        load.wait_for(20)
        master = pool.pid
        if verb == "upgrade":
            master = upgrade(pool)
            assert pool.wait_exit() == 0
        else:
            ask(pool, "reload")
            pool.wait_for_line(r"worker 1 gen 1 .* left")
            pool.wait_for_line(r"worker 2 gen 1 .* left")
        load.wait_for(20)
        kept_load.wait_for(20)
        assert get(tcp, "/echo")
    load.check()
    kept_load.check()
    for sock in kept:
        assert client.request(sock, params("/echo"), keep_connection=True, timeout=PATIENCE).status == 200
        sock.close()
    assert [one["name"] for one in ask(pool, "status")["pools"]] == ["uno"]
    os.kill(master, signal.SIGTERM)
    wait_gone([master])
    assert not unix.exists()


def test_an_address_goes_from_one_pool_to_another_by_an_upgrade(spawn: Spawner, tmp_path: Path) -> None:
    a, b = (f"unix:{tmp_path}/{name}" for name in "ab")
    conf = write(tmp_path / "conf", "workers = 1", pool_section("one", a), pool_section("two", b))
    pool = spawn("-f", conf, listen=False)
    write(conf, "workers = 1", pool_section("one", b), pool_section("two", a))
    assert f"still listens on {a}" in refused(pool, "reload", status=os.EX_UNAVAILABLE)
    assert get(f"{tmp_path}/a", "/echo") and get(f"{tmp_path}/b", "/echo")
    successor = upgrade(pool)
    assert pool.wait_exit() == 0
    found = {one["name"]: one["addresses"][0]["address"] for one in ask(pool, "status")["pools"]}
    assert found == {"one": b, "two": a}
    os.kill(successor, signal.SIGTERM)
    wait_gone([successor])


def test_a_pool_is_divided(spawn: Spawner, tmp_path: Path) -> None:
    a, b, c = (f"unix:{tmp_path}/{name}" for name in "abc")
    conf = write(tmp_path / "conf", "workers = 1", pool_section("all", a, b, c))
    pool = spawn("-f", conf, listen=False)
    write(conf, "workers = 1", pool_section("one", a), pool_section("two", b))
    with fcgi_load(tmp_path / "a") as load, fcgi_load(tmp_path / "b") as other:
        load.wait_for(10)
        ask(pool, "reload")
        wait_until(lambda: {one["state"] for one in ask(pool, "status")["pools"]} == {"running"})
        load.wait_for(10)
        other.wait_for(10)
    load.check()
    other.check()
    assert not (tmp_path / "c").exists()
    assert pool.stop() == 0
    assert not (tmp_path / "a").exists()


def test_whose_last_pool_could_not_be_replaced_can_be_stopped(spawn: Spawner, tmp_path: Path) -> None:
    conf = write(tmp_path / "conf", "workers = 1", pool_section("one", f"unix:{tmp_path}/a"))
    pool = spawn("-f", conf, listen=False)
    (tmp_path / "b").touch()
    write(conf, "workers = 1", pool_section("uno", f"unix:{tmp_path}/b"))
    assert "is not a socket" in refused(pool, "reload", status=os.EX_CANTCREAT)
    (tmp_path / "b").unlink()
    wait_until(lambda: not pool.workers())
    # Another reload would mend it; so does a stop.
    assert pool.stop() == 0


def test_what_the_master_asks_the_kernel_with_is_not_for_its_children(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    pool.spare()
    before = descriptors_by_role(pool.pid)
    before["master"] += 1  # what it asks with, from now on
    ask(pool, "status")
    ask(pool, "reload")
    pool.wait_for_line(r"worker 1 gen 1 .* left")
    assert pool.template().generation == 2
    wait_until(lambda: no_more(descriptors_by_role(pool.pid), before), what=f"at most {before}")
    assert pool.stop() == 0

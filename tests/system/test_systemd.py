"""As a service of systemd: what it is told, the sockets that it opens and those that it keeps."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..notify import Manager
from .clients import fcgi_load
from .control import ask, upgrade
from .pools import BIN, Pool, Spawner, base_environment
from .processes import wait_gone, wait_until
from .visits import APP, get

#: What systemd does with descriptors: they begin at 3, and are for the process that it starts.
HAND_OVER = """
import os, sys
count = int(sys.argv[1])
high = [os.dup2(int(number), 100 + index) for index, number in enumerate(sys.argv[3:3 + count])]
for index, number in enumerate(high):
    os.dup2(number, 3 + index)
    os.close(number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3 + count], sys.argv[3 + count:])
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    found = Manager(str(tmp_path / "notify"))
    yield found
    found.socket.close()


def as_service(manager: Manager, **variables: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.address, **variables}


def test_a_reload_and_a_stop_are_told(spawn: Spawner, manager: Manager) -> None:
    pool = spawn("-n", 2, *APP, env=as_service(manager))
    assert manager.said() == {"READY": "1", "STATUS": "serving with 2 workers"}
    mark = pool.mark()
    os.kill(pool.pid, signal.SIGHUP)
    pool.wait_for_line("reloaded: generation", after=mark)
    assert manager.said().keys() == {"RELOADING", "MONOTONIC_USEC"}
    assert manager.said() == {"READY": "1", "STATUS": "reloaded"}
    assert pool.stop() == 0
    assert manager.said() == {"STOPPING": "1"}


def test_the_watchdog_is_fed_while_nothing_happens(spawn: Spawner, manager: Manager) -> None:
    pool = spawn("-n", 1, *APP, env=as_service(manager, WATCHDOG_USEC="200000"))
    said = [manager.said() for _ in range(5)]
    assert said.count({"WATCHDOG": "1"}) >= 4
    assert pool.stop() == 0


def test_an_upgrade_is_told_before_the_old_master_leaves(spawn: Spawner, manager: Manager) -> None:
    pool = spawn("-n", 1, *APP, env=as_service(manager, WATCHDOG_USEC="3600000000"))
    os.kill(pool.pid, signal.SIGUSR2)
    told: list[dict[str, str]] = []
    while "MAINPID" not in (told[-1] if told else {}):
        told.append(manager.said())
    successor = int(told[-1]["MAINPID"])
    assert successor != pool.pid
    # Nothing that sounds like an end of the service, from either.
    while "BARRIER" not in told[-1]:
        said, fds = manager.receive()
        told.append(said)
    assert pool.running  # as long as the manager has not come to that
    for fd in fds:
        os.close(fd)
    assert pool.wait_exit() == 0
    while told[-1].get("STATUS") != "upgraded":
        told.append(manager.said())
    assert not [one for one in told if "STOPPING" in one]
    assert {"WATCHDOG": "1"} in told
    os.kill(successor, signal.SIGTERM)
    assert manager.said() == {"STOPPING": "1"}
    wait_gone([successor])


# -- socket activation -----------------------------------------------------------------------------


def activated(spawn: Spawner, tmp_path: Path, listen: list[str], *words: object) -> Pool:
    """What a .socket unit does. The program starts with the first connection."""
    argv = ["systemd-socket-activate", *listen, f"--setenv=PYTHONPATH={spawn.code}",
            BIN / "trac-spawn", "--control", tmp_path / "control", *words]  # fmt: skip
    pool = Pool(
        [str(word) for word in argv],
        spawn.supervisor.log_path("activated"),
        env=base_environment(tmp_path, spawn.code),
        cwd=tmp_path,
    )
    pool.control = tmp_path / "control"
    spawn.supervisor.add(pool)
    pool.wait_for_line("Listening on ")
    return pool


def test_the_first_visitor_starts_it_and_is_answered(spawn: Spawner, tmp_path: Path) -> None:
    path = tmp_path / "web"
    pool = activated(spawn, tmp_path, ["-l", str(path)], "-n", 1, *APP)
    assert get(str(path), "/echo")
    with fcgi_load(path) as load:
        load.wait_for(10)
        ask(pool, "reload")
        successor = upgrade(pool)
        assert pool.wait_exit() == 0
        load.wait_for(10)
        ask(pool, "reload")
        load.wait_for(10)
    load.check()
    os.kill(successor, signal.SIGTERM)
    wait_gone([successor])
    assert path.exists()  # it is systemd's


def test_names_say_for_which_pool(spawn: Spawner, tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.write_text("[pool one]\nworkers = 1\napp = tests.system.apps:application\n"
                    f"[pool two]\nworkers = 1\nsocket = {tmp_path}/two\n"
                    "app = tests.system.apps:application\n")  # fmt: skip
    listen = ["-l", str(tmp_path / "one"), "-l", str(tmp_path / "two"), "--fdname=one:unknown"]
    pool = activated(spawn, tmp_path, listen, "-f", conf)
    assert get(str(tmp_path / "one"), "/echo")
    assert get(str(tmp_path / "two"), "/echo")
    pools = ask(pool, "status")["pools"]
    where = {one["name"]: [address["address"] for address in one["addresses"]] for one in pools}
    assert where == {"one": [f"unix:{tmp_path}/one"], "two": [f"unix:{tmp_path}/two"]}
    assert pool.stop() == 0
    assert (tmp_path / "one").exists() and (tmp_path / "two").exists()


def test_a_socket_that_no_pool_wants_is_an_error(spawn: Spawner, tmp_path: Path) -> None:
    listen = ["-l", str(tmp_path / "web")]
    pool = activated(spawn, tmp_path, listen, "-n", 1, "-s", tmp_path / "other", *APP)
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.connect(str(tmp_path / "web"))
        pool.wait_for_line(f"trac-spawn: the service manager hands over a socket for unix:{tmp_path}/web")
    assert pool.wait_exit() == os.EX_CONFIG


# -- the descriptor store --------------------------------------------------------------------------


def stored(manager: Manager) -> dict[str, int]:
    """What the store holds once the service is ready."""
    found: dict[str, int] = {}
    while True:
        said, fds = manager.receive()
        if "FDSTORE" in said:
            (found[said["FDNAME"]],) = fds
        if "FDSTOREREMOVE" in said:
            os.close(found.pop(said["FDNAME"]))
        if "READY" in said:
            return found


def restarted(
    spawn: Spawner, manager: Manager, store: dict[str, int], *words: object, ready: bool = True
) -> Pool:
    """``systemctl restart``: the next process is given what is in the store."""
    numbers = [str(number) for number in store.values()]
    argv = [sys.executable, "-c", HAND_OVER, len(store), ":".join(store), *numbers]
    pool = Pool(
        [str(word) for word in (*argv, BIN / "trac-spawn", *words)],
        spawn.supervisor.log_path("restarted"),
        env={**base_environment(spawn.directory, spawn.code), **as_service(manager, FDSTORE="16")},
        cwd=spawn.directory,
        pass_fds=tuple(store.values()),
    )
    spawn.supervisor.add(pool)
    return pool.wait_ready() if ready else pool


def test_a_restart_refuses_nobody(spawn: Spawner, tmp_path: Path, manager: Manager) -> None:
    unix, words = tmp_path / "trac.sock", ["-n", 2, "--listen", "127.0.0.1:0", *APP]
    pool = spawn(*words, env=as_service(manager, FDSTORE="16"))
    store = stored(manager)
    assert len(store) == 2
    with socket.socket(fileno=os.dup(max(store.values()))) as tcp, fcgi_load(unix) as load:
        for _ in range(3):
            load.wait_for(20)
            assert pool.stop() == 0
            assert unix.exists()
            pool = restarted(spawn, manager, store, "-s", unix, *words)
            assert stored(manager) == {}  # they are still in it
            for name in store:
                assert get(tcp.getsockname() if "127" in name else str(unix), "/echo")
            load.wait_for(20)
    load.check(60)
    assert pool.stop() == 0
    for number in store.values():
        os.close(number)
    # Nobody has the socket any more: the next one takes its place.
    again = spawn("-s", unix, *words, listen=False)
    assert get(str(unix), "/echo")
    assert again.stop() == 0 and not unix.exists()


def test_an_upgrade_leaves_the_store_as_it_is(spawn: Spawner, manager: Manager) -> None:
    pool = spawn("-n", 1, *APP, env=as_service(manager, FDSTORE="16"))
    store = stored(manager)
    successor = upgrade(pool)
    assert stored(manager) == {}
    os.kill(successor, signal.SIGTERM)
    wait_gone([successor])
    assert pool.socket.exists()
    for number in store.values():
        os.close(number)


def test_an_address_that_is_given_up_leaves_the_store(
    spawn: Spawner, tmp_path: Path, manager: Manager
) -> None:
    conf = tmp_path / "conf"
    conf.write_text(f"[trac-spawn]\nworkers = 1\nlisten = unix:{tmp_path}/a unix:{tmp_path}/b\n")
    pool = spawn("-f", conf, *APP, listen=False, env=as_service(manager, FDSTORE="16"))
    store = stored(manager)
    conf.write_text(f"[trac-spawn]\nworkers = 1\nlisten = unix:{tmp_path}/a\n")
    ask(pool, "reload")
    gone, kept = (next(name for name in store if name.endswith(end)) for end in "ba")
    told: dict[str, str] = {}
    while "FDSTOREREMOVE" not in told:
        told = manager.said()
    assert told == {"FDSTOREREMOVE": "1", "FDNAME": gone}
    wait_until(lambda: not (tmp_path / "b").exists())
    assert get(f"{tmp_path}/a", "/echo")
    assert pool.stop() == 0
    # As a process finds it whose configuration no longer has what the store holds.
    pool = restarted(spawn, manager, store, "-s", tmp_path / "a", "-n", 1, *APP)
    told = {}
    while "FDSTOREREMOVE" not in told:
        told = manager.receive()[0]
    assert told["FDNAME"] == gone and kept.endswith("a")
    assert pool.stop() == 0
    for number in store.values():
        os.close(number)


def test_without_room_in_the_store_a_stop_is_an_end(spawn: Spawner, manager: Manager) -> None:
    pool = spawn("-n", 1, *APP, env=as_service(manager))
    assert stored(manager) == {}
    assert pool.stop() == 0
    assert not pool.socket.exists()

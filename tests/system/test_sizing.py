"""One worker more, one fewer; what the processes are called; a burst of visitors."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

from workers.fastcgi import client

from .clients import fcgi_load, params
from .pools import Spawner
from .processes import PATIENCE, descendants, title, wait_until
from .visits import APP, busy_visit, get, serving_pid


def test_ttin_and_ttou_under_load(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP)
    with fcgi_load(pool.socket) as load:
        for _ in range(2):
            pool.signal(signal.SIGTTIN)
            load.wait_for(5)
        pool.wait_for_line("4 workers wanted")
        pool.wait_workers(4)
        # One by one: two of the same signal that wait are one.
        for wanted in (3, 2, 1):
            mark = pool.mark()
            pool.signal(signal.SIGTTOU)
            pool.wait_for_line(f"{wanted} workers wanted", after=mark)
        pool.wait_workers(1)
        load.wait_for(20)
    load.check()
    assert "died" not in pool.log
    pool.wait_for_line("recycled: one worker fewer$")


def test_the_last_worker_stays(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    before = serving_pid(pool)
    pool.signal(signal.SIGTTOU)
    pool.wait_for_line("1 workers wanted")
    assert serving_pid(pool) == before


def test_the_youngest_leaves_first(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP)
    oldest = {worker.pid for worker in pool.workers()}
    pool.signal(signal.SIGTTIN)
    pool.wait_workers(3, "idle")
    pool.signal(signal.SIGTTOU)
    pool.wait_workers(2)
    assert {worker.pid for worker in pool.workers()} == oldest


def test_a_master_without_descriptors_serves_on_and_tries_again(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP, "--rlimit-files", 40)
    wanted = 2
    while "cannot start: cannot fork: Too many open files" not in pool.log:
        wanted += 1
        pool.signal(signal.SIGTTIN)
        pool.wait_for_line(f"{wanted} workers wanted")
        assert wanted < 60
    get(pool, "/echo")
    pool.wait_for_line("cannot fork: Too many open files; next try in 0.4 s")
    born = len(pool.workers())
    while wanted > born - 2:
        wanted -= 1
        mark = pool.mark()
        pool.signal(signal.SIGTTOU)
        pool.wait_for_line(f"{wanted} workers wanted", after=mark)
    pool.wait_workers(wanted)
    get(pool, "/echo")
    assert pool.stop() == 0


def test_a_start_without_enough_descriptors_fails_and_says_so(spawn: Spawner) -> None:
    pool = spawn("-n", 60, *APP, "--rlimit-files", 30, ready=False)
    assert pool.wait_exit() == os.EX_OSERR
    assert "Too many open files" in pool.log
    assert "Traceback" not in pool.log


def test_signals_meant_for_the_master_do_not_harm_the_others(spawn: Spawner) -> None:
    """As a terminal or ``systemctl kill`` sends them: to every process."""
    pool = spawn("-n", 2, *APP)
    members = {member.pid for member in pool.members()}
    for number in (signal.SIGTTIN, signal.SIGUSR1, signal.SIGHUP, signal.SIGTTOU):
        # The master takes SIGHUP for a reload, which replaces everybody.
        for pid in members - ({pool.pid} if number is signal.SIGHUP else set()):
            os.kill(pid, number)
    wait_until(lambda: "2 workers wanted" in pool.log)
    pool.wait_workers(2)
    get(pool, "/echo")
    assert {member.pid for member in pool.members()} == members
    assert "died" not in pool.log


def test_titles_say_role_generation_slot_state_and_request(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP)
    pool.wait_workers(2, "idle")
    assert [member.title for member in pool.members()] == [
        f"trac-spawn: master [unix:{pool.socket}]",
        "trac-spawn: template gen 1",
        "trac-spawn: worker 1 gen 1 idle",
        "trac-spawn: worker 2 gen 1 idle",
    ]
    visit = busy_visit(pool, "/sleep?seconds=1&page=/wiki/WikiStart")
    (busy,) = pool.workers("busy")
    assert re.fullmatch(
        r"trac-spawn: worker [12] gen 1 busy GET /sleep\?seconds=1&page=/wiki/WikiStart&visit=\d+", busy.title
    )
    pool.signal(signal.SIGTERM)
    wait_until(lambda: pool.members("master")[0].title.endswith("] stopping"))
    visit.body()
    assert pool.wait_exit() == 0


def test_titles_while_loading(spawn: Spawner, tmp_path: Path) -> None:
    (tmp_path / "slowapp.py").write_text("import time\ntime.sleep(600)\n")
    for mode, loading in (
        ([], ["trac-spawn: template gen 1 loading"]),
        (["--no-template"], [f"trac-spawn: worker {n} gen 1 loading" for n in (1, 2)]),
    ):
        pool = spawn("-n", 2, "--app", "slowapp:application", *mode, ready=False)
        wait_until(lambda: sorted(map(title, descendants(pool.pid))) == loading)  # noqa: B023
        assert pool.stop() == 0


def test_a_burst_of_2000_connections(spawn: Spawner) -> None:
    """A full queue is an immediate 502; the default backlog holds them all."""
    with open("/proc/sys/net/core/somaxconn") as somaxconn:
        assert int(somaxconn.read()) >= 2000
    pool = spawn("-n", 2, *APP, "--kill-after", 60)
    burst = 2000
    request = client.ClientConnection()
    data = request.begin(params("/echo?id=burst")) + request.end_body()
    # Nobody accepts for a second, so that all of them have to find room.
    workers = [worker.pid for worker in pool.workers()]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    visitors: list[socket.socket] = []
    try:
        for _ in range(burst):
            sock = socket.socket(socket.AF_UNIX)
            visitors.append(sock)
            sock.setblocking(False)  # as nginx does: EAGAIN would be its 502
            sock.connect(str(pool.socket))
            sock.sendall(data)
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        for sock in visitors:
            sock.settimeout(PATIENCE)
            answer = b""
            while chunk := sock.recv(65536):
                answer += chunk
            assert b"id=burst" in answer
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        for sock in visitors:
            sock.close()
    assert "died" not in pool.log

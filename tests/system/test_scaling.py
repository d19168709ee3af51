"""Pools that follow their load: dynamic, ondemand, and the memory that a pool may have."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from workers.fastcgi import client

from .clients import fcgi_load, params
from .control import ask, reload
from .pools import MODES, Pool, Spawner
from .processes import PATIENCE, wait_until
from .visits import APP, Visit, Where, get, kept_open_load

ONDEMAND = ("--pm", "ondemand", "--max-workers", 4, "--idle-timeout", 0.3)


def status(pool: Pool) -> Any:
    (found,) = ask(pool, "status")["pools"]
    return found


def where(pool: Pool, kind: str) -> Where:
    if kind == "unix":
        return pool
    match = pool.wait_for_line(r"listening on .*127\.0\.0\.1:(\d+)")
    return "127.0.0.1", int(match[1])


@MODES
def test_the_first_request_of_an_empty_pool(spawn: Spawner, mode: list[str]) -> None:
    pool = spawn(*ONDEMAND, *APP, *mode)
    for _ in range(2):
        pool.wait_workers(0)
        get(pool, "/echo")
    assert pool.log.count("recycled: not needed") == (2 if mode else 1)
    assert pool.stop() == 0


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_ondemand_from_none_to_the_maximum_and_back(spawn: Spawner, kind: str) -> None:
    pool = spawn(*ONDEMAND, *APP, "--listen", "127.0.0.1:0")
    with fcgi_load(pool.socket, threads=1) as load:
        visits = [Visit(where(pool, kind), "/sleep?seconds=1") for _ in range(5)]
        pool.wait_workers(4, "busy")
        assert len({visit.body() for visit in visits}) >= 4
        load.wait_for(5)
    load.check()
    pool.wait_workers(0)
    assert status(pool)["target"] == 0
    assert pool.stop() == 0


def test_an_empty_pool_does_nothing_and_a_growing_one_does_not_spin(
    spawn: Spawner, tmp_path: Path
) -> None:
    (tmp_path / "slowapp.py").write_text(
        "import time\ntime.sleep(1)\nfrom tests.system.apps import application\n"
    )
    pool = spawn(*ONDEMAND, "--app", "slowapp:application", "--no-template")
    pool.wait_workers(0)
    before = psutil.Process(pool.pid).cpu_times()
    get(pool, "/echo")
    after = psutil.Process(pool.pid).cpu_times()
    assert sum(after[:2]) - sum(before[:2]) < 0.5
    assert pool.stop() == 0


def test_kept_open_connections_keep_one_worker(spawn: Spawner) -> None:
    pool = spawn(*ONDEMAND, *APP)
    with kept_open_load(str(pool.socket), "/sleep?seconds=0.1&id={id}") as load:
        pool.wait_workers(4)
        load.wait_for(20)
    load.check()
    with client.connect(str(pool.socket), PATIENCE) as kept:
        for _ in range(2):
            client.request(kept, params("/echo"), keep_connection=True, timeout=PATIENCE)
            wait_until(lambda: status(pool)["target"] == 1)
            pool.wait_workers(1, "idle")
    pool.wait_workers(0)
    assert pool.stop() == 0


def test_dynamic_grows_with_the_load_and_shrinks_again(spawn: Spawner) -> None:
    pool = spawn(
        "--pm", "dynamic", "--max-workers", 4, "--start-workers", 1, "--min-spare", 1,
        "--max-spare", 2, *APP,
    )  # fmt: skip
    assert len(pool.workers()) == 1
    with fcgi_load(pool.socket, "/sleep?seconds=0.2&id={id}", threads=6) as load:
        pool.wait_workers(4)
        wait_until(lambda: status(pool)["max_children_reached"] == 1)
    load.check()
    pool.wait_workers(2)
    assert pool.log.count("the pool has reached --max-workers, 4") == 1
    assert pool.stop() == 0


def test_the_maximum_is_told_once_and_can_be_moved(spawn: Spawner) -> None:
    pool = spawn(*ONDEMAND, *APP)
    pool.signal(signal.SIGTTOU)
    pool.wait_for_line("at most 3 workers wanted")
    assert ask(pool, "scale", "trac", "-1") == {"pool": "trac", "target": 0, "max_workers": 2}
    for event in (1, 2):
        with fcgi_load(pool.socket, "/sleep?seconds=0.2&id={id}", threads=6) as load:
            wait_until(lambda: status(pool)["max_children_reached"] == event)  # noqa: B023
            assert len(pool.workers()) == 2
        load.check()
        pool.wait_workers(0)
        assert pool.log.count("the pool has reached --max-workers, 2:") == event
    assert pool.stop() == 0


def test_the_fattest_idle_worker_goes_first(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP, "--pool-memory", "150M")
    before = {worker.pid for worker in pool.workers()}
    fat = int(get(pool, "/grow?mib=200").split("pid=")[1])
    pool.wait_for_line(rf"gen 1 \(pid {fat}\) recycled: pool-memory \(\d\d\d MiB\)$")
    pool.wait_for_line("the pool has ... MiB, more than --pool-memory, 150 MiB")
    pool.wait_workers(2, "idle")
    assert before - {worker.pid for worker in pool.workers()} == {fat}
    assert status(pool)["recycles"] == {"pool-memory": 1}
    assert pool.stop() == 0


def test_a_pool_over_its_memory_does_not_grow(spawn: Spawner) -> None:
    pool = spawn(
        "--pm", "dynamic", "--max-workers", 4, "--start-workers", 1, "--min-spare", 1,
        "--max-spare", 2, *APP, "--pool-memory", "1M",
    )  # fmt: skip
    pool.wait_for_line("more than --pool-memory, 1 MiB")
    visits = [Visit(pool, "/sleep?seconds=1.3") for _ in range(2)]
    for visit in visits:
        visit.body()
        assert status(pool)["target"] == 1
    assert pool.stop() == 0


def test_from_static_to_ondemand_and_back_under_load(spawn: Spawner, tmp_path: Path) -> None:
    file = tmp_path / "trac-spawn.conf"
    kinds = {
        "static": "workers = 2\n",
        "ondemand": "pm = ondemand\nmax-workers = 4\nidle-timeout = 0.3\n",
        "dynamic": "pm = dynamic\nmax-workers = 6\nmin-spare = 2\nmax-spare = 3\n",
    }

    def change(kind: str) -> None:
        app = f"[pool one]\nsocket = {tmp_path / 'one.sock'}\napp = tests.system.apps:application\n"
        file.write_text(app + kinds[kind])

    change("static")
    pool = spawn("-f", file, listen=False)
    with fcgi_load(tmp_path / "one.sock", threads=2) as load:
        load.wait_for(20)
        for kind in ("ondemand", "static", "ondemand", "dynamic", "static"):
            change(kind)
            reload(pool)
            assert status(pool)["pm"] == kind
            load.wait_for(20)
        pool.wait_workers(2)
    load.check()
    change("ondemand")
    reload(pool)
    pool.wait_workers(0)
    reload(pool)  # of an empty pool
    pool.wait_workers(0)
    get(str(tmp_path / "one.sock"), "/echo")
    assert pool.stop() == 0


def test_a_stop_answers_who_waits_at_an_empty_pool(spawn: Spawner) -> None:
    pool = spawn(*ONDEMAND, *APP)
    os.kill(pool.pid, signal.SIGSTOP)
    with client.connect(str(pool.socket), PATIENCE) as visitor:
        os.kill(pool.pid, signal.SIGTERM)
        os.kill(pool.pid, signal.SIGCONT)
        assert b"id=last" in client.request(visitor, params("/echo?id=last"), timeout=PATIENCE).body
    assert pool.wait_exit() == 0


def test_pause_and_resume_of_an_empty_pool(spawn: Spawner) -> None:
    pool = spawn(*ONDEMAND, *APP)
    ask(pool, "pause")
    visit = Visit(pool, "/echo?id=later")
    wait_until(lambda: status(pool)["addresses"][0]["listen_queue"]["waiting"] == 1)
    assert pool.workers() == []
    ask(pool, "resume")
    assert "id=later" in visit.body()
    assert pool.stop() == 0


def test_workers_that_cannot_start_do_so_no_faster_than_their_back_off(
    spawn: Spawner, tmp_path: Path
) -> None:
    app = tmp_path / "fragile.py"
    app.write_text("from tests.system.apps import application\n")
    pool = spawn(*ONDEMAND, "--app", "fragile:application", "--no-template")
    pool.wait_workers(0)
    app.write_text("import os\nos._exit(3)\n")
    visit = Visit(pool, "/echo?id=patient")
    pool.wait_for_line(r"next try in 0\.8 s")
    assert pool.log.count("next try in") == 4
    app.write_text("from tests.system.apps import application\n")
    assert "id=patient" in visit.body()
    assert pool.stop() == 0

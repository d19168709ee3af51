"""Workers are replaced before they leave, and no request is lost by it."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Callable

import pytest

from workers.heap import LOOK_EVERY

from .clients import Load, fcgi_load
from .control import ask
from .pools import MODES, Pool, Spawner
from .processes import wait_until
from .visits import APP, Visit, busy_visit, get, kept_open_load, serving_pid

LOADS = pytest.mark.parametrize("load_on", [fcgi_load, kept_open_load], ids=["new", "kept-open"])
MakeLoad = Callable[[Path, str], Load]


def recycled(pool: Pool, reason: str) -> int:
    return len(re.findall(rf"recycled: {reason}", pool.log))


@LOADS
@MODES
def test_by_requests_under_load(spawn: Spawner, load_on: MakeLoad, mode: list[str]) -> None:
    pool = spawn("-n", 2, *APP, "--max-requests", 20, *mode)
    with load_on(pool.socket, "/echo?id={id}") as load:
        wait_until(lambda: recycled(pool, "max-requests") >= 8, what="8 recycled workers")
    load.check(at_least=100)
    assert "died" not in pool.log
    assert pool.stop() == 0
    pool.wait_for_line(r"stopped; workers recycled: \d+ max-requests$")


@LOADS
def test_by_memory_under_load(spawn: Spawner, load_on: MakeLoad) -> None:
    pool = spawn("-n", 2, *APP, "--max-memory", "60M")
    with load_on(pool.socket, "/grow?mib=10&id={id}") as load:
        wait_until(lambda: recycled(pool, r"max-memory \(\d+ MiB private\)") >= 4)
    load.check(at_least=10)
    assert "died" not in pool.log


@LOADS
def test_by_age_under_load(spawn: Spawner, load_on: MakeLoad) -> None:
    pool = spawn("-n", 2, *APP, "--max-age", "1s")
    with load_on(pool.socket, "/echo?id={id}") as load:
        wait_until(lambda: recycled(pool, "max-age") >= 4)
    load.check(at_least=20)
    assert "died" not in pool.log


def test_by_age_when_idle(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, "--max-age", "1s")
    first = pool.workers()[0].pid
    wait_until(lambda: [w for w in pool.workers("idle") if w.pid != first])
    get(pool, "/echo")


def test_a_term_to_one_worker_replaces_it_under_load(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP)
    asked: set[int] = set()
    with fcgi_load(pool.socket) as load:
        for count in range(1, 4):
            # One that leaves may still answer, and has no use for a second signal.
            pid = wait_until(lambda: next(iter({serving_pid(pool)} - asked), None))
            asked.add(pid)
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: recycled(pool, "SIGTERM") >= count)  # noqa: B023
        load.wait_for(10)
    load.check()


def test_the_replacement_is_ready_before_the_old_one_leaves(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, "--max-requests", 1, "--max-requests-jitter", 0)
    old = serving_pid(pool)
    left = rf"worker 1 gen 1 \(pid {old}\) left after 1 requests$"
    pool.wait_for_line(left)
    order = [
        pool.log.index(match[0])
        for match in (
            pool.wait_for_line(r"worker 2 gen 1 \(pid \d+\) ready$"),
            pool.wait_for_line(rf"worker 1 gen 1 \(pid {old}\) recycled: max-requests \(1\)$"),
            pool.wait_for_line(left),
        )
    ]
    assert order == sorted(order)


def test_a_worker_that_is_busy_when_its_time_is_over_finishes(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, "--max-age", "1s")
    visit = busy_visit(pool, "/sleep?seconds=2&id=long")
    assert "id=long" in visit.body()


def test_hard_memory_ends_a_request(spawn: Spawner) -> None:
    (Path(spawn.directory) / "eater.py").write_text(EATER)
    pool = spawn("-n", 2, "--app", "eater:application", "--hard-memory", "120M")
    calm = {worker.pid for worker in pool.workers()}
    visit = Visit(pool, "/eat")
    pool.wait_for_line(r"recycled: hard-memory \(\d+ MiB private: GET /eat id=\w+\)")
    assert visit.lost()
    pool.wait_for_line(r"eater.py., line \d+ in application")
    (death,) = ask(pool, "last-deaths")["deaths"]
    assert death["reason"].startswith("hard-memory (") and "eater.py" in death["traceback"]
    wait_until(lambda: len({worker.pid for worker in pool.workers()} & calm) == 1)
    pool.wait_workers(2, "idle")
    assert get(pool, "/calm") == "calm"
    assert pool.stop() == 0
    pool.wait_for_line("stopped; workers recycled: 1 hard-memory$")


@pytest.mark.parametrize("mode", [["--no-template"]])
def test_a_hard_memory_that_loading_exceeds_ends_the_start(spawn: Spawner, mode: list[str]) -> None:
    (Path(spawn.directory) / "fat.py").write_text(
        "import os, time\nhoard = os.urandom(1 << 20) * 100\ntime.sleep(600)\n"
    )
    pool = spawn("-n", 1, "--app", "fat:application", "--hard-memory", "80M", *mode, ready=False)
    assert pool.wait_exit() == 78
    assert re.search(r"hard-memory \(\d+ MiB private\) before its first request", pool.log)


EATER = """
import os, time

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/eat":
        hoard = os.urandom(1 << 20) * 200
        time.sleep(60)
    return [b"calm"]
"""


@pytest.mark.parametrize("freezes", [1, 0])
def test_what_requests_leave_behind_is_exempt_from_collections(spawn: Spawner, freezes: int) -> None:
    pool = spawn("-n", 1, *APP, "--gc-freezes", freezes)
    assert int(get(pool, "/objects?more=5000")) >= 5000
    for _ in range(LOOK_EVERY):
        left = int(get(pool, "/objects"))
    assert (left < 5000) == (freezes == 1)

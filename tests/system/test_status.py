"""--status-path and --ping-path: php-fpm's status page, answered by the pool."""

from __future__ import annotations

import json
import signal
from typing import Any

from workers.fastcgi import client

from .clients import params
from .pools import Pool, Spawner
from .processes import wait_until
from .visits import APP, busy_visit, get

STATUS = ("--status-path", "/status", "--ping-path", "/ping")


def status(pool: Pool) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get(pool, "/status?json&full"))
    return found


def only_one_runs(found: dict[str, Any]) -> dict[str, Any]:
    return found if found["active processes"] == 1 else {}


def test_the_pool_answers_before_the_application(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP, *STATUS, "--ping-response", "all is well")
    assert get(pool, "/ping") == "all is well"
    head = client.request(str(pool.socket), params("/status", "HEAD"))
    assert (head.status, head.body) == (200, b"")
    assert get(pool, "/status").startswith("pool:                 trac\n")
    assert "id=5" in get(pool, "/echo?id=5")
    # Who has just sent an answer is at work on it for a moment yet.
    found = wait_until(lambda: only_one_runs(status(pool)), what="one worker at work")
    assert (found["pool"], found["process manager"], found["total processes"]) == ("trac", "static", 2)
    assert {process["pid"] for process in found["processes"]} == {m.pid for m in pool.workers()}
    # Who answers is at work on this very request.
    (busy,) = [process for process in found["processes"] if process["state"] == "Running"]
    assert (busy["request method"], busy["request uri"]) == ("GET", "/status?json&full")


def test_what_others_do_is_seen(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP, *STATUS)
    visit = busy_visit(pool, "/sleep?seconds=1")
    busy = [p for p in status(pool)["processes"] if p["request uri"].startswith("/sleep")]
    assert [process["state"] for process in busy] == ["Running"]
    assert visit.status() == 200


def test_counters_survive_the_workers(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP, *STATUS, "--max-requests", 3, "--max-requests-jitter", "0")
    for _ in range(20):
        get(pool, "/echo")
    pool.wait_for_line("max-requests")
    pool.signal(signal.SIGHUP)
    pool.wait_for_line("reloaded: generation 2")
    assert status(pool)["accepted conn"] == 21
    wait_until(lambda: only_one_runs(status(pool)), what="one worker at work")
    found = status(pool)
    assert found["answers 2xx"] in (found["accepted conn"] - 1, found["accepted conn"] - 2)


def test_the_master_tells_what_only_it_sees(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, *STATUS)
    wait_until(lambda: status(pool)["listen queue len"] > 0, what="a listen queue with a limit")
    visits = [busy_visit(pool, "/sleep?seconds=1.5")]
    waiting = [client.connect(str(pool.socket), 5) for _ in range(3)]
    assert visits[0].status() == 200
    found = status(pool)
    assert found["max listen queue"] >= 3 and found["max active processes"] == 1
    assert found["wanted processes"] == 1
    for sock in waiting:
        sock.close()

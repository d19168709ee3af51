"""--status-path and --ping-path: php-fpm's status page, answered by the pool."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil

from workers.fastcgi import client, records

from .clients import Load, params
from .pools import Pool, Spawner
from .processes import title, wait_gone, wait_until
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


def apart(tmp_path: Path) -> tuple[tuple[object, ...], str]:
    """Options for a status process, and where it listens."""
    where = str(tmp_path / "status.sock")
    return ("--status-listen", f"unix:{where}"), where


def test_the_status_process_answers_when_all_workers_are_busy(spawn: Spawner, tmp_path: Path) -> None:
    options, where = apart(tmp_path)
    pool = spawn("-n", 1, *APP, *STATUS, *options)
    visit = busy_visit(pool, "/sleep?seconds=2")
    found = json.loads(get(where, "/status?json&full"))
    assert (found["active processes"], found["idle processes"]) == (1, 0)
    assert found["processes"][0]["request uri"].startswith("/sleep")
    assert get(where, "/ping") == "pong"
    missing = client.request(where, params("/echo"))
    assert missing.status == 404
    assert client.request(where, params("/status", "POST")).status == 405
    assert visit.status() == 200


def test_the_status_process_is_replaced_and_leaves_with_the_master(spawn: Spawner, tmp_path: Path) -> None:
    options, where = apart(tmp_path)
    pool = spawn("-n", 1, *APP, *options)
    (first,) = status_processes(pool)
    os.kill(first, signal.SIGKILL)
    # Whoever comes meanwhile waits for the next one.
    assert json.loads(get(where, "/status?json"))["pool"] == "trac"
    (second,) = status_processes(pool)
    assert second != first
    assert pool.stop() == 0
    assert not Path(where).exists()


def test_a_status_process_that_is_stopped_is_replaced(spawn: Spawner, tmp_path: Path) -> None:
    options, where = apart(tmp_path)
    pool = spawn("-n", 1, *APP, *options)
    (first,) = status_processes(pool)
    os.kill(first, signal.SIGSTOP)
    assert json.loads(get(where, "/status?json"))["pool"] == "trac"
    assert status_processes(pool) != [first]
    # Nor does one keep a reload from its end.
    (second,) = status_processes(pool)
    os.kill(second, signal.SIGSTOP)
    pool.signal(signal.SIGHUP)
    pool.wait_for_line("reloaded: generation 2")
    assert json.loads(get(where, "/status?json"))["pool"] == "trac"
    assert status_processes(pool) != [second]


def test_the_status_process_follows_a_reload(spawn: Spawner, tmp_path: Path) -> None:
    options, where = apart(tmp_path)
    pool = spawn("-n", 1, *APP, *options)
    for _ in range(3):
        get(pool, "/echo")
    with Load(lambda id: (200, get(where, f"/status?json&{id}").encode() + id.encode()), 1) as load:
        pool.signal(signal.SIGHUP)
        pool.wait_for_line("reloaded: generation 2")
        load.wait_for(3)
    load.check()
    wait_until(lambda: json.loads(get(where, "/status?json"))["generation"] == 2)
    assert json.loads(get(where, "/status?json"))["accepted conn"] == 3


def test_the_status_process_survives_garbage(spawn: Spawner, tmp_path: Path) -> None:
    options, where = apart(tmp_path)
    pool = spawn("-n", 1, *APP, *options)
    (pid,) = status_processes(pool)
    slow = [client.connect(where, 5) for _ in range(50)]
    for sock in slow[::2]:
        sock.sendall(records.encode_begin_request(1)[:5])
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100_000, b"\x01\x01\x00\x01\xff\xff\x00\x00", b""):
        for _ in range(25):
            with contextlib.suppress(OSError), client.connect(where, 5) as sock:
                sock.sendall(garbage)
    found = get(where, "/status")
    assert "pool" in found
    head = client.request(where, params("/status", "HEAD"))
    assert head.status == 200 and head.body == b""
    for size, answer in ((60_000, 405), (100_000, 413)):
        post = params("/status", "POST", CONTENT_LENGTH=str(size))
        assert client.request(where, post, b"x" * size).status == answer
    assert client.request(where, params("/\0\xff\n/%00")).status == 404
    assert client.request(where, params("/status", COOKIE="x" * 2_000_000)).status == 431
    assert status_processes(pool) == [pid]
    for sock in slow:
        sock.close()


def test_the_status_process_has_no_rights(
    spawn_as_root: Spawner, tmp_path: Path, other_user: str
) -> None:
    options, where = apart(tmp_path)
    pool = spawn_as_root("-n", 1, *APP, "--user", other_user, *options)
    assert "pool" in get(where, "/status")
    (pid,) = status_processes(pool)
    assert psutil.Process(pid).uids().real == 65534
    # It keeps nothing of the pools: not their sockets, nor the master's.
    listening = {c.laddr for c in psutil.Process(pid).net_connections("unix") if c.laddr}
    assert listening <= {where}, listening


def status_processes(pool: Pool) -> list[int]:
    def found() -> list[int]:
        return [p.pid for p in pool.descendants() if title(p).startswith("trac-spawn: status")]

    return wait_until(lambda: found() if len(found()) == 1 else [], what="one status process")


def test_counters_survive_an_upgrade(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP, *STATUS)
    for _ in range(6):
        get(pool, "/echo")
    visit = busy_visit(pool, "/sleep?seconds=4")
    before = status(pool)
    assert before["max active processes"] == 2
    pool.signal(signal.SIGUSR2)
    successor = int(pool.wait_for_line(r"upgraded: process (\d+)")[1])
    # It is answered by the old program, and counted once that has ended.
    assert visit.status() == 200
    pool.wait_for_line("stopped; workers recycled")
    asked = 0

    def requests() -> int:
        nonlocal asked
        asked += 1
        return int(status(pool)["accepted conn"]) - asked

    wait_until(lambda: requests() == 8, what="the count of both programs")
    after = status(pool)
    assert all(after[peak] >= before[peak] for peak in ("max active processes", "memory peak"))
    os.kill(successor, signal.SIGTERM)
    wait_gone([successor])


def test_ten_thousand_connections_in_turn(spawn: Spawner, tmp_path: Path) -> None:
    """To the status process: most say nothing, some ask; every answer comes, nothing is left open."""
    options, where = apart(tmp_path)
    pool = spawn("-n", 1, *APP, *options)
    (pid,) = status_processes(pool)
    before = psutil.Process(pid).num_fds()
    for number in range(10_000):
        with client.connect(where, 20):
            if number % 500 == 0:
                assert "pool" in get(where, "/status?json")
    assert "pool" in get(where, "/status")
    wait_until(lambda: psutil.Process(pid).num_fds() <= before + 1, what="descriptors as before")
    assert status_processes(pool) == [pid]

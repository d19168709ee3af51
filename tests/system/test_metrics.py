"""--metrics: what Prometheus reads, over HTTP, and what its listener has to bear."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from spawner.addresses import parse_address
from spawner.helper import Helper
from spawner.listeners import Access, Listener, open_listener
from workers.channel import Channel

from .clients import Browser, fcgi_load
from .pools import Pool, Spawner
from .processes import PATIENCE, title, wait_gone, wait_until
from .visits import APP, METRICS, Visit, busy_visit, get, page_of

KINDS = ("state", "status", "cause", "result")


def scrape(browser: Browser) -> dict[str, float]:
    """Sums over labels but for the state, status or cause, as ``name/label``."""
    answer = browser.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            kind = [sample.labels[name] for name in KINDS if name in sample.labels]
            name = "/".join([sample.name, *kind])
            values[name] = values.get(name, 0) + sample.value
    return values


def settled(browser: Browser, requests: int) -> dict[str, float]:
    """Once so many requests were answered: who has just sent an answer has not counted it yet."""

    def found() -> dict[str, float]:
        values = scrape(browser)
        return values if values["trac_spawn_requests_total/2xx"] >= requests else {}

    return wait_until(found, what=f"{requests} requests counted")


def test_prometheus_sees_what_is_done(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP, *METRICS)
    browser = page_of(pool)
    for _ in range(5):
        get(pool, "/echo")
    visit = busy_visit(pool, "/sleep?seconds=1")
    values = settled(browser, 5)
    assert values["trac_spawn_request_duration_seconds_count"] == 5
    assert values["trac_spawn_workers/busy"] == 1 == values["trac_spawn_workers/idle"]
    wait_until(lambda: scrape(browser).get("trac_spawn_listen_queue_limit"), what="news of the master")
    assert scrape(browser)["trac_spawn_generation"] == 1
    assert visit.status() == 200
    assert "version=0.0.4" in browser.get("/metrics").headers["Content-Type"]
    assert get_by_unix(spawn)


def test_how_long_a_connection_has_waited(spawn: Spawner, tmp_path: Path) -> None:
    """Over TCP the kernel knows it; the only worker was busy meanwhile."""
    pool = spawn("--listen", "127.0.0.1:0", "-n", 1, *APP, *METRICS, listen=False)
    where = ("127.0.0.1", int(pool.wait_for_line(r"listening on 127\.0\.0\.1:(\d+)")[1]))
    browser = page_of(pool)
    go_on = tmp_path / "go-on"
    first = Visit(where, f"/wait?file={go_on}")
    pool.wait_workers(1, "busy")
    second = Visit(where, "/echo")
    wait_until(lambda: scrape(browser).get("trac_spawn_listen_queue"), what="a connection that waits")
    go_on.touch()
    assert first.status() == second.status() == 200
    values = settled(browser, 2)
    assert values["trac_spawn_request_queue_seconds_count"] == 2
    assert values["trac_spawn_request_queue_seconds_sum"] > 0


def get_by_unix(spawn: Spawner) -> bool:
    where = spawn.directory / "metrics"
    spawn("-n", 1, *APP, "--metrics", f"unix:{where}")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(where))
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        answer = b""
        while data := sock.recv(65536):
            answer += data
    return answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"# EOF\n")


def test_no_counter_falls(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP, *METRICS, "--max-requests", 3, "--max-requests-jitter", "0")
    browser = page_of(pool)
    for _ in range(10):
        get(pool, "/echo")
    pool.wait_for_line("max-requests")
    (victim, *_) = pool.wait_workers(2, "idle")
    os.kill(victim.pid, signal.SIGKILL)
    pool.wait_for_line("died: ")
    pool.signal(signal.SIGHUP)
    pool.wait_for_line("reloaded: generation 2")
    values = settled(browser, 10)
    assert values["trac_spawn_requests_total/2xx"] == 10
    wait_until(lambda: scrape(browser)["trac_spawn_reloads_total/ok"] == 1)
    values = scrape(browser)
    assert values["trac_spawn_recycled_workers_total/max-requests"] >= 1
    assert values["trac_spawn_dead_workers_total/SIGKILL"] == 1
    assert values["trac_spawn_request_duration_seconds_count"] == 10


def test_no_counter_falls_at_an_upgrade(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, *METRICS)
    browser = page_of(pool)
    for _ in range(10):
        get(pool, "/echo")
    pool.signal(signal.SIGHUP)
    pool.wait_for_line("reloaded: generation 2")
    settled(browser, 10)
    visit = busy_visit(pool, "/sleep?seconds=0.5")
    os.kill(pool.pid, signal.SIGUSR2)
    successor = int(pool.wait_for_line(r"upgraded: process (\d+)")[1])
    assert visit.status() == 200 and pool.wait_exit() == 0
    # What the old master's last worker has counted too.
    values = settled(browser, 11)
    assert values["trac_spawn_requests_total/2xx"] == 11
    wait_until(lambda: scrape(browser).get("trac_spawn_reloads_total/ok") == 1)
    os.kill(successor, signal.SIGTERM)
    wait_gone([successor])


def test_whoever_looks_during_an_upgrade_sees_no_counter_fall(spawn: Spawner) -> None:
    """Two programs answer requests for a moment; of two status processes each would show its own count."""
    pool = spawn("-n", 2, *APP, *METRICS)
    browser = page_of(pool)
    seen = [0]

    def look() -> int:
        # The same counts as in the metrics, and sooner read.
        seen.append(json.loads(browser.get("/status?json").text)["answers 2xx"])
        return seen[-1]

    with fcgi_load(pool.socket) as load:
        load.wait_for(50)
        os.kill(pool.pid, signal.SIGUSR2)
        while "upgraded: process" not in pool.log:
            assert look() and pool.pid
        pool.wait_exit()
        enough = look() + 50
        wait_until(lambda: look() >= enough, what="more requests")
    load.check()
    successor = int(pool.wait_for_line(r"upgraded: process (\d+)")[1])
    os.kill(successor, signal.SIGTERM)
    wait_gone([successor])
    assert seen == sorted(seen)


@pytest.mark.parametrize("deaf", [False, True])
def test_whoever_makes_way_shows_nothing_any_more(tmp_path: Path, deaf: bool) -> None:
    """What it has shown is in what the new master is told, and not the other way round."""
    reader, writer = os.pipe()

    def run(listeners: list[Listener], channel: Channel) -> None:
        if deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(writer, str(os.getpid()).encode())
        time.sleep(600)

    with selectors.DefaultSelector() as selector:
        helper = Helper(selector, run)
        helper.listeners = [open_listener(parse_address(f"unix:{tmp_path}/s"), 1, Access())]
        helper.start()
        pid = int(os.read(reader, 20))
        helper.retire()
        assert not psutil.pid_exists(pid) and not helper.wanted
        helper.close()
    os.close(reader)
    os.close(writer)


def status_process(pool: Pool) -> int:
    def found() -> list[int]:
        return [p.pid for p in pool.descendants() if title(p).startswith("trac-spawn: status")]

    return wait_until(lambda: found() if len(found()) == 1 else [], what="one status process")[0]


GARBAGE = (
    b"\x01\x01\x00\x01\x00\x08\x00\x00" * 100,
    b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n" + b"x" * 50_000,
    b"GET  / HTTP/9\r\n\r\n", b"\r\n\r\n", b"",
)  # fmt: skip


def test_the_listener_stands_bad_input(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, *METRICS)
    browser = page_of(pool)
    pid = status_process(pool)
    where = (browser.host, browser.port)
    slow = [socket.create_connection(where, PATIENCE) for _ in range(50)]
    for sock in slow:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHo")
    for garbage in GARBAGE:
        for _ in range(10):
            with contextlib.suppress(OSError), socket.create_connection(where, PATIENCE) as sock:
                sock.sendall(garbage)
    assert browser.request("HEAD", "/metrics").body == b""
    assert browser.request("POST", "/metrics", b"x" * 100_000).status == 405
    assert browser.get("/elsewhere").status == 404
    assert browser.get("/metrics", X="y" * 40_000).status == 431
    assert scrape(browser)["trac_spawn_workers/idle"] == 1
    assert status_process(pool) == pid
    for sock in slow:
        sock.close()


def test_ten_thousand_connections_in_turn(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, *METRICS, "--rlimit-files", 256)
    browser = page_of(pool)
    pid = status_process(pool)
    for number in range(10_000):
        with contextlib.suppress(OSError), socket.create_connection((browser.host, browser.port)) as sock:
            if number % 2:
                # And let it answer, or the next ones find its queue full, and wait for a second.
                sock.sendall(b"HEAD / HTTP/1.1\r\n\r\n")
                assert sock.recv(10)
    assert scrape(browser)["trac_spawn_workers/idle"] == 1
    assert status_process(pool) == pid


def test_a_public_address_is_warned_of(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, "--metrics", "0.0.0.0:0")
    pool.wait_for_line(r"--metrics: whoever reaches 0\.0\.0\.0:\d+ sees what visitors request")


def test_a_name_from_elsewhere_leads_nowhere(spawn: Spawner) -> None:
    """DNS rebinding: a page elsewhere gives its own name the address 127.0.0.1."""
    browser = page_of(spawn("-n", 1, *APP, *METRICS))
    for host in ("evil.example", f"evil.example:{browser.port}", "", "127.0.0.1.evil.example"):
        assert browser.get("/", Host=host).status == 421, host
    for host in ("localhost:1", "127.0.0.1", "[::1]:9180", "trac.localhost"):
        assert browser.get("/metrics", Host=host).status == 200, host

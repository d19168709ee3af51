"""What is done to a pool under steady load, for long: each answer is checked, and nothing is lost.

Most of it goes straight to the socket, where nobody makes a request again that was lost.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from .clients import fcgi_load, http_load
from .control import ask, reload
from .pools import Spawner
from .processes import wait_until
from .visits import APP
from .webservers import WebServers


def test_ten_thousand_requests_with_workers_of_fifty(spawn: Spawner) -> None:
    pool = spawn("-n", 4, *APP, "--max-requests", 50)
    with fcgi_load(pool.socket) as load:
        load.wait_for(10_000, timeout=100)
    load.check(at_least=10_000)
    assert pool.stop() == 0
    (number,) = re.findall(r"stopped; workers recycled: (\d+) max-requests$", pool.log, re.M)
    # On a busy machine they serve more than fifty: each serves until its successor is ready.
    assert int(number) >= 10
    assert "died" not in pool.log


LOCATION = """
location / {{
    include /etc/nginx/fastcgi_params;
    fastcgi_param SCRIPT_NAME "";
    fastcgi_param PATH_INFO $fastcgi_script_name;
    fastcgi_next_upstream off;
    fastcgi_pass unix:{socket};
}}
"""


def test_everything_in_turn_behind_a_web_server(spawn: Spawner, webservers: WebServers) -> None:
    pool = spawn("-n", 2, *APP)
    server = webservers.nginx(LOCATION.format(socket=pool.socket))
    with http_load(server.url) as load:
        load.wait_for(20)
        for _ in range(2):
            reload(pool)
            ask(pool, "scale", "trac", "+2")
            pool.wait_workers(4)
            ask(pool, "recycle")
            ask(pool, "scale", "trac", "-3")
            pool.wait_workers(1)
            pool.signal(signal.SIGTTIN)
            pool.wait_workers(2)
            load.wait_for(20)
    load.check(at_least=60)
    assert "died" not in pool.log
    assert pool.stop() == 0


def test_a_worker_killed_every_half_second_costs_its_request_at_most(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP)
    killed = 0
    with fcgi_load(pool.socket) as load:
        for _ in range(6):
            pool.wait_workers(2)
            victim = pool.workers()[killed % 2].pid
            os.kill(victim, signal.SIGKILL)
            killed += 1
            pool.wait_for_line(rf"\(pid {victim}\) died: SIGKILL")
            begun = time.monotonic()
            load.wait_for(20)
            wait_until(lambda: time.monotonic() - begun > 0.5)  # noqa: B023
    # What had been accepted and not read yet is reset with it: its peer knows that it can be sent again.
    read = [failure for failure in load.failures if "ConnectionResetError" not in failure.reason]
    assert len(read) <= killed, load.failures
    assert len(load.failures) <= killed * load.threads, load.failures
    # They have answered requests, so their deaths are no loop.
    assert "next try" not in pool.log
    assert pool.stop() == 0


def test_a_reload_keeps_the_capacity_within_the_surge(spawn: Spawner) -> None:
    pool = spawn("-n", 3, *APP, "--max-surge", 1)
    wanted = 3
    over = threading.Event()

    def look() -> list[list[str]]:
        seen = []
        while not over.is_set():
            seen.append([worker["state"] for worker in ask(pool, "status")["pools"][0]["workers"]])
        return seen

    with fcgi_load(pool.socket, pause=0.01) as load, ThreadPoolExecutor(1) as watching:
        seen = watching.submit(look)
        try:
            for _ in range(3):
                reload(pool)
                load.wait_for(10)
        finally:
            over.set()
    load.check()
    # Raises what went wrong in looking.
    assert len(seen.result()) > 3
    for states in seen.result():
        assert sum(state in ("idle", "busy") for state in states) >= wanted, states
        assert sum(state != "leaving" for state in states) <= wanted + 1, states
    assert pool.stop() == 0

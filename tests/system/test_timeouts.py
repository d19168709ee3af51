"""Requests that take too long, and applications that do not start: one slot for a limited time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.fastcgi import client

from .clients import params
from .control import ask
from .pools import MODES, Pool, Spawner
from .processes import PATIENCE, wait_until
from .tracenv import configure
from .visits import APP, Visit, get

STUCK = """
import signal, time
from tests.system.apps import application as whole

def forever_in_python():
    while True:
        pass

def forever_deaf():
    while True:
        try:
            time.sleep(60)
        except:
            pass

def forever_in_c():
    sum(range(10**15))  # with the interpreter lock held, and no look at signals

def forever_blocked():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(600)

def forever_asleep():
    time.sleep(600)

def application(environ, start_response):
    name = environ["PATH_INFO"][1:]
    if name.startswith("begun-"):
        start_response("200 OK", [("Content-Type", "text/plain")])(b"so far")
        name = name[len("begun-"):]
    if name.startswith("forever"):
        globals()[name]()
    return whole(environ, start_response)
"""


STUCK_RULES = """
import time
from tests.system.apps import application
from workers.rules import Rules

plain = Rules.apply

def apply(self, environ):
    if environ["PATH_INFO"] == "/stuck":
        time.sleep(600)
    plain(self, environ)

Rules.apply = apply
"""


def stuck_pool(spawn: Spawner, tmp_path: Path, *options: object) -> Pool:
    (tmp_path / "stuck.py").write_text(STUCK)
    return spawn("-n", 2, "--app", "stuck:application", *options, cwd=tmp_path)


@pytest.mark.parametrize("kind", ["forever_asleep", "forever_in_python"])
def test_python_code_is_interrupted(spawn: Spawner, tmp_path: Path, kind: str) -> None:
    pool = stuck_pool(spawn, tmp_path, "--request-timeout", "0.5")
    stuck = {worker.pid for worker in pool.workers()}
    visit = Visit(pool, f"/{kind}?user=joe")
    get(pool, "/echo")  # the other one serves
    assert visit.status() == 504
    pool.wait_for_line(rf"recycled: request-timeout \(.* s: GET .*{kind}")
    pool.wait_for_line("the stack of that request")
    pool.wait_for_line(rf"in {kind}$")
    wait_until(lambda: len({worker.pid for worker in pool.workers("idle")} - stuck) == 1)
    (death,) = ask(pool, "last-deaths")["deaths"]
    assert kind in death["request"] and kind in death["traceback"]
    assert "killed" not in pool.log
    assert pool.stop() == 0


@pytest.mark.parametrize("kind", ["forever_deaf", "forever_in_c", "forever_blocked"])
def test_what_cannot_be_interrupted_is_killed(spawn: Spawner, tmp_path: Path, kind: str) -> None:
    pool = stuck_pool(spawn, tmp_path, "--request-timeout", "0.5", "--kill-after", "0.5")
    assert Visit(pool, f"/{kind}").lost()
    pool.wait_for_line("does not end by itself: killed")
    pool.wait_for_line("the stack of that request")
    # Who blocks all signals cannot be looked into; C code that holds the lock can.
    pool.wait_for_line("unknown" if kind == "forever_blocked" else rf"in {kind}$")
    get(pool, "/echo")
    # It has died once, of one cause.
    (death,) = ask(pool, "last-deaths")["deaths"]
    assert death["reason"].startswith("request-timeout (")
    pool.wait_workers(2, "idle")
    assert pool.stop() == 0


def test_an_answer_that_has_begun_is_cut(spawn: Spawner, tmp_path: Path) -> None:
    pool = stuck_pool(spawn, tmp_path, "--request-timeout", "0.5")
    assert Visit(pool, "/begun-forever_asleep").lost()
    assert pool.stop() == 0


def test_trac_swallows_everything_and_is_ended_all_the_same(spawn: Spawner, own_env: Path) -> None:
    (own_env / "plugins").mkdir(exist_ok=True)
    (own_env / "plugins" / "stuck.py").write_text(
        "import time\n"
        "from trac.core import Component, implements\n"
        "from trac.web.api import IRequestHandler\n\n"
        "class Stuck(Component):\n"
        "    implements(IRequestHandler)\n\n"
        "    def match_request(self, req):\n"
        "        return req.path_info == '/stuck'\n\n"
        "    def process_request(self, req):\n"
        "        time.sleep(600)\n"
    )
    configure(own_env, "components", "stuck.*", "enabled")
    pool = spawn("-n", 1, "--env", own_env, "--request-timeout", "1")
    assert Visit(pool, "/stuck").status() == 504
    pool.wait_for_line("in process_request")
    get(pool, "/wiki/WikiStart")
    assert pool.stop() == 0


def test_a_look_at_directories_that_takes_too_long(spawn: Spawner, tmp_path: Path) -> None:
    """--env-from-params looks at them before the application is called; they may be on a network."""
    (tmp_path / "stuck_rules.py").write_text(STUCK_RULES)
    pool = spawn("-n", 1, "--app", "stuck_rules:application", "--request-timeout", "0.5", cwd=tmp_path)
    assert Visit(pool, "/stuck").status() == 504
    pool.wait_for_line(r"recycled: request-timeout \(.* s: GET /stuck")
    get(pool, "/echo")
    assert "RequestTimedOut" not in pool.log
    assert pool.stop() == 0


def test_an_idle_kept_open_connection_is_no_request(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, "--request-timeout", "0.5")
    before = pool.workers()[0].pid
    with client.connect(str(pool.socket), PATIENCE) as kept:
        for _ in range(2):
            answer = client.request(kept, params("/echo"), keep_connection=True, timeout=PATIENCE)
            assert answer.body == f"id= pid={before}\n".encode()
            # Longer than the time-out in all, and each of them shorter.
            for _ in range(3):
                get(pool, "/sleep?seconds=0.3")
    assert pool.workers()[0].pid == before and "recycled" not in pool.log
    assert pool.stop() == 0


def test_the_slow_log(spawn: Spawner, tmp_path: Path) -> None:
    slow = tmp_path / "slow.log"
    pool = spawn("-n", 2, *APP, "--slow-after", "0.3", "--slow-log", slow)
    get(pool, "/sleep?seconds=1.5")
    text = slow.read_text()
    assert text.count("GET ") == 1  # once, though it was looked at several times
    assert "/sleep" in text and "in _sleep" in text
    assert len(pool.workers()) == 2 and "recycled" not in pool.log
    assert pool.stop() == 0


@MODES
def test_an_application_that_never_loads(spawn: Spawner, tmp_path: Path, mode: list[str]) -> None:
    (tmp_path / "endless.py").write_text("import time\ntime.sleep(600)\n")
    pool = spawn(
        "-n", 1, "--app", "endless:application", "--startup-timeout", "0.5", *mode,
        cwd=tmp_path, ready=False,
    )  # fmt: skip
    assert pool.wait_exit() == os.EX_TEMPFAIL
    assert "--startup-timeout" in pool.log


def test_warm_up_pages(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, "--warmup", "/raise?message=cold", ready=False)
    pool.wait_for_line("ready: 1 workers")
    assert "warm-up of /raise" in pool.log
    assert pool.stop() == 0
    strict = spawn("-n", 1, *APP, "--warmup", "/raise", "--warmup-strict", ready=False)
    assert strict.wait_exit() == os.EX_SOFTWARE
    assert "--warmup /raise failed" in strict.log

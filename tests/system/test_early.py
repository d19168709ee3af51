"""The first workers: they serve before the template has warmed up, and are replaced once it has."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Callable, Optional, TextIO

import pytest

from .clients import fcgi_load
from .control import ask, ctl, end, reload, upgrade
from .pools import Pool, Spawner
from .processes import descendants, wait_gone, wait_until
from .visits import get

#: Holds whoever requests a page for which there is a pipe until somebody opens that for writing, and
#: answers /early.
GATES = """
import os, threading
from trac.core import Component, implements
from trac.web.api import IRequestFilter, IRequestHandler

class Gates(Component):
    implements(IRequestFilter, IRequestHandler)

    def match_request(self, req):
        return req.path_info == "/early"

    def process_request(self, req):
        req.send(f"{os.getpid()} {req.args.get('id')}".encode(), "text/plain")

    def pre_process_request(self, req, handler):
        gate = self.env.path + "/gate" + req.path_info.replace("/", "-")
        if os.path.exists(gate):
            text = open(gate).read()
            if text == "thread":
                threading.Thread(target=threading.Event().wait, name="cleaner", daemon=True).start()
            elif text:
                os._exit(int(text))
        return handler

    def post_process_request(self, req, template, data, metadata):
        return template, data, metadata
"""
PAGE = "/early?id={id}"
WARMS_UP = r"template gen 1 \(pid (\d+)\) warms up while its first workers serve$"


class Gate:
    """At one page of the warm-up."""

    def __init__(self, env: Path, page: str) -> None:
        self._path = env / f"gate-{page}"
        self._end: Optional[TextIO] = None
        os.mkfifo(self._path)

    def wait(self) -> None:
        """Until somebody stands there, who is the only one that it will hold."""
        self._end = open(self._path, "w")  # noqa: SIM115
        self._path.unlink()

    def open(self, text: str = "") -> None:
        """Let whoever comes, or stands there, go on. ``text`` makes the plugin do other things."""
        if self._end is None:
            self.wait()
        assert self._end is not None
        with self._end:
            self._end.write(text)


@pytest.fixture
def gate(own_env: Path) -> Callable[[str], Gate]:
    (own_env / "plugins" / "gates.py").write_text(GATES)
    return lambda page: Gate(own_env, page)


@pytest.fixture
def cold(spawn: Spawner, own_env: Path, gate: Callable[[str], Gate]) -> Callable[..., Pool]:
    """Starts a pool, until its first workers serve."""

    def start(*options: object) -> Pool:
        pool = spawn("--env", own_env, *options, ready=False)
        return pool.wait_ready()

    return start


def pids(pool: Pool, state: str = "") -> set[int]:
    return {worker.pid for worker in pool.workers(state)}


def recycled(pool: Pool, reason: str = "warm-up") -> int:
    return len(re.findall(rf"recycled: {reason}$", pool.log, re.M))


def wait_replaced(pool: Pool, before: set[int]) -> None:
    """By as many warm ones."""
    wait_until(lambda: not pids(pool) & before, what="warm workers")
    assert len(pool.workers()) == len(before)


def test_they_serve_before_the_template_is_warm_and_are_replaced(
    cold: Callable[..., Pool], gate: Callable[[str], Gate]
) -> None:
    about = gate("about")
    pool = cold("-n", 2)
    first = pids(pool)
    assert len(first) == 2
    assert pool.template().state == "warming"
    assert "template: pid" in (told := ctl(pool, "status").stdout) and "generation 1, warming up" in told
    with fcgi_load(pool.socket, PAGE, threads=2, pause=0.02) as load:
        load.wait_for(20)
        assert pids(pool) == first
        about.open()
        pool.wait_for_line("template gen 1 .* ready$")
        wait_replaced(pool, first)
        load.wait_for(20)
    load.check()
    (status,) = ask(pool, "status")["pools"]
    assert (status["recycles"], status["deaths"]) == ({"warm-up": 2}, {})
    assert (status["template"]["ready"], status["template"]["warming_up"]) == (True, False)
    assert pool.template().state == ""
    assert pool.stop() == 0
    pool.wait_for_line("stopped; workers recycled: 2 warm-up$")
    assert "died" not in pool.log


def test_one_that_is_killed_is_replaced_between_two_steps(
    cold: Callable[..., Pool], gate: Callable[[str], Gate]
) -> None:
    timeline, about = gate("timeline"), gate("about")
    pool = cold("-n", 2)
    victim, other = sorted(pids(pool))
    os.kill(victim, signal.SIGKILL)
    pool.wait_for_line("died: SIGKILL")
    timeline.open()
    wait_until(lambda: len(pids(pool, "idle") - {victim}) == 2)
    assert pool.template().state == "warming"
    (new,) = pids(pool) - {other}
    with fcgi_load(pool.socket, PAGE, threads=2, pause=0.02) as load:
        load.wait_for(10)
        about.open()
        wait_replaced(pool, {new, other})
    load.check()
    assert recycled(pool) == 2


def test_a_template_that_is_killed_meanwhile(cold: Callable[..., Pool], gate: Callable[[str], Gate]) -> None:
    about = gate("about")
    pool = cold("-n", 2)
    first = pids(pool)
    with fcgi_load(pool.socket, PAGE, threads=2, pause=0.02) as load:
        os.kill(pool.template().pid, signal.SIGKILL)
        pool.wait_for_line("template gen 1 .* died early: SIGKILL; next try in 0.1 s")
        wait_until(lambda: [one.state for one in pool.members("template")] == ["loading"])
        assert pids(pool) == first
        about.open()
        # Somebody serves, so this one is in no hurry.
        pool.wait_for_line("template gen 2 .* ready$")
        wait_replaced(pool, first)
        load.wait_for(10)
    load.check()
    assert {worker.generation for worker in pool.workers()} == {2}
    assert pool.log.count("warms up while") == 1


def test_a_page_that_ends_the_template(cold: Callable[..., Pool], gate: Callable[[str], Gate]) -> None:
    about = gate("about")
    pool = cold("-n", 1)
    first = pids(pool)
    about.open("3")
    pool.wait_for_line("template gen 1 .* died early: exit status 3; next try in 0.1 s")
    pool.wait_for_line("template gen 2 .* ready$")
    wait_replaced(pool, first)
    assert get(pool, "/early?id=x").endswith(" x")


def test_a_page_that_hangs(cold: Callable[..., Pool], gate: Callable[[str], Gate]) -> None:
    about = gate("about")
    pool = cold("-n", 1, "--startup-timeout", "4s")
    first = pids(pool)
    pool.wait_for_line(r"template gen 1 .* cannot start: not ready within 4 s \(--startup-timeout\); next")
    assert pids(pool) == first
    about.open()
    wait_replaced(pool, first)


def test_a_page_that_makes_forking_unsafe(cold: Callable[..., Pool], gate: Callable[[str], Gate]) -> None:
    about = gate("about")
    pool = cold("-n", 2)
    first = pids(pool)
    about.open("thread")
    pool.wait_for_line(r"not safe to fork, .*: 1 thread\(s\) are running: cleaner$")
    wait_replaced(pool, first)
    assert pool.members("template") == []
    assert get(pool, "/early?id=x").endswith(" x")


def test_a_page_that_makes_forking_unsafe_when_a_worker_is_wanted(
    cold: Callable[..., Pool], gate: Callable[[str], Gate]
) -> None:
    timeline = gate("timeline")
    pool = cold("-n", 2)
    first = pids(pool)
    os.kill(min(first), signal.SIGKILL)
    pool.wait_for_line("died: SIGKILL")
    timeline.open("thread")
    pool.wait_for_line("not safe to fork")
    wait_until(lambda: len(pids(pool, "idle") - first) == 2)
    assert get(pool, "/early?id=x").endswith(" x")


def test_a_stop_meanwhile(cold: Callable[..., Pool], gate: Callable[[str], Gate]) -> None:
    gate("about")
    pool = cold("-n", 2)
    children = descendants(pool.pid)
    assert pool.stop() == 0
    wait_gone([child.pid for child in children])
    assert not pool.socket.exists()
    pool.wait_for_line("stopped; workers recycled: none$")


def test_a_reload_meanwhile(cold: Callable[..., Pool], gate: Callable[[str], Gate]) -> None:
    about = gate("about")
    pool = cold("-n", 2)
    about.wait()
    first = pids(pool)
    with fcgi_load(pool.socket, PAGE, threads=2, pause=0.02) as load:
        load.wait_for(10)
        reload(pool)
        load.wait_for(10)
    load.check()
    assert not pids(pool) & first
    assert {worker.generation for worker in pool.workers()} == {2}
    assert (recycled(pool), recycled(pool, "reload")) == (0, 2)
    assert pool.log.count("warms up while") == 1
    assert pool.stop() == 0


def test_an_upgrade_meanwhile(cold: Callable[..., Pool], gate: Callable[[str], Gate]) -> None:
    about = gate("about")
    pool = cold("-n", 1)
    about.wait()
    with fcgi_load(pool.socket, PAGE, threads=2, pause=0.02) as load:
        load.wait_for(10)
        successor = upgrade(pool)
        load.wait_for(10)
    load.check()
    # There was somebody who served.
    assert pool.log.count("warms up while") == 1
    end(pool, successor)


def test_a_pool_on_demand(cold: Callable[..., Pool], gate: Callable[[str], Gate]) -> None:
    timeline, about = gate("timeline"), gate("about")
    pool = cold("--pm", "ondemand", "--max-workers", 2)
    assert pool.workers() == []
    with fcgi_load(pool.socket, PAGE, threads=1) as load:
        timeline.open()
        load.wait_for(3)
        first = pids(pool)
        assert pool.template().state == "warming"
        about.open()
        wait_until(lambda: not pids(pool) & first)
        load.wait_for(3)
    load.check()


def test_a_daemon_is_ready_with_them(spawn: Spawner, own_env: Path, gate: Callable[[str], Gate]) -> None:
    about = gate("about")
    log = own_env / "spawn.log"
    command = spawn("-n", 1, "--env", own_env, "-D", "-P", own_env / "pid", "--log-file", log, ready=False)
    assert command.wait_exit() == 0
    master = int((own_env / "pid").read_text())
    # Whoever waits for the end of its output waits for none of them.
    for process in [master, *(child.pid for child in descendants(master))]:
        assert {os.readlink(f"/proc/{process}/fd/{number}") for number in (1, 2)} == {os.devnull}
    assert re.search(WARMS_UP, log.read_text(), re.M)
    about.open()
    wait_until(lambda: "recycled: warm-up" in log.read_text())
    os.kill(master, signal.SIGTERM)
    wait_gone([master])


def test_pages_of_the_administrator_come_before_visitors(spawn: Spawner, own_env: Path) -> None:
    pool = spawn("-n", 1, "--env", own_env, "--warmup", "/wiki/WikiStart")
    assert "warms up while" not in pool.log
    assert pool.stop() == 0
    pool.wait_for_line("stopped; workers recycled: none$")


def test_one_of_them_that_fails_still_fails_the_start(spawn: Spawner, own_env: Path) -> None:
    options = ("-n", 1, "--env", own_env, "--warmup", "/nowhere", "--warmup-strict")
    pool = spawn(*options, ready=False)
    assert pool.wait_exit() == os.EX_CONFIG
    assert "--warmup /nowhere is answered with: 404" in pool.log
    assert not re.search("worker .* ready", pool.log)


def test_all_environments_of_a_directory(spawn: Spawner, trac_parent: Path) -> None:
    pool = spawn("-n", 2, "--env-parent-dir", trac_parent, ready=False).wait_ready()
    first = set(map(int, re.findall(r"worker \d+ gen 1 \(pid (\d+)\) ready$", pool.log, re.M)[:2]))
    assert re.search(WARMS_UP, pool.log, re.M)
    with fcgi_load(pool.socket, "/one/search?q={id}") as load:
        wait_until(lambda: not pids(pool) & first)
        load.wait_for(3)
    load.check()
    assert recycled(pool) == 2

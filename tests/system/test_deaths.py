"""kill -9 of each kind of process, and what is lost by it: as good as nothing."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from .clients import fcgi_load
from .control import ask
from .pools import MODES, Pool, Spawner
from .processes import gone, wait_gone, wait_until
from .visits import APP, Visit, busy_visit, get, serving_pid


@MODES
def test_a_killed_worker_is_replaced_at_once(spawn: Spawner, mode: list[str]) -> None:
    pool = spawn("-n", 2, *APP, *mode)
    for _ in range(3):
        victim = serving_pid(pool)
        os.kill(victim, signal.SIGKILL)
        pool.wait_for_line(rf"worker \d gen 1 \(pid {victim}\) died: SIGKILL after")
        wait_until(lambda: len({w.pid for w in pool.workers("idle")} - {victim}) == 2)  # noqa: B023
        assert serving_pid(pool) != victim
    assert pool.stop() == 0


def test_a_killed_worker_loses_the_request_it_was_answering_and_no_other(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP)
    with fcgi_load(pool.socket) as load:
        load.wait_for(20)
        for _ in range(3):
            visit = Visit(pool, "/die")
            assert visit.lost()
            load.wait_for(20)
    load.check()
    pool.wait_for_line("died: SIGKILL after .*, in the middle of one")


@MODES
def test_a_crash_shows_where(spawn: Spawner, mode: list[str]) -> None:
    pool = spawn("-n", 1, *APP, *mode)
    Visit(pool, "/die?signal=SIGSEGV").join()
    pool.wait_for_line("died: SIGSEGV after 0 requests, in the middle of one: GET /die")
    pool.wait_for_line("Fatal Python error: Segmentation fault")
    pool.wait_for_line(r"apps.py., line \d+ in _die")
    (death,) = ask(pool, "last-deaths")["deaths"]
    assert death["reason"] == "SIGSEGV" and "in _die\n" in death["traceback"]
    # Not where trac-spawn itself was.
    assert "in respond\n" in death["traceback"] and "in run" not in death["traceback"]
    assert pool.stop() == 0


def test_all_workers_at_once(spawn: Spawner) -> None:
    pool = spawn("-n", 4, *APP)
    victims = {worker.pid for worker in pool.workers()}
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    get(pool, "/echo")
    wait_until(lambda: len({worker.pid for worker in pool.workers("idle")} - victims) == 4)


DOOMED = """
import os, threading
from tests.system.apps import application

def doom():
    if os.path.exists("doomed"):
        threading.Timer(0.05, os._exit, [1]).start()

os.register_at_fork(after_in_child=doom)
"""


def rounds(pool: Pool) -> int:
    """How many times at most workers were started, by the delays that the log tells of."""
    delays = re.findall(r"next try in (.*) s", pool.log)
    return len(set(delays)) + delays.count("1.0") + 2


def test_workers_that_die_when_they_are_ready_are_started_slowly(
    spawn: Spawner, tmp_path: Path
) -> None:
    (tmp_path / "doomed.py").write_text(DOOMED)
    pool = spawn("-n", 2, "--app", "doomed:application", cwd=tmp_path)
    (tmp_path / "doomed").touch()
    for worker in pool.workers():
        os.kill(worker.pid, signal.SIGKILL)
    pool.wait_for_line("workers die as soon as they are ready; next try in 0.8 s")
    started = pool.log.count("exit status 1")
    (tmp_path / "doomed").unlink()
    assert started <= 2 * rounds(pool)
    pool.wait_workers(2, "idle")
    get(pool, "/echo")
    assert pool.stop() == 0


def test_visitors_who_kill_every_worker_start_them_slowly(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP)
    with fcgi_load(pool.socket, "/die?id={id}") as load:
        pool.wait_for_line("workers die as soon as they are ready; next try in 1.0 s")
        assert load.requests <= 2 * rounds(pool) + load.threads
    get(pool, "/echo")
    pool.wait_workers(2, "idle")
    assert pool.stop() == 0


def test_a_killed_template_is_replaced_and_the_workers_serve_on(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP)
    workers = {worker.pid for worker in pool.workers()}
    with fcgi_load(pool.socket) as load:
        load.wait_for(10)
        template = pool.template().pid
        os.kill(template, signal.SIGKILL)
        pool.wait_for_line("template gen 1 .* died: SIGKILL$")
        pool.wait_for_line("template gen 2 .* ready$")
        load.wait_for(10)
    load.check()
    assert {worker.pid for worker in pool.workers()} == workers
    # The new one does its work: the other had only one worker to spare.
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: any(worker.generation == 2 for worker in pool.workers("idle")))


@pytest.mark.parametrize("dead", [4, 3], ids=["all", "but-one"])
def test_a_template_that_dies_with_orders_in_its_queue(spawn: Spawner, dead: int) -> None:
    pool = spawn("-n", 4, *APP, "--kill-after", 60)
    template = pool.template().pid
    # Stopped, it takes no order; the workers that the master asks for now are never born. One
    # that lives on must not keep the orders alive with it.
    os.kill(template, signal.SIGSTOP)
    victims = {worker.pid for worker in pool.workers()[:dead]}
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    wait_gone(victims)
    for _ in victims:
        pool.wait_for_line("died: SIGKILL")
    wait_until(lambda: pool.log.count("died: SIGKILL") == dead)
    os.kill(template, signal.SIGKILL)
    wait_until(lambda: len(pool.workers("idle")) == 4)
    get(pool, "/echo")
    assert pool.stop() == 0


def test_when_the_master_is_killed_the_idle_leave_at_once(spawn: Spawner) -> None:
    pool = spawn("-n", 3, *APP)
    family = [member.pid for member in pool.members()]
    pool.may_be_killed = True
    pool.signal(signal.SIGKILL)
    begun = time.monotonic()
    wait_gone(family)
    assert time.monotonic() - begun < 5.0  # one second, on a machine that is not busy
    pool.wait_exit()


def test_when_the_master_is_killed_a_request_is_finished_and_a_new_master_serves(
    spawn: Spawner, tmp_path: Path
) -> None:
    pool = spawn("-n", 2, *APP)
    visit = busy_visit(pool, f"/wait?file={tmp_path / 'enough'}&id=orphaned")
    (busy,) = pool.workers("busy")
    family = {member.pid for member in pool.members()}
    pool.may_be_killed = True
    pool.signal(signal.SIGKILL)
    pool.wait_exit()
    # On the same path, while the orphan is still at work.
    again = spawn("-s", pool.socket, "-n", 1, *APP, listen=False)
    again.socket = pool.socket
    assert not gone(busy.pid)
    assert serving_pid(again) not in family
    (tmp_path / "enough").touch()
    assert "id=orphaned" in visit.body()
    wait_gone(family)
    # The orphan has not taken the new one's socket with it.
    assert serving_pid(again) not in family
    assert again.stop() == 0


def test_when_the_master_is_killed_during_start_up_nothing_stays(
    spawn: Spawner, tmp_path: Path
) -> None:
    (tmp_path / "slowapp.py").write_text(
        "import time\nprint('loading', flush=True)\ntime.sleep(600)\ndef application(e, s): ...\n"
    )
    pool = spawn("-n", 2, "--app", "slowapp:application", ready=False)
    pool.wait_for_line("^loading$")
    family = [member.pid for member in pool.members()]
    assert len(family) == 2
    pool.may_be_killed = True
    pool.signal(signal.SIGKILL)
    wait_gone(family)
    pool.wait_exit()


def test_a_worker_cannot_make_the_master_signal_or_keep_anything(
    spawn: Spawner, tmp_path: Path
) -> None:
    """A worker may be taken over by whoever attacks the application; the master may be root."""
    (tmp_path / "evil.py").write_text(EVIL)
    pool = spawn("-n", 1, "--app", "evil:application")
    pool.spare()
    before = len(os.listdir(f"/proc/{pool.pid}/fd"))
    bystander = pool.template().pid
    first = pool.workers()[0].pid
    # A lie about its pid has no effect, and descriptors do not pile up in the master.
    assert get(pool, "/lie") == "OK"
    assert get(pool, "/descriptors") == "OK"
    assert pool.workers()[0].pid == first
    wait_until(lambda: len(os.listdir(f"/proc/{pool.pid}/fd")) <= before)
    # What is no message ends the worker that has sent it.
    Visit(pool, "/garbage").join()
    pool.wait_for_line(rf"worker 1 gen 1 \(pid {first}\) sends what is no message")
    wait_until(lambda: [w for w in pool.workers("idle") if w.pid != first])
    assert not gone(bystander)
    assert pool.stop() == 0


EVIL = """
import gc, json, socket
from workers.channel import Channel

def tell(data, descriptors=()):
    # Made after the template's heap was frozen, so it is this worker's own.
    (channel,) = [thing for thing in gc.get_objects() if isinstance(thing, Channel)]
    socket.send_fds(channel.socket, [data], list(descriptors))

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/lie":
        tell(json.dumps({"event": "spawned", "pid": 1, "sender": 1}).encode())
    elif path == "/descriptors":
        for _ in range(50):
            tell(json.dumps({"event": "other"}).encode(), [0, 0, 0])
    elif path == "/garbage":
        tell(b"garbage")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"OK"]
"""

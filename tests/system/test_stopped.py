"""Children that a signal keeps from running (SIGSTOP): nobody waits for them for long."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from workers.fastcgi import client

from .clients import fcgi_load, params
from .pools import MODES, Pool, Spawner
from .processes import PATIENCE, wait_gone, wait_until
from .visits import APP, busy_visit, get


def stop_worker(pool: Pool, state: str = "idle") -> int:
    victim = pool.workers(state)[0].pid
    os.kill(victim, signal.SIGSTOP)
    return victim


def wait_replaced(pool: Pool, victim: int, wanted: int = 2) -> None:
    pool.wait_for_line(rf"\(pid {victim}\) recycled: stopped by a signal$")
    wait_until(lambda: len([w for w in pool.workers("idle") if w.pid != victim]) == wanted)


def test_an_idle_worker_is_replaced_and_leaves_when_it_goes_on(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP, "--kill-after", 60)
    pool.wait_workers(2, "idle")
    with fcgi_load(pool.socket, pause=0.01) as load:
        load.wait_for(10)
        victim = stop_worker(pool, "")
        pool.wait_for_line(rf"\(pid {victim}\) recycled: stopped by a signal$")
        load.wait_for(10)
        os.kill(victim, signal.SIGCONT)
        wait_gone([victim])
        load.wait_for(10)
    load.check()
    pool.wait_for_line(rf"\(pid {victim}\) left after \d+ requests$")
    assert len(pool.workers()) == 2
    assert pool.stop() == 0


def test_a_request_is_finished_when_its_worker_goes_on(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP, "--kill-after", 60)
    visit = busy_visit(pool, "/sleep?seconds=0.5&id=held-up")
    victim = stop_worker(pool, "busy")
    wait_replaced(pool, victim)
    get(pool, "/echo")
    os.kill(victim, signal.SIGCONT)
    assert "id=held-up" in visit.body()
    wait_gone([victim])
    assert "died" not in pool.log
    assert pool.stop() == 0


def test_who_does_not_go_on_is_killed(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP, "--kill-after", "0.5")
    visit = busy_visit(pool, "/sleep?seconds=0.5")
    victim = stop_worker(pool, "busy")
    pool.wait_for_line(rf"\(pid {victim}\) is still stopped: killed$")
    assert visit.lost()
    wait_replaced(pool, victim)
    assert len(pool.workers()) == 2
    assert pool.stop() == 0


def test_stopped_workers_do_not_hold_up_the_stop(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP, "--kill-after", "0.5", "--stop-timeout", 600)
    pool.wait_workers(2, "idle")
    for worker in pool.workers():
        os.kill(worker.pid, signal.SIGSTOP)
    # In the queue, for a worker that is started to answer it.
    with client.connect(str(pool.socket), PATIENCE) as queued:
        pool.signal(signal.SIGTERM)
        answer = client.request(queued, params("/echo?id=queued"), timeout=PATIENCE)
    assert b"id=queued" in answer.body
    assert pool.wait_exit() == 0


def test_a_template_that_forks_no_more_is_replaced(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP, "--kill-after", "0.5")
    template = pool.template().pid
    os.kill(template, signal.SIGSTOP)
    victim = pool.workers()[0].pid
    os.kill(victim, signal.SIGKILL)
    pool.wait_for_line(rf"\(pid {template}\) is still stopped: killed$")
    pool.wait_workers(2, "idle")
    assert pool.template().pid != template
    assert pool.stop() == 0


HOOKED = """
import os, time
from tests.system.apps import application
os.register_at_fork(before=lambda: os.path.exists("stuck") and time.sleep(600))
"""


def test_a_template_that_hangs_in_a_fork_is_replaced(spawn: Spawner, tmp_path: Path) -> None:
    (tmp_path / "hooked.py").write_text(HOOKED)
    pool = spawn("-n", 1, "--app", "hooked:application", "--startup-timeout", 2, cwd=tmp_path)
    template = pool.template().pid
    (tmp_path / "stuck").touch()
    # It hangs in forking this one's replacement, or the next worker to spare.
    os.kill(pool.workers()[0].pid, signal.SIGKILL)
    pool.wait_for_line(r"not ready within 2 s \(--startup-timeout\)")
    (tmp_path / "stuck").unlink()
    wait_gone([template])
    pool.wait_workers(1, "idle")
    get(pool, "/echo")
    assert pool.stop() == 0


STOPS_ITSELF = """
import os, signal
from tests.system.apps import application
if os.path.exists("stops"):
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@MODES
def test_a_reload_does_not_wait_for_what_is_stopped(
    spawn: Spawner, tmp_path: Path, mode: list[str]
) -> None:
    (tmp_path / "stopping.py").write_text(STOPS_ITSELF)
    pool = spawn(
        "-n", 2, "--app", "stopping:application", "--kill-after", "0.5", *mode, cwd=tmp_path
    )
    before = {worker.pid for worker in pool.workers()}
    (tmp_path / "stops").touch()
    pool.signal(signal.SIGHUP)
    pool.wait_for_line("is still stopped: killed$")
    pool.wait_for_line("reload failed, the old generation serves on")
    wait_until(lambda: {worker.pid for worker in pool.workers()} == before)
    get(pool, "/echo")
    assert pool.stop() == 0

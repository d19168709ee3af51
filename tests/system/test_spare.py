"""The worker that is forked ahead: it takes the place of whoever dies, and is otherwise in nobody's way."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from .clients import fcgi_load
from .control import ask, ctl, end, reload, upgrade
from .pools import SPARE, Pool, Spawner
from .processes import descendants, title, wait_gone, wait_until
from .test_reload import VERSIONED, change, versioned
from .visits import APP, Visit, get, serving_pid


def spares(pool: Pool) -> list[int]:
    return [one.pid for one in descendants(pool.pid) if SPARE.search(title(one))]


def pids(pool: Pool, state: str = "") -> set[int]:
    return {worker.pid for worker in pool.workers(state)}


def test_it_takes_the_place_of_a_killed_worker(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP)
    victim, other = sorted(pids(pool))
    for count in range(1, 4):
        spare = pool.spare()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: pids(pool, "idle") == {spare, other})  # noqa: B023
        assert pool.log.count("died: SIGKILL") == count
        victim = spare
    assert pool.spare() not in {victim, other}
    get(pool, "/echo")
    assert pool.stop() == 0


def test_it_is_none_of_the_pool_and_seen_all_the_same(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP)
    spare = pool.spare()
    (status,) = ask(pool, "status")["pools"]
    assert status["spare"] == spare
    assert sorted(worker["slot"] for worker in status["workers"]) == [1, 2]
    assert (status["scoreboard"], status["recycles"], status["deaths"]) == ("__", {}, {})
    assert f"  spare worker: pid {spare}\n" in ctl(pool, "status").stdout


def test_one_template_forks_no_more_than_one(spawn: Spawner) -> None:
    pool = spawn("-n", 4, *APP)
    spare = pool.spare()
    victims = pids(pool)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(pids(pool, "idle") - victims) == 4)
    assert spare in pids(pool)
    assert pool.spare() not in pids(pool)
    assert len(spares(pool)) == 1


def test_its_own_death_costs_nothing(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    (worker,) = pids(pool)
    with fcgi_load(pool.socket, threads=1, pause=0.01) as load:
        spare = pool.spare()
        os.kill(spare, signal.SIGKILL)
        pool.wait_for_line(rf"INFO: spare gen 1 \(pid {spare}\) ended: SIGKILL$")
        assert pool.spare() != spare
        load.wait_for(5)
    load.check()
    assert pids(pool) == {worker}
    assert "died" not in pool.log


def test_both_are_killed_at_once(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    victims = {*pids(pool), pool.spare()}
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pids(pool, "idle") - victims)
    get(pool, "/echo")
    assert pool.spare() not in victims


def test_one_that_is_stopped_is_not_waited_for(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    spare = pool.spare()
    os.kill(spare, signal.SIGSTOP)
    pool.wait_for_line(rf"spare gen 1 \(pid {spare}\) ended: SIGKILL$")
    os.kill(serving_pid(pool), signal.SIGKILL)
    assert serving_pid(pool) != spare


def test_it_needs_no_template(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, "--kill-after", 60)
    spare = pool.spare()
    template = pool.template().pid
    os.kill(template, signal.SIGSTOP)
    try:
        os.kill(serving_pid(pool), signal.SIGKILL)
        assert serving_pid(pool) == spare
    finally:
        os.kill(template, signal.SIGCONT)
    os.kill(template, signal.SIGKILL)
    pool.wait_for_line("template gen 2 .* ready$")
    assert pool.spare() != spare
    assert pool.stop() == 0


def test_one_of_old_code_is_not_employed_after_a_reload(spawn: Spawner, tmp_path: Path) -> None:
    pool = versioned(spawn, tmp_path)
    old = pool.spare()
    change(tmp_path, VERSIONED.replace('"one"', '"two"'))
    reload(pool)
    wait_gone([old])
    spare = pool.spare()
    victims = pids(pool)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(pids(pool, "idle") - victims) == 2)
    assert spare in pids(pool)
    for _ in range(4):
        assert get(pool, "/version") == "two"
    assert f"(pid {old})" not in pool.log


def test_one_of_working_code_stays_after_a_reload_that_fails(spawn: Spawner, tmp_path: Path) -> None:
    pool = versioned(spawn, tmp_path)
    spare = pool.spare()
    change(tmp_path, "this is no Python")
    assert ctl(pool, "reload").returncode == os.EX_SOFTWARE
    os.kill(min(pids(pool)), signal.SIGKILL)
    wait_until(lambda: spare in pids(pool, "idle"))
    assert get(pool, "/version") == "one"


def test_it_leaves_with_the_pool(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    spare = pool.spare()
    assert pool.stop() == 0
    wait_gone([spare])
    assert f"(pid {spare})" not in pool.log


def test_a_killed_master_does_not_leave_it_behind(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    family = {*pids(pool), pool.template().pid, pool.spare()}
    pool.signal(signal.SIGKILL)
    pool.wait_exit()
    wait_gone(family)


def test_an_upgrade_ends_it(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    spare = pool.spare()
    successor = upgrade(pool)
    wait_gone([spare])
    end(pool, successor)


def test_it_writes_to_files_that_were_opened_again(spawn: Spawner, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    pool = spawn("-n", 1, *APP, "--access-log", log, "--access-format", "%r %p")
    spare = pool.spare()
    log.rename(tmp_path / "access.log.1")
    pool.signal(signal.SIGUSR1)
    pool.wait_for_line("log files opened again")
    os.kill(min(pids(pool)), signal.SIGKILL)
    assert serving_pid(pool) == spare
    wait_until(lambda: log.exists() and log.read_text() == f"/echo {spare}\n")


def test_without_a_template_there_is_none(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, "--no-template")
    get(pool, "/echo")
    assert ask(pool, "status")["pools"][0]["spare"] is None
    assert spares(pool) == []


def test_an_empty_pool_on_demand_keeps_none(spawn: Spawner) -> None:
    pool = spawn("--pm", "ondemand", "--max-workers", 2, "--idle-timeout", "1s", *APP)
    assert spares(pool) == []
    get(pool, "/echo")
    spare = pool.spare()
    pool.wait_workers(0)
    wait_gone([spare])
    assert spares(pool) == []
    get(pool, "/echo")


def test_neither_does_a_paused_one(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    spare = pool.spare()
    ask(pool, "pause")
    wait_gone([spare])
    visit = Visit(pool, "/echo?id=later")
    ask(pool, "resume")
    assert "id=later" in visit.body()
    assert pool.spare() != spare


def test_what_it_prints_has_the_number_that_it_was_given(spawn: Spawner, tmp_path: Path) -> None:
    (tmp_path / "talkative.py").write_text(
        "import os\n"
        "def application(environ, start_response):\n"
        "    print('here I am', flush=True)\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [str(os.getpid()).encode()]\n"
    )
    pool = spawn("-n", 1, "--app", "talkative:application", "--capture-output")
    spare = pool.spare()
    os.kill(min(pids(pool)), signal.SIGKILL)
    assert get(pool, "/") == str(spare)
    pool.wait_for_line(rf"worker 1 gen 1 \(pid {spare}\) says: here I am$")


def test_its_request_times_out_as_any_other(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, "--request-timeout", "1s")
    spare = pool.spare()
    os.kill(min(pids(pool)), signal.SIGKILL)
    assert serving_pid(pool) == spare
    assert Visit(pool, "/sleep?seconds=30").status() == 504
    pool.wait_for_line(rf"worker 1 gen 1 \(pid {spare}\): .*: the stack of that request:$")
    pool.wait_for_line(r'File ".*/tests/system/apps\.py", line \d+ in ')

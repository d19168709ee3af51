"""trac-spawnctl against a running master."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
from pathlib import Path
from typing import Any

from .clients import fcgi_load
from .control import ask, ctl
from .pools import Spawner
from .processes import PATIENCE, wait_until
from .visits import APP, busy_visit, get


def test_status_while_every_worker_is_busy(spawn: Spawner, tmp_path: Path) -> None:
    pool = spawn("-n", 2, *APP)
    get(pool, "/echo")
    visits = [busy_visit(pool, f"/wait?file={tmp_path / 'enough'}") for _ in range(2)]
    (status,) = ask(pool, "status")["pools"]
    assert status["name"] == "trac" and status["state"] == "running" and status["target"] == 2
    assert [worker["state"] for worker in status["workers"]] == ["busy", "busy"]
    assert {worker["pid"] for worker in status["workers"]} == {w.pid for w in pool.workers()}
    assert sum(worker["requests"] for worker in status["workers"]) == 1
    assert all(0 < worker["private"] < worker["rss"] for worker in status["workers"])
    (address,) = status["addresses"]
    assert address["address"] == f"unix:{pool.socket}"
    assert address["listen_queue"] == {"waiting": 0, "limit": 2048}
    text = ctl(pool, "status").stdout
    assert "2 of 2 workers ready, 2 busy" in text
    (tmp_path / "enough").touch()
    for visit in visits:
        visit.body()
    # GET_VALUES is answered by a worker, so this needs one that is free.
    assert f"unix:{pool.socket}" in ctl(pool, "ping").stdout
    assert pool.stop() == 0
    assert not pool.control.exists()


def test_reload_says_what_became_of_it(spawn: Spawner, tmp_path: Path) -> None:
    module = tmp_path / "changing.py"
    module.write_text("from tests.system.apps import application\n")
    pool = spawn("-n", 2, "--app", "changing:application", cwd=tmp_path)
    assert ask(pool, "reload") == {"pools": {"trac": 2}}
    module.write_text("raise RuntimeError('broken on purpose')\n" + " " * 80)
    failed = ctl(pool, "reload")
    assert failed.returncode == os.EX_SOFTWARE
    assert "broken on purpose" in failed.stderr and "Traceback" in failed.stderr
    (status,) = ask(pool, "status")["pools"]
    assert status["reloads"]["ok"] == 1 and status["reloads"]["failed"] == 1
    assert "broken on purpose" in status["reloads"]["last_error"]
    assert status["generation"] == 2
    get(pool, "/echo")
    assert ctl(pool, "reload", "other").returncode == os.EX_USAGE
    assert pool.stop() == 0


def test_scale_recycle_pause_and_resume_under_load(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP)
    with fcgi_load(pool.socket) as load:
        load.wait_for(20)
        answer = {"pool": "trac", "target": 4, "max_workers": 4}
        assert ask(pool, "scale", "trac", "+2") == answer
        pool.wait_workers(4)
        ask(pool, "scale", "trac", 1)
        pool.wait_workers(1)
        assert ctl(pool, "scale", "trac", 0).returncode == os.EX_USAGE
        before = pool.workers()[0].pid
        (slot,) = ask(pool, "recycle")["pools"]["trac"]
        # Under load no title ever says idle: another request follows at once.
        wait_until(lambda: pool.workers() and before not in {w.pid for w in pool.workers()})
        assert ctl(pool, "recycle", "trac", slot + 90).returncode == os.EX_USAGE
        ask(pool, "pause")
        wait_until(lambda: not pool.workers())
        assert ask(pool, "status")["pools"][0]["state"] == "paused"
        ask(pool, "resume")
        load.wait_for(20)
    load.check(100)
    assert pool.stop() == 0


def test_last_deaths_and_config(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    victim = pool.workers()[0].pid
    os.kill(victim, signal.SIGSEGV)
    wait_until(lambda: ask(pool, "last-deaths")["deaths"])
    (death,) = ask(pool, "last-deaths", "trac")["deaths"]
    assert death["pid"] == victim and death["reason"] == "SIGSEGV" and death["slot"] == 1
    assert death["rss"] > 1 << 20
    assert ask(pool, "status")["pools"][0]["deaths"] == {"SIGSEGV": 1}
    settings = {row["name"]: row for row in ask(pool, "config")["settings"]}
    assert settings["workers"]["value"] == "1"
    assert settings["workers"]["source"] == "command line --workers"
    assert pool.stop() == 0


def test_stop_answers_when_all_is_over(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    visit = busy_visit(pool, "/sleep?seconds=1")
    ask(pool, "stop")
    visit.body()
    assert pool.wait_exit() == 0


def test_abuse_costs_nobody_anything(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    clients = []
    for garbage in (b"", b"\x00\xff" * 10, b'{"verb": "no-such"}\n', b"[" * 5000 + b"\n") * 8:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(pool.control))
        client.sendall(garbage)
        clients.append(client)  # and never reads
    assert ask(pool, "status")["pools"][0]["state"] == "running"
    get(pool, "/echo")
    for client in clients:
        client.close()
    assert pool.stop() == 0


def test_a_thousand_connections_leave_nothing_behind(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    visit = busy_visit(pool, "/sleep?seconds=1")  # the only worker
    folder = f"/proc/{pool.pid}/fd"
    ask(pool, "status")  # for which the master keeps a socket to the kernel
    pool.spare()  # to which it has one as well
    before = len(os.listdir(folder))
    line = b'{"verb": "status"}\n'
    for number in range(1000):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(pool.control))
            # Whole, half, none, or whole and gone before the answer.
            client.sendall((line, line[:9], b"", line)[number % 4])
            if number % 4 == 0:
                assert client.recv(10) == b'{"ok": tru'
    assert ask(pool, "status")["pools"][0]["name"] == "trac"
    wait_until(lambda: len(os.listdir(folder)) <= before)
    visit.body()
    assert pool.stop() == 0


def test_who_reads_slowly_gets_all_and_holds_up_nobody(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    slow = []
    for _ in range(8):
        client = socket.socket(socket.AF_UNIX)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.settimeout(PATIENCE)
        client.connect(str(pool.control))
        client.sendall(b'{"verb": "config"}\n' * 50)
        slow.append(client)
    get(pool, "/echo")
    assert ask(pool, "status")["pools"][0]["state"] == "running"
    for client in slow:
        answers = b""
        while answers.count(b"\n") < 50:
            chunk = client.recv(100_000)
            assert chunk, "cut off"
            answers += chunk
        for answer in answers.splitlines():
            assert json.loads(answer)["ok"] is True
        client.close()
    assert pool.stop() == 0


def test_another_user_gets_nothing(
    spawn_as_root: Spawner, other_user: str, tmp_path: Path
) -> None:
    pool = spawn_as_root("-n", 1, *APP)
    assert pool.control.stat().st_mode & 0o777 == 0o600
    entry = pwd.getpwnam(other_user)
    another: dict[str, Any] = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "cwd": "/"}
    refused = ctl(pool, "stop", **another)
    assert refused.returncode == os.EX_NOPERM, refused.stderr
    # Even where the mode lets it in, the master looks who it is.
    pool.control.chmod(0o666)
    refused = ctl(pool, "stop", **another)
    assert refused.returncode == os.EX_NOPERM, refused.stderr
    assert "only root and the owner" in refused.stderr
    pool.wait_for_line(f"control: refused: uid {entry.pw_uid}")
    get(pool, "/echo")
    assert pool.stop() == 0


def test_nobody_answers(spawn: Spawner, tmp_path: Path) -> None:
    pool = spawn("-n", 1, *APP)
    assert pool.stop() == 0
    failed = ctl(pool, "status")
    assert failed.returncode == os.EX_UNAVAILABLE
    assert str(pool.control) in failed.stderr

"""As process 1 of a process namespace of its own, as in a container."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil

from .pools import BIN, Pool, Spawner, base_environment
from .processes import descendants, title, wait_gone, wait_until
from .visits import APP, get

#: Leaves a grandchild behind, which then belongs to process 1 and ends soon.
ORPHAN = """
import os, sys
if os.fork() == 0:
    if os.fork() == 0:
        os.read(0, 1)
    os._exit(0)
os.wait()
"""


def start(spawn: Spawner, tmp_path: Path, *options: object) -> tuple[Pool, psutil.Process]:
    """The pool, and its master as seen from here."""
    socket = tmp_path / "trac.sock"
    words = ["unshare", "-p", "-f", "--mount-proc", BIN / "trac-spawn", "-s", socket, *options]
    pool = Pool(
        [str(word) for word in words],
        spawn.supervisor.log_path("container"),
        env=base_environment(tmp_path, spawn.code),
        cwd=tmp_path,
    )
    pool.socket = socket
    spawn.supervisor.add(pool)
    pool.wait_ready()
    (master,) = [p for p in descendants(pool.pid) if title(p).startswith("trac-spawn: master")]
    return pool, master


def test_it_serves_replaces_and_stops(spawn: Spawner, tmp_path: Path) -> None:
    pool, master = start(spawn, tmp_path, "-n", 2, *APP)
    assert "[1] INFO: ready" in pool.log
    assert get(pool, "/echo?id=inside").startswith("id=inside")
    victim = pool.workers()[0].pid
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len({w.pid for w in pool.workers("idle")} - {victim}) == 2)
    get(pool, "/echo")
    master.terminate()
    assert pool.wait_exit() == 0
    assert not pool.socket.exists()


def test_unknown_children_are_reaped_silently(spawn: Spawner, tmp_path: Path) -> None:
    (tmp_path / "orphans.py").write_text(
        "import subprocess, sys\n"
        "def application(environ, start_response):\n"
        f"    child = subprocess.Popen([sys.executable, '-c', {ORPHAN!r}], stdin=subprocess.PIPE)\n"
        "    child.wait()\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    kept.append(child.stdin)\n"
        "    return [b'left behind']\n"
        "kept = []\n"
    )
    pool, master = start(spawn, tmp_path, "-n", 1, "--app", "orphans:application")
    pool.spare()  # no other child comes by itself
    known = {process.pid for process in master.children()}
    mark = pool.mark()
    assert get(pool, "/") == "left behind"
    # The orphan has become the master's child, and ends with the worker that holds its pipe.
    (orphan,) = [process for process in master.children() if process.pid not in known]
    worker = pool.workers()[0].pid
    os.kill(worker, signal.SIGTERM)
    wait_gone([worker])
    wait_until(lambda: not psutil.pid_exists(orphan.pid), what="the orphan reaped")
    pool.wait_workers(1, "idle")
    after = pool.log[mark:]
    assert "reaped" not in after and str(orphan.pid) not in after
    zombies = [p for p in master.children() if p.status() == psutil.STATUS_ZOMBIE]
    assert zombies == []
    master.terminate()
    assert pool.wait_exit() == 0


def test_a_first_start_that_fails(spawn: Spawner, tmp_path: Path) -> None:
    words = ["unshare", "-p", "-f", "--mount-proc", str(BIN / "trac-spawn"), "-s", "x.sock"]
    program = spawn.supervisor.start(
        [*words, "--app", "nosuchmodule:application"],
        "container",
        env=base_environment(tmp_path, spawn.code),
        cwd=tmp_path,
    )
    assert program.wait_exit() == os.EX_SOFTWARE
    assert "No module named 'nosuchmodule'" in program.log

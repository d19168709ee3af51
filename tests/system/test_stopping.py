"""TERM, QUIT and INT: everybody who is in gets an answer, and then nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from workers.fastcgi import client
from workers.fastcgi.connection import NEED_DATA

from .clients import Load, params
from .pools import MODES, Pool, Spawner
from .processes import PATIENCE, descendants, wait_gone, wait_until
from .visits import APP, Visit, busy_visit, get

POLITE = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGINT])


def left_nothing(pool: Pool, family: list[int]) -> None:
    wait_gone(family)
    assert not pool.socket.exists()


def family(pool: Pool) -> list[int]:
    return [member.pid for member in pool.members()]


@POLITE
def test_an_idle_pool(spawn: Spawner, number: signal.Signals) -> None:
    pool = spawn("-n", 2, *APP)
    members = family(pool)
    pool.signal(number)
    assert pool.wait_exit() == 0
    left_nothing(pool, members)
    pool.wait_for_line(f"{number.name} received")
    assert "died" not in pool.log


@POLITE
@MODES
def test_requests_in_progress_are_answered(
    spawn: Spawner, number: signal.Signals, mode: list[str]
) -> None:
    pool = spawn("-n", 2, *APP, *mode)
    visits = [busy_visit(pool, f"/sleep?seconds=1&id=visit{n}") for n in range(2)]
    members = family(pool)
    pool.signal(number)
    # First of all the path goes, so that a web server does not join the queue.
    wait_until(lambda: not pool.socket.exists())
    for n, visit in enumerate(visits):
        assert f"id=visit{n}" in visit.body()
    assert pool.wait_exit() == 0
    left_nothing(pool, members)


@MODES
def test_what_waits_in_the_queue_is_answered(spawn: Spawner, mode: list[str]) -> None:
    pool = spawn("-n", 1, *APP, *mode)
    first = busy_visit(pool, "/sleep?seconds=1&id=first")
    queued = [connect_and_send(pool, f"/echo?id=queued{n}") for n in range(50)]
    pool.signal(signal.SIGTERM)
    for n, visit in enumerate(queued):
        assert f"id=queued{n}" in receive(visit)
    assert "id=first" in first.body()
    assert pool.wait_exit() == 0


@MODES
def test_the_last_worker_dies_with_connections_in_the_queue(spawn: Spawner, mode: list[str]) -> None:
    pool = spawn("-n", 1, *APP, *mode)
    first = busy_visit(pool, "/sleep?seconds=60")
    victim = pool.workers("busy")[0].pid
    queued = [connect_and_send(pool, f"/echo?id=queued{n}") for n in range(5)]
    deadly = connect_and_send(pool, "/die")
    queued += [connect_and_send(pool, f"/echo?id=queued{n}") for n in range(5, 10)]
    pool.signal(signal.SIGTERM)
    pool.wait_for_line("stopping")
    os.kill(victim, signal.SIGKILL)
    assert first.lost()
    for n, visit in enumerate(queued):
        assert f"id=queued{n}" in receive(visit)
    assert deadly.socket.recv(100) == b""
    deadly.socket.close()
    assert pool.wait_exit() == 0
    assert pool.log.count("answers what the last one has left") == 2


class Sent:
    """A request that has been sent, on a connection that perhaps nobody has accepted."""

    def __init__(self, pool: Pool, path: str) -> None:
        self.socket = client.connect(str(pool.socket), PATIENCE)
        self.connection = client.ClientConnection()
        self.socket.sendall(self.connection.begin(params(path)) + self.connection.end_body())


def connect_and_send(pool: Pool, path: str) -> Sent:
    return Sent(pool, path)


def receive(sent: Sent) -> str:
    stdout = b""
    with sent.socket:
        while True:
            sent.connection.receive_data(sent.socket.recv(65536))
            while True:
                event = sent.connection.next_event()
                if isinstance(event, client.Stdout):
                    stdout += event.data
                elif isinstance(event, client.RequestEnded):
                    return stdout.decode()
                elif event is NEED_DATA:
                    break
                else:
                    raise AssertionError(f"{event} after {stdout!r}")


def load_until_refused(pool: Pool) -> Load:
    """Load that ends by itself when nobody is let in any more; what was let in must be answered."""
    address = str(pool.socket)

    def fetch(id: str) -> tuple[int, bytes]:
        try:
            sock = client.connect(address, PATIENCE)
        except (FileNotFoundError, ConnectionRefusedError):
            return 200, id.encode()  # the web server's other back end would serve this one
        with sock:
            response = client.request(sock, params(f"/echo?id={id}"), timeout=PATIENCE)
        return response.status, response.body

    return Load(fetch, threads=8)


@MODES
@pytest.mark.parametrize("everybody", [False, True], ids=["master", "every-process"])
def test_under_load(spawn: Spawner, mode: list[str], everybody: bool) -> None:
    """systemd sends SIGTERM to every process of a service at once (KillMode=control-group)."""
    pool = spawn("-n", 2, *APP, *mode)
    slow = busy_visit(pool, "/sleep?seconds=1&id=slow")
    with load_until_refused(pool) as load:
        load.wait_for(50)
        for pid in family(pool) if everybody else [pool.pid]:
            # The master is first, and an idle worker may have left already on its word.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        assert pool.wait_exit() == 0
    load.check(at_least=50)
    assert "id=slow" in slow.body()


def test_ctrl_c_under_load(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP)
    slow = busy_visit(pool, "/sleep?seconds=1&id=slow")
    with load_until_refused(pool) as load:
        load.wait_for(50)
        pool.interrupt()
        assert pool.wait_exit() == 0
    load.check(at_least=50)
    assert "id=slow" in slow.body()
    assert "Traceback" not in pool.log


def test_a_web_server_that_says_goodbye_and_then_leaves(spawn: Spawner) -> None:
    """lighttpd sends SIGTERM, and its end sends SIGQUIT: the second is no order to hurry."""
    pool = spawn("-n", 1, *APP)
    visit = busy_visit(pool, "/sleep?seconds=1")
    pool.signal(signal.SIGTERM)
    pool.wait_for_line("stopping")
    pool.signal(signal.SIGQUIT)
    visit.body()
    assert pool.wait_exit() == 0


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_all_at_once(spawn: Spawner, second: signal.Signals) -> None:
    pool = spawn("-n", 2, *APP)
    visit = busy_visit(pool, "/sleep?seconds=60")
    members = family(pool)
    pool.signal(signal.SIGINT)
    pool.wait_for_line("stopping")
    pool.signal(second)
    assert pool.wait_exit() == 0
    assert visit.lost()
    left_nothing(pool, members)


STUBBORN = """
import hashlib, signal

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/stubborn":
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        # One call in C, for minutes: no Python code runs before it is over.
        hashlib.pbkdf2_hmac("sha256", b"p", b"s", 1_000_000_000)
    return [b"calm"]
"""


def test_a_worker_that_ignores_everything_is_killed_and_the_loop_runs_on(
    spawn: Spawner, tmp_path: Path
) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    pool = spawn("-n", 2, "--app", "stubborn:application", "--stop-timeout", "1s")
    visit = busy_visit(pool, "/stubborn")
    members = family(pool)
    pool.signal(signal.SIGTERM)
    pool.wait_for_line("ending the workers that are left")
    # Between TERM and KILL it still does its work: here, it opens its log files again.
    mark = pool.mark()
    pool.signal(signal.SIGUSR1)
    pool.wait_for_line("log files opened again", after=mark)
    pool.wait_for_line("does not end by itself: killed|killing the workers that are left")
    assert pool.wait_exit() == 0
    assert visit.lost()
    left_nothing(pool, members)


def test_a_request_that_outlasts_the_stop_timeout_is_ended(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, "--stop-timeout", "1s")
    visit = busy_visit(pool, "/sleep?seconds=60")
    begun = time.monotonic()
    pool.signal(signal.SIGTERM)
    assert pool.wait_exit() == 0
    assert time.monotonic() - begun > 0.9
    assert visit.lost()
    assert "killed" not in pool.log  # SIGTERM sufficed
    assert "ended in the middle of a request: GET /sleep?seconds=60&visit=" in pool.log


@MODES
@POLITE
def test_during_start_up(
    spawn: Spawner, tmp_path: Path, mode: list[str], number: signal.Signals
) -> None:
    (tmp_path / "slowapp.py").write_text(
        "import time\nprint('loading', flush=True)\ntime.sleep(600)\ndef application(e, s): ...\n"
    )
    pool = spawn("-n", 2, "--app", "slowapp:application", *mode, ready=False)
    pool.wait_for_line("^loading$")
    members = family(pool)
    pool.signal(number)
    assert pool.wait_exit() == 0
    left_nothing(pool, members)
    assert "Traceback" not in pool.log


def test_as_early_as_can_be(spawn: Spawner, tmp_path: Path) -> None:
    """Whenever the signal comes, neither socket nor pid file stays behind."""
    pidfile = tmp_path / "pid"
    for delay in range(12):
        pool = spawn("-n", 1, "-P", pidfile, *APP, ready=False)
        if delay:
            wait_until(lambda: pidfile.exists() or pool.socket.exists())  # noqa: B023
        for _ in range(delay):
            os.sched_yield()
        pool.signal(signal.SIGTERM)
        assert pool.wait_exit() in (0, -signal.SIGTERM)
        assert not pidfile.exists()
        assert not pool.socket.exists()
        assert list(tmp_path.glob(".*")) == []


def test_during_back_off(spawn: Spawner, tmp_path: Path) -> None:
    (tmp_path / "fragile.py").write_text(FRAGILE)
    pool = spawn("-n", 1, "--no-template", "--app", "fragile:application")
    (tmp_path / "broken").touch()
    os.kill(pool.workers()[0].pid, signal.SIGKILL)
    for delay in ("0.1", "0.2", "0.4", "0.8"):
        pool.wait_for_line(rf"cannot start: .*broken.*; next try in {delay} s")
    pool.signal(signal.SIGTERM)
    assert pool.wait_exit() == 0
    assert not descendants(pool.pid)


FRAGILE = """
import os
if os.path.exists("broken"):
    raise RuntimeError("broken")

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"whole"]
"""


def test_a_worker_that_is_still_loading_does_not_hold_up_the_stop(
    spawn: Spawner, tmp_path: Path
) -> None:
    """One worker is answering, its sibling is only just being started: both are let go in order."""
    pool = spawn("-n", 2, *APP)
    visit = busy_visit(pool, "/sleep?seconds=1&id=slow")
    for _ in range(3):
        pool.signal(signal.SIGTTIN)
    pool.signal(signal.SIGTERM)
    assert "id=slow" in visit.body()
    assert pool.wait_exit() == 0
    assert "cannot start" not in pool.log


def test_the_path_of_somebody_else_is_left(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    get(pool, "/echo")
    pool.socket.unlink()
    pool.socket.write_text("somebody else's")
    assert pool.stop() == 0
    assert pool.socket.read_text() == "somebody else's"


def test_time_in_which_the_master_could_not_run_is_not_counted(spawn: Spawner, tmp_path: Path) -> None:
    pool = spawn("-n", 1, "--stop-timeout", 2, *APP)
    visit = busy_visit(pool, f"/wait?file={tmp_path}/go&id=slow")
    pool.signal(signal.SIGTERM)
    pool.wait_for_line("stopping: ")
    os.kill(pool.pid, signal.SIGSTOP)
    # Nothing happens in the time that is lost.
    over = time.monotonic() + 4
    wait_until(lambda: time.monotonic() > over)
    os.kill(pool.pid, signal.SIGCONT)
    pool.wait_for_line("the stop may take")
    (tmp_path / "go").touch()
    assert "id=slow" in visit.body()
    assert pool.wait_exit() == 0
    assert "ending the workers" not in pool.log


def test_visits_are_answered_while_the_master_is_stopped_by_a_debugger(spawn: Spawner) -> None:
    """The master is not needed for a request; and its own work waits until it goes on."""
    pool = spawn("-n", 2, *APP, "--max-requests", 5)
    os.kill(pool.pid, signal.SIGSTOP)
    try:
        for _ in range(20):
            get(pool, "/echo")
    finally:
        os.kill(pool.pid, signal.SIGCONT)
    pool.wait_for_line("recycled: max-requests")
    assert Visit(pool, "/echo?id=after").body().startswith("id=after")

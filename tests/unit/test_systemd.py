"""Notifications to a stand-in for the manager, and sockets from systemd-socket-activate."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from spawner.systemd import Notifier

from ..notify import PATIENCE, Manager

ROOT = Path(__file__).resolve().parents[2]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = f"{tmp_path}/n" if request.param == "path" else f"@trac-spawn-notify-{os.getpid()}"
    found = Manager(name)
    yield found
    found.socket.close()


def open_files() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


def test_what_a_service_says(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    assert notifier.active
    notifier.ready()
    assert manager.said() == {"READY": "1"}
    notifier.ready("8 workers ready")
    assert manager.said() == {"READY": "1", "STATUS": "8 workers ready"}
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading("loading generation 2")
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    said = manager.said()
    assert before <= int(said.pop("MONOTONIC_USEC")) <= after
    assert said == {"RELOADING": "1", "STATUS": "loading generation 2"}
    notifier.stopping()
    assert manager.said() == {"STOPPING": "1"}
    notifier.main_pid(4711)
    assert manager.said() == {"MAINPID": "4711"}
    assert manager.is_silent()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("3 of 8 busy", "3 of 8 busy"),
        ("wörk €", "wörk €"),
        ("one\nREADY=1\r\ntwo", "one READY=1 two"),
        ("nul\0here", "nul here"),
        ("file \udcff", "file ?"),
        ("a=b", "a=b"),
    ],
)
def test_a_status_is_one_line_that_cannot_say_anything_else(
    text: str, shown: str, manager: Manager
) -> None:
    Notifier(manager.address).status(text)
    assert manager.said() == {"STATUS": shown}


def test_the_variables_are_taken_out_of_the_environment(manager: Manager) -> None:
    environ = {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }
    notifier = Notifier.from_environment(environ)
    assert environ == {"HOME": "/"}
    assert notifier.environment() == {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": "3000000",
    }
    # What a new program in our place makes of them.
    Notifier.from_environment(notifier.environment()).ready()
    assert manager.said() == {"READY": "1"}


def test_the_real_environment_is_cleared_for_children(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    notifier = Notifier.from_environment()
    assert b"NOTIFY_SOCKET" not in subprocess.check_output(["env"])
    notifier.ready()
    assert manager.said() == {"READY": "1"}


def test_without_a_manager_nothing_happens() -> None:
    notifier = Notifier.from_environment({})
    assert not notifier.active
    assert notifier.environment() == {}
    notifier.ready("ready")
    notifier.reloading()
    notifier.stopping()
    notifier.status("x")
    notifier.main_pid(1)
    notifier.store([0], "zero")
    notifier.remove("zero")
    notifier.check_clock()
    assert notifier.barrier() is None
    assert notifier.next_deadline() == float("inf")


@pytest.mark.parametrize("address", ["relative/path", "vsock:2:1234", ""])
def test_an_address_of_another_kind_is_no_manager(address: str) -> None:
    assert not Notifier.from_environment({"NOTIFY_SOCKET": address}).active


@pytest.mark.parametrize("address", ["/nonexistent/notify", "@trac-spawn-nobody", "/" + "x" * 200])
def test_a_manager_that_has_gone_is_mentioned_once(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(address, watchdog=1.0)
    notifier.ready()
    notifier.store([0], "zero")
    notifier.check_clock()
    barrier = notifier.barrier()
    assert barrier is not None
    # Nothing to wait for.
    assert os.read(barrier, 1) == b""
    os.close(barrier)
    assert len(caplog.records) == 1
    assert "service manager" in caplog.text


def test_a_closed_descriptor_is_mentioned_and_kills_nothing(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(manager.address)
    # Too high a number for any that the call itself opens.
    notifier.store([100_000], "web")
    assert "Bad file descriptor" in caplog.text
    notifier.ready()
    assert manager.said() == {"READY": "1"}


# -- the watchdog --------------------------------------------------------------------------------


def watching(manager: Manager, usec: str, pid: Optional[str]) -> tuple[Notifier, Clock]:
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": usec}
    if pid is not None:
        environ["WATCHDOG_PID"] = pid
    found = Notifier.from_environment(environ)
    clock = Clock()
    return Notifier(manager.address, found._watchdog, clock), clock


@pytest.mark.parametrize("pid", [None, str(os.getpid())])
def test_a_sign_of_life_twice_in_each_interval(pid: Optional[str], manager: Manager) -> None:
    notifier, clock = watching(manager, "3000000", pid)
    assert notifier.next_deadline() == 1000.0
    notifier.check_clock()
    assert manager.said() == {"WATCHDOG": "1"}
    assert notifier.next_deadline() == 1001.5
    clock.now = 1001.4
    notifier.check_clock()
    assert manager.is_silent()
    # After a suspend: one sign, not one for each that was missed.
    clock.now = 1100.0
    notifier.check_clock()
    assert manager.said() == {"WATCHDOG": "1"}
    assert manager.is_silent()
    assert notifier.next_deadline() == 1101.5


@pytest.mark.parametrize(
    ("usec", "pid"), [("3000000", "1"), ("0", None), ("", None), ("3s", None), ("-5", None)]
)
def test_no_watchdog_for_others_or_for_nonsense(
    usec: str, pid: Optional[str], manager: Manager
) -> None:
    notifier, clock = watching(manager, usec, pid)
    assert notifier.next_deadline() == float("inf")
    clock.now += 1000
    notifier.check_clock()
    assert manager.is_silent()


# -- a manager that is busy ----------------------------------------------------------------------


def test_what_finds_no_room_is_said_later_and_in_order(manager: Manager) -> None:
    clock = Clock()
    notifier = Notifier(manager.address, clock=clock)
    filling = manager.fill()
    before = open_files()
    notifier.ready()
    with socket.socket() as kept:
        number = os.fstat(kept.fileno()).st_ino
        notifier.store([kept.fileno()], "web")
    notifier.stopping()
    assert notifier.barrier() is None
    assert 1000.0 < notifier.next_deadline() <= 1001.0
    clock.now = notifier.next_deadline()
    notifier.check_clock()
    assert notifier.next_deadline() > clock.now
    for _ in range(filling):
        assert manager.said() == {"FILL": "1"}
    clock.now = notifier.next_deadline()
    notifier.check_clock()
    assert notifier.next_deadline() == float("inf")
    assert manager.said() == {"READY": "1"}
    said, fds = manager.receive()
    assert said == {"FDSTORE": "1", "FDNAME": "web", "FDPOLL": "0"}
    assert [os.fstat(fd).st_ino for fd in fds] == [number]
    os.close(fds[0])
    assert manager.said() == {"STOPPING": "1"}
    assert open_files() == before


def test_what_waits_is_bounded_and_signs_of_life_do_not_pile_up(manager: Manager) -> None:
    clock = Clock()
    notifier = Notifier(manager.address, 1.0, clock)
    manager.fill()
    before = open_files()
    notifier.store([0], "zero")
    for number in range(100):
        notifier.status(str(number))
        clock.now += 1.0
        notifier.check_clock()
    assert open_files() == before
    waiting = [message.text for message in notifier._waiting]
    assert len(waiting) < 100
    assert waiting[-1] == b"STATUS=99"
    assert b"WATCHDOG=1" not in waiting


def test_a_child_that_forgets_is_silent_and_keeps_nothing_open(manager: Manager) -> None:
    notifier = Notifier(manager.address, 1.0)
    before = open_files()
    filling = manager.fill()
    notifier.store([0], "zero")
    notifier.forget()
    assert open_files() == before
    notifier.ready()
    notifier.check_clock()
    assert notifier.next_deadline() == float("inf")
    for _ in range(filling):
        assert manager.said() == {"FILL": "1"}
    assert manager.is_silent()


def test_a_barrier_falls_when_the_manager_has_come_to_it(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    notifier.stopping()
    barrier = notifier.barrier()
    assert barrier is not None
    assert not os.get_inheritable(barrier)
    assert manager.said() == {"STOPPING": "1"}
    assert not select.select([barrier], [], [], 0)[0]
    said, fds = manager.receive()
    # Alone in its message, or systemd ignores it.
    assert said == {"BARRIER": "1"}
    os.close(fds[0])
    assert select.select([barrier], [], [], PATIENCE)[0]
    assert os.read(barrier, 1) == b""
    os.close(barrier)


# -- the descriptor store ------------------------------------------------------------------------


def test_sockets_are_stored_and_taken_back(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    with socket.socket() as first, socket.socket() as second:
        numbers = [os.fstat(sock.fileno()).st_ino for sock in (first, second)]
        notifier.store([first.fileno(), second.fileno()], "pool main")
        said, fds = manager.receive()
        assert said == {"FDSTORE": "1", "FDNAME": "pool main", "FDPOLL": "0"}
        assert [os.fstat(fd).st_ino for fd in fds] == numbers
        for fd in fds:
            os.close(fd)
    notifier.remove("pool main")
    assert manager.said() == {"FDSTOREREMOVE": "1", "FDNAME": "pool main"}


@pytest.mark.parametrize("name", ["", "a:b", "a\nREADY=1", "a\0", "caf\u00e9", "x" * 256])
def test_names_that_cannot_come_back_are_our_own_mistake(name: str, manager: Manager) -> None:
    notifier = Notifier(manager.address)
    with pytest.raises(ValueError, match="name"):
        notifier.store([0], name)
    with pytest.raises(ValueError, match="name"):
        notifier.remove(name)
    assert manager.is_silent()


# -- socket activation ---------------------------------------------------------------------------

REPORT = """
import fcntl, json, os, socket
from spawner.systemd import listen_fds
handed = listen_fds()
report = {
    "handed": handed,
    "closed on exec": [bool(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC) for fd, _ in handed],
    "names": [socket.socket(fileno=os.dup(fd)).getsockname() for fd, _ in handed],
    "left": [name for name in os.environ if name.startswith("LISTEN_")],
    "again": listen_fds(),
}
print(json.dumps(report), flush=True)
if handed:
    connection = socket.socket(fileno=handed[0][0]).accept()[0]
    connection.sendall(b"answer")
"""


def activate(
    paths: list[Path], options: list[str], command: list[str]
) -> tuple[dict[str, object], bytes, str]:
    """What REPORT says, what it answers on the first of ``paths``, and stderr."""
    listening = [f"--listen={path}" for path in paths]
    argv = ["systemd-socket-activate", *listening, *options, f"--setenv=PYTHONPATH={ROOT}", *command]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None and process.stdout is not None
    try:
        for _ in paths:
            assert process.stderr.readline().startswith(b"Listening on ")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(paths[0]))
            report = json.loads(process.stdout.readline())
            answer = client.recv(100) if report["handed"] else b""
        process.stdout.close()
        complaint = process.stderr.read().decode()
        assert process.wait(PATIENCE) == 0, complaint
        return report, answer, complaint
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        process.stdout.close()


def test_sockets_of_systemd_socket_activate(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    report, answer, _ = activate(paths, ["--fdname=web:admin"], [sys.executable, "-c", REPORT])
    assert report == {
        "handed": [[3, "web"], [4, "admin"]],
        "closed on exec": [True, True],
        "names": [str(path) for path in paths],
        "left": [],
        "again": [],
    }
    assert answer == b"answer"


def test_without_names_each_is_unknown_and_has_its_address(tmp_path: Path) -> None:
    report, answer, _ = activate([tmp_path / "a"], [], [sys.executable, "-c", REPORT])
    assert report["handed"] in ([[3, "unknown"]], [[3, str(tmp_path / "a")]])
    assert answer == b"answer"


def test_sockets_for_a_process_that_only_started_us_are_not_ours(tmp_path: Path) -> None:
    # 'exit' after it: the shell cannot replace itself by Python.
    shell = ["/bin/sh", "-c", '"$@"; exit $?', "sh"]
    report, _, complaint = activate([tmp_path / "a"], [], [*shell, sys.executable, "-c", REPORT])
    assert report["handed"] == [] and report["left"] == []
    assert "LISTEN_FDS is for process" in complaint


TAKE = """
import json, os, sys
from spawner.systemd import listen_fds
from workers.errors import BootError
environ = {name: value.replace("us", str(os.getpid())) for name, value in json.load(sys.stdin).items()}
try:
    result = listen_fds(environ)
except BootError as error:
    result = str(error)
print(json.dumps([result, [os.get_inheritable(fd) for fd in (3, 4)], environ]))
"""


def take(environ: dict[str, str]) -> tuple[object, list[bool], dict[str, str]]:
    """listen_fds() in a process with descriptors 3 and 4 open and 5 closed; "us" is its number.
    What it returns or complains of, which of 3 and 4 children still inherit, what it left."""
    shell = 'exec 3</dev/null 4</dev/null 5<&-; exec "$@"'
    argv = ["/bin/sh", "-c", shell, "sh", sys.executable, "-c", TAKE]
    done = subprocess.run(
        argv, input=json.dumps(environ).encode(), stdout=subprocess.PIPE, cwd=ROOT, timeout=PATIENCE
    )
    result, inherited, left = json.loads(done.stdout)
    return result, inherited, left


@pytest.mark.parametrize(
    ("environ", "handed"),
    [
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, [[3, "a"], [4, "b"]]),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:"}, [[3, "a"], [4, ""]]),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"}, [[3, "a"], [4, "unknown"]]),
        ({"LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"}, [[3, "a"]]),
        ({"LISTEN_FDS": "2", "LISTEN_PIDFDID": "7"}, [[3, "unknown"], [4, "unknown"]]),
        ({"LISTEN_FDS": "0"}, []),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "1"}, []),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "x"}, []),
        ({"LISTEN_FDS": "2", "LISTEN_PID": ""}, []),
        ({}, []),
    ],
)
def test_names_and_numbers(environ: dict[str, str], handed: list[list[object]]) -> None:
    result, inherited, left = take({"LISTEN_PID": "us", **environ, "HOME": "/"})
    assert result == handed
    assert inherited == [len(handed) < 1, len(handed) < 2]
    assert left == {"HOME": "/"}


@pytest.mark.parametrize(
    ("count", "complaint"),
    [("3", "descriptor 5 is not open"), ("-1", "not a number"), ("two", "not a number")],
)
def test_variables_that_do_not_fit_are_an_error(count: str, complaint: str) -> None:
    result, _, left = take({"LISTEN_FDS": count, "LISTEN_PID": "us"})
    assert isinstance(result, str) and complaint in result
    assert left == {}

"""Listening sockets: who may connect, what is replaced, what is refused, and how they end."""

from __future__ import annotations

import errno
import logging
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import psutil
import pytest

from spawner import holders
from spawner.listeners import Access, Address, Listener, open_listener, parse_address
from workers.errors import BootError

from .pools import ROOT, base_environment
from .processes import Program, Supervisor, wait_gone, wait_until
from .webservers import hand_over

#: Opens argv[1] as trac-spawn would, with the Access of the other arguments, prints what
#: happened, and keeps it open until its stdin ends or it is killed.
STARTER = """
import os, sys
from spawner.listeners import Access, open_listener, parse_address
from workers.errors import BootError
mode, user, group = sys.argv[2:5] if len(sys.argv) > 2 else ("660", "", "")
try:
    listener = open_listener(
        parse_address(sys.argv[1]), 50, Access(int(mode, 8), user or None, group or None)
    )
except BootError as error:
    print(f"refused ({error.exit_code}): {error}", flush=True)
else:
    print(f"listening as {os.getpid()}", flush=True)
    sys.stdin.read()
"""

#: A master that listens on argv[1] ('tcp': any port, which it prints) and a worker that inherits
#: the socket. The worker does argv[2] once the master is gone: 'leave', 'late' (notices after half
#: a second), 'answers' (every request, and stays), 'silent' (stays), 'last' (answers one, leaves).
ORPHAN = """
import os, select, socket, sys, time
name = sys.argv[1]
if name == "tcp":
    listening = socket.create_server(("127.0.0.1", 0))
    print("port", listening.getsockname()[1], flush=True)
else:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("\\0" + name[1:] if name.startswith("@") else name)
    listening.listen(50)
life, end = os.pipe()
worker = os.fork()
if worker:
    os.close(life)
    print(f"master {os.getpid()} worker {worker}", flush=True)
    sys.stdin.read()
os.close(end)
os.read(life, 1)
if sys.argv[2] == "leave":
    os._exit(0)
elif sys.argv[2] == "late":
    time.sleep(0.5)
    os._exit(0)
elif sys.argv[2] == "silent":
    time.sleep(60)
while True:
    connection = listening.accept()[0]
    connection.recv(100)
    connection.send(b"\\x01\\x0a\\x00\\x00\\x00\\x00\\x00\\x00")
    if sys.argv[2] == "last":
        os._exit(0)
"""


PRIVATE = Access()


@pytest.fixture
def opened() -> Iterator[Callable[..., Listener]]:
    """open_listener(), closed after the test."""
    listeners = []

    def open_one(text: str, backlog: int = 50, access: Access = PRIVATE) -> Listener:
        listeners.append(open_listener(parse_address(text), backlog, access))
        return listeners[-1]

    yield open_one
    for listener in listeners:
        listener.close()


@pytest.fixture
def python(supervisor: Supervisor, tmp_path: Path) -> Callable[..., Program]:
    """Start a script with a stdin that ends with the test."""

    def start(script: str, *words: str) -> Program:
        program = supervisor.start(
            [sys.executable, "-c", script, *words],
            env=base_environment(tmp_path),
            stdin=subprocess.PIPE,
        )
        return program

    return start


@pytest.fixture
def unprivileged(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run a script to its end as a user who is not root."""
    options: dict[str, Any] = {}
    code = ROOT
    if os.geteuid() == 0:
        user = request.getfixturevalue("other_user")
        code = request.getfixturevalue("_public_code")
        options = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}

    def run(script: str, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", script, *words],
            env=base_environment(tmp_path, code),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            **options,
        )

    return run


def connect(listener: Listener) -> socket.socket:
    where = listener.socket.getsockname()
    client = socket.socket(listener.socket.family)
    client.settimeout(10)
    try:
        client.connect(where)
    except OSError:
        client.close()
        raise
    return client


def served(listener: Listener) -> None:
    """A byte comes through, so it is a socket that works."""
    with connect(listener) as client:
        client.sendall(b"x")
        accepted = wait_until(lambda: accept(listener))
        with accepted:
            accepted.settimeout(10)
            assert accepted.recv(1) == b"x"


def accept(listener: Listener) -> Any:
    try:
        return listener.socket.accept()[0]
    except BlockingIOError:
        return None


def refusal(text: str, **options: Any) -> BootError:
    with pytest.raises(BootError) as caught:
        open_listener(parse_address(text), 50, Access(**options)).close()
    return caught.value


def leave_stale(path: Path) -> os.stat_result:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
        old.listen()
    return path.stat()


# Who may connect


def test_a_unix_socket_serves_and_is_set_up(opened: Any, tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = opened(f"unix:{path}")
    served(listener)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert not listener.socket.getblocking()
    assert not listener.socket.get_inheritable()
    assert listener.owned
    assert str(listener.address) == f"unix:{path}"
    # Nothing but the socket: no lock, no temporary name; and known by its name to ss(8).
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_socket()] == ["s"]
    assert not list(tmp_path.glob(".*"))
    assert holders.unix_listeners(str(path)) == {os.getpid()}


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o000])
def test_the_mode_is_exact_whatever_the_umask(opened: Any, tmp_path: Path, mode: int) -> None:
    for umask in (0o000, 0o077):
        before = os.umask(umask)
        try:
            opened(f"unix:{tmp_path}/s{umask}", access=Access(mode))
            assert os.umask(umask) == umask
        finally:
            os.umask(before)
        assert stat.S_IMODE(os.stat(f"{tmp_path}/s{umask}").st_mode) == mode


def test_there_is_no_moment_in_which_it_is_open_to_more(
    tmp_path: Path, python: Callable[..., Program]
) -> None:
    """Looked at just before each step that opens it further: closed to all until the owner is
    right, and nobody can connect before the end, not even root."""
    watcher = """
import socket, sys
def watch(event, arguments):
    if event in ("os.chown", "os.chmod"):
        found = os.stat(sys.argv[1][5:])
        with socket.socket(socket.AF_UNIX) as client:
            result = client.connect_ex(sys.argv[1][5:])
        print(event, oct(found.st_mode & 0o777), found.st_uid, found.st_gid, result, flush=True)
import os
sys.addaudithook(watch)
"""
    user, group = str(os.getuid()), str(os.getgid())
    if os.geteuid() == 0:
        user, group = "61234", "61235"
    program = python(watcher + STARTER, f"unix:{tmp_path}/s", "666", user, group)
    program.wait_for_line("listening as")
    lines = [line.split() for line in program.log.splitlines() if line.startswith("os.ch")]
    # Only root gets past the mode, as far as ECONNREFUSED; the others see EACCES.
    refused = str(errno.ECONNREFUSED if os.geteuid() == 0 else errno.EACCES)
    assert lines == [
        ["os.chown", "0o0", str(os.getuid()), str(os.getgid()), refused],
        ["os.chmod", "0o0", user, group, refused],
    ]


def test_user_and_group(opened: Any, tmp_path: Path, other_user: str) -> None:
    path = tmp_path / "s"
    entry = pwd.getpwnam(other_user)
    if os.geteuid() != 0:
        error = refusal(f"unix:{path}", user=other_user)
        assert error.exit_code == os.EX_NOPERM and "only root" in str(error)
        assert not path.exists()
        return
    opened(f"unix:{path}", access=Access(0o600, other_user, entry.pw_gid))
    found = path.stat()
    assert (found.st_uid, found.st_gid) == (entry.pw_uid, entry.pw_gid)


def test_only_who_is_let_in_gets_in(opened: Any, tmp_path: Path, unprivileged: Any) -> None:
    knock = (
        "import socket, sys\n"
        "for name in sys.argv[1:]: print(socket.socket(socket.AF_UNIX).connect_ex(name))"
    )
    closed, shut = f"{tmp_path}/closed", f"{tmp_path}/open"
    opened(f"unix:{closed}", access=Access(0o600 if os.geteuid() == 0 else 0))
    opened(f"unix:{shut}", access=Access(0o666))
    assert unprivileged(knock, closed, shut).stdout.split() == ["13", "0"]


def test_an_unknown_user_or_group_is_refused(tmp_path: Path) -> None:
    for options, name in (({"user": "no-such"}, "user"), ({"group": "no-such"}, "group")):
        error = refusal(f"unix:{tmp_path}/s", **options)
        assert error.exit_code == os.EX_NOUSER
        assert f"--socket-{name}" in str(error)
    assert not (tmp_path / "s").exists()


def test_without_root_a_foreign_group_is_refused(tmp_path: Path, unprivileged: Any) -> None:
    done = unprivileged(STARTER, f"unix:{tmp_path}/s", "660", "", "0")
    assert "refused (77)" in done.stdout and "--socket-group" in done.stdout
    assert not (tmp_path / "s").exists()
    done = unprivileged("import os; print(os.getgid())")
    done = unprivileged(STARTER, f"unix:{tmp_path}/s", "660", "", done.stdout.strip())
    assert "listening as" in done.stdout


# What is in the way


def test_a_stale_socket_is_replaced(opened: Any, tmp_path: Path) -> None:
    leave_stale(tmp_path / "s")
    start = time.monotonic()
    served(opened(f"unix:{tmp_path}/s"))
    assert time.monotonic() - start < 1


def test_a_live_socket_is_refused_and_its_holder_named(
    tmp_path: Path, python: Callable[..., Program]
) -> None:
    holder = python(STARTER, f"unix:{tmp_path}/s")
    holder.wait_for_line("listening as")
    before = (tmp_path / "s").stat()
    error = refusal(f"unix:{tmp_path}/s")
    assert error.exit_code == os.EX_UNAVAILABLE
    assert f"process {holder.pid} ({psutil.Process(holder.pid).name()})" in str(error)
    assert (tmp_path / "s").stat() == before


def test_our_own_socket_is_refused_a_second_time(opened: Any, tmp_path: Path) -> None:
    listener = opened(f"unix:{tmp_path}/s")
    assert f"process {os.getpid()}" in str(refusal(f"unix:{tmp_path}/s"))
    served_by_first = connect(listener)
    served_by_first.close()


@pytest.mark.parametrize("kind", ["file", "directory", "link", "fifo"])
def test_what_is_no_socket_is_refused_and_left(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    elif kind == "link":
        leave_stale(tmp_path / "target")
        path.symlink_to(tmp_path / "target")
    else:
        os.mkfifo(path)
    before = path.lstat()
    error = refusal(f"unix:{path}")
    assert error.exit_code == os.EX_CANTCREAT
    assert str(path) in str(error) and "is not a socket" in str(error)
    assert path.lstat() == before
    assert sorted(tmp_path.glob(".*")) == []


def test_a_live_socket_of_another_type_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(f"{tmp_path}/s")
        error = refusal(f"unix:{tmp_path}/s")
    assert error.exit_code == os.EX_UNAVAILABLE and "another type" in str(error)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    error = refusal(f"unix:{tmp_path}/missing/s")
    assert error.exit_code == os.EX_CANTCREAT
    assert f"no directory {tmp_path}/missing" in str(error)
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file is not a directory" in str(refusal(f"unix:{tmp_path}/file/s"))


def test_a_directory_that_is_not_ours_is_named(tmp_path: Path, unprivileged: Any) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    done = unprivileged(STARTER, f"unix:{folder}/s")
    assert "refused (73)" in done.stdout and f"{folder} does not let us create" in done.stdout


def test_a_socket_that_we_may_not_ask_is_refused(
    opened: Any, tmp_path: Path, unprivileged: Any
) -> None:
    opened(f"unix:{tmp_path}/s", access=Access(0o000))
    if os.geteuid() != 0:
        assert "may not connect" in str(refusal(f"unix:{tmp_path}/s"))
        return
    done = unprivileged(STARTER, f"unix:{tmp_path}/s")
    assert "refused (77)" in done.stdout and "may not connect" in done.stdout


def test_a_full_queue_is_a_live_one(opened: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as client:
        full.bind(f"{tmp_path}/s")
        full.listen(0)
        client.connect(f"{tmp_path}/s")
        error = refusal(f"unix:{tmp_path}/s")
    assert f"process {os.getpid()}" in str(error) and "full queue" in str(error)


def test_of_many_starters_exactly_one_wins(tmp_path: Path, python: Callable[..., Program]) -> None:
    leave_stale(tmp_path / "s")
    starters = [python(STARTER, f"unix:{tmp_path}/s") for _ in range(6)]
    for starter in starters:
        starter.wait_for_line("listening as|refused")
    winners = [starter for starter in starters if "listening as" in starter.log]
    assert len(winners) == 1
    for starter in starters:
        if starter not in winners:
            assert f"process {winners[0].pid} " in starter.log
    assert holders.unix_listeners(f"{tmp_path}/s") == {winners[0].pid}
    assert not list(tmp_path.glob(".*"))


def test_a_lock_left_by_a_killed_starter_is_no_obstacle(opened: Any, tmp_path: Path) -> None:
    (tmp_path / ".s.lock").touch(mode=0o600)
    served(opened(f"unix:{tmp_path}/s"))
    assert not (tmp_path / ".s.lock").exists()


# When the one that called listen() is gone and others still hold the socket


def start_orphans(
    python: Callable[..., Program], name: str, what: str, reap: bool = True
) -> tuple[Program, int]:
    program = python(ORPHAN, name, what)
    worker = int(program.wait_for_line(r"master \d+ worker (\d+)")[1])
    program.signal(signal.SIGKILL)
    if reap:
        program.wait_exit()
    return program, worker


@pytest.mark.parametrize("what", ["leave", "late", "last"])
@pytest.mark.parametrize("kind", ["unix", "abstract"])
def test_workers_of_a_killed_master_do_not_hold_up_the_next(
    opened: Any, tmp_path: Path, python: Callable[..., Program], what: str, kind: str
) -> None:
    name = f"{tmp_path}/s" if kind == "unix" else f"@{tmp_path}/s"
    start_orphans(python, name, what)
    start = time.monotonic()
    served(opened(f"unix:{name}"))
    assert time.monotonic() - start < holders.ORPHAN_TIME


@pytest.mark.parametrize("kind", ["unix", "abstract"])
def test_a_killed_master_that_nobody_reaped_counts_as_gone(
    opened: Any, tmp_path: Path, python: Callable[..., Program], kind: str
) -> None:
    name = f"{tmp_path}/s" if kind == "unix" else f"@{tmp_path}/s"
    program, _ = start_orphans(python, name, "leave", reap=False)
    served(opened(f"unix:{name}"))
    assert program.wait_exit() == -signal.SIGKILL


@pytest.mark.parametrize("what, seen", [("answers", "answers there"), ("silent", "without answer")])
@pytest.mark.parametrize("kind", ["unix", "abstract"])
def test_children_that_serve_on_are_respected(
    tmp_path: Path, python: Callable[..., Program], what: str, seen: str, kind: str
) -> None:
    """As those of spawn-fcgi, whose parent exits once it has started them."""
    name = f"{tmp_path}/s" if kind == "unix" else f"@{tmp_path}/s"
    _, worker = start_orphans(python, name, what)
    try:
        error = refusal(f"unix:{name}")
        assert error.exit_code == os.EX_UNAVAILABLE
        assert f"process {worker} (" in str(error) and seen in str(error)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("\0" + name[1:] if kind == "abstract" else name)
    finally:
        os.kill(worker, signal.SIGKILL)
        wait_gone([worker])


def test_a_process_with_the_number_of_the_listener_is_not_the_listener() -> None:
    pid = os.getpid()
    assert holders.runs_since(pid, time.time())
    assert not holders.runs_since(pid, psutil.boot_time() - 1)
    assert not holders.runs_since(0, time.time())


# Letting go


def test_close_removes_the_path_once(tmp_path: Path) -> None:
    listener = open_listener(parse_address(f"unix:{tmp_path}/s"), 50, Access())
    listener.close()
    assert not (tmp_path / "s").exists()
    leave_stale(tmp_path / "s")
    listener.close()
    assert (tmp_path / "s").exists()


def test_close_leaves_what_somebody_put_in_its_place(tmp_path: Path) -> None:
    for end in ("close", "stop_accepting"):
        listener = open_listener(parse_address(f"unix:{tmp_path}/{end}"), 50, Access())
        os.unlink(tmp_path / end)
        before = leave_stale(tmp_path / end)
        getattr(listener, end)()
        assert (tmp_path / end).stat() == before
        listener.close()


def test_a_child_does_not_remove_the_path(opened: Any, tmp_path: Path) -> None:
    listener = opened(f"unix:{tmp_path}/s")
    child = os.fork()
    if child == 0:
        listener.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    served(listener)


@pytest.mark.parametrize("name", ["unix:{}/s", "unix:@{}/s"])
def test_after_stop_accepting_the_queue_is_still_answered(
    opened: Any, tmp_path: Path, name: str
) -> None:
    listener = opened(name.format(tmp_path))
    waiting = [connect(listener) for _ in range(5)]
    for number, client in enumerate(waiting):
        client.sendall(b"%d" % number)
    listener.stop_accepting()
    assert not (tmp_path / "s").exists()
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        connect(listener)
    for number, client in enumerate(waiting):
        with client, accept(listener) as connection:
            assert connection.recv(10) == b"%d" % number
            connection.sendall(b"answer")
            assert client.recv(10) == b"answer"
    assert accept(listener) is None
    listener.stop_accepting()


def test_stop_accepting_refuses_whoever_looked_the_path_up_before(
    opened: Any, tmp_path: Path
) -> None:
    listener = opened(f"unix:{tmp_path}/s")
    os.link(tmp_path / "s", tmp_path / "again")
    listener.stop_accepting()
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(f"{tmp_path}/again")


def test_stop_accepting_does_not_reset_a_tcp_queue(opened: Any) -> None:
    listener = opened("127.0.0.1:0")
    with connect(listener) as client:
        client.sendall(b"x")
        listener.stop_accepting()
        with wait_until(lambda: accept(listener)) as connection:
            connection.settimeout(10)
            assert connection.recv(1) == b"x"


# Abstract


def test_an_abstract_socket_warns_that_it_is_open_to_all(
    opened: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "trac-spawn"):
        listener = opened(f"@{tmp_path}/s")
    served(listener)
    assert listener.socket.getsockname() == b"\0" + os.fsencode(f"{tmp_path}/s")
    assert "every user of this machine" in caplog.text
    assert not (tmp_path / "s").exists()


def test_an_abstract_name_in_use_is_refused(tmp_path: Path, opened: Any) -> None:
    opened(f"@{tmp_path}/s")
    error = refusal(f"@{tmp_path}/s")
    assert error.exit_code == os.EX_UNAVAILABLE
    assert f"@{tmp_path}/s is in use: process {os.getpid()}" in str(error)


# TCP


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_tcp_serves_and_tells_the_port(opened: Any, host: str) -> None:
    listener = opened(f"{host}:0")
    served(listener)
    address = listener.address
    assert address.port == listener.socket.getsockname()[1] > 0
    assert str(address) == f"{'127.0.0.1' if host == 'localhost' else host}:{address.port}"
    assert parse_address(str(address)) == address
    assert listener.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


def test_the_ipv4_port_stays_free_beside_an_ipv6_one(opened: Any) -> None:
    port = opened("[::]:0").address.port
    assert str(opened(f"0.0.0.0:{port}").address) == f"0.0.0.0:{port}"


def test_a_port_in_use_names_its_holder(opened: Any) -> None:
    port = opened("127.0.0.1:0").address.port
    error = refusal(f"127.0.0.1:{port}")
    assert error.exit_code == os.EX_UNAVAILABLE
    assert f"127.0.0.1:{port} is in use: process {os.getpid()} (" in str(error)


def test_a_port_is_free_again_at_once_after_connections(opened: Any) -> None:
    listener = opened("127.0.0.1:0")
    client = connect(listener)
    # Who closes first has the connection in TIME_WAIT: here it is the server's side.
    wait_until(lambda: accept(listener)).close()
    assert client.recv(1) == b""
    client.close()
    listener.close()
    start = time.monotonic()
    served(opened(str(listener.address)))
    assert time.monotonic() - start < 1


def test_workers_of_a_killed_master_do_not_hold_up_the_port(
    opened: Any, python: Callable[..., Program]
) -> None:
    program, _ = start_orphans(python, "tcp", "late")
    port = program.wait_for_line(r"^port (\d+)$")[1]
    served(opened(f"127.0.0.1:{port}"))


def test_a_foreign_address_and_an_unknown_host_are_refused() -> None:
    # 192.0.2.0/24 is for documentation, .invalid is never a name (RFC 5737, 2606).
    error = refusal("192.0.2.1:9000")
    assert error.exit_code == os.EX_UNAVAILABLE and "does not have that address" in str(error)
    for host in ("no-such-host.invalid", "x" * 70 + ".invalid"):
        error = refusal(f"{host}:9000")
        assert error.exit_code == os.EX_NOHOST and "cannot resolve" in str(error)


def test_without_root_a_low_port_is_refused(unprivileged: Any) -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    done = unprivileged(STARTER, "127.0.0.1:1")
    if lowest > 1:
        assert "refused (77)" in done.stdout and f"ports below {lowest}" in done.stdout
    else:
        assert "listening as" in done.stdout


# Descriptors


def test_a_descriptor_is_adopted_and_not_taken_apart(tmp_path: Path) -> None:
    parent = socket.socket(socket.AF_UNIX)
    parent.bind(f"{tmp_path}/s")
    parent.listen(7)
    given = os.dup(parent.fileno())
    listener = open_listener(Address("fd", fd=given), 50, Access(0o600))
    assert str(listener.address) == f"fd://{given}"
    assert not listener.owned
    assert not listener.socket.get_inheritable() and not listener.socket.getblocking()
    served(listener)
    listener.stop_accepting()
    served(listener)
    listener.close()
    assert (tmp_path / "s").is_socket()
    with pytest.raises(OSError):
        os.fstat(given)
    parent.close()


def test_descriptor_0_is_adopted_and_becomes_dev_null(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    script = """
import os
from spawner.listeners import Access, open_listener, parse_address
listener = open_listener(parse_address("fd://0"), 50, Access())
assert listener.socket.fileno() > 2
assert os.read(0, 1) == b"" and os.fstat(0).st_rdev == os.stat("/dev/null").st_rdev
print("adopted", flush=True)
listener.socket.setblocking(True)
listener.socket.accept()[0].sendall(b"hello")
"""
    with socket.socket(socket.AF_UNIX) as parent, socket.socket(socket.AF_UNIX) as client:
        parent.bind(f"{tmp_path}/s")
        parent.listen()
        program = supervisor.start(
            hand_over(parent, [sys.executable, "-c", script], 0),
            env=base_environment(tmp_path),
            pass_fds=[parent.fileno()],
        )
        program.wait_for_line("adopted")
        client.connect(f"{tmp_path}/s")
        assert client.recv(10) == b"hello"
        assert program.wait_exit() == 0


def test_a_descriptor_of_another_kind_is_refused(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    one, other = socket.socketpair()
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    unlistened = socket.socket(socket.AF_UNIX)
    for fd, complaint in (
        (read_end, "is not a socket"),
        (one.fileno(), "is not a listening stream socket"),
        (datagram.fileno(), "is not a listening stream socket"),
        (unlistened.fileno(), "is not a listening stream socket"),
        (9_999_999, "no open file descriptor 9999999"),
    ):
        error = refusal(f"fd://{fd}")
        assert error.exit_code == os.EX_USAGE
        assert f"fd://{fd}: " in str(error) and complaint in str(error)
    # What was refused was left alone.
    other.sendall(b"x")
    assert one.recv(1) == b"x"
    for file in (one, other, datagram, unlistened):
        file.close()
    os.close(read_end)
    os.close(write_end)


# Backlog


def test_the_backlog_holds_a_burst(opened: Any, tmp_path: Path) -> None:
    listener = opened(f"unix:{tmp_path}/s", 300)
    clients = []
    for _ in range(301):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        clients.append(client)
        client.connect(f"{tmp_path}/s")
    with socket.socket(socket.AF_UNIX) as late:
        late.setblocking(False)
        with pytest.raises(BlockingIOError):
            late.connect(f"{tmp_path}/s")
    for client in clients:
        client.close()
    assert listener.socket.accept()


def test_a_backlog_that_the_kernel_cuts_is_warned_of(
    opened: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    with caplog.at_level(logging.WARNING, "trac-spawn"):
        opened(f"unix:{tmp_path}/s", most)
        assert not caplog.text
        opened(f"unix:{tmp_path}/more", most + 1)
    assert f"--backlog {most + 1} is cut to {most}" in caplog.text

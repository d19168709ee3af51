"""Going into the background, and the pid file, with real processes."""

from __future__ import annotations

import os
import pty
import pwd
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import psutil
import pytest

from spawner.daemon import PidFile
from workers.errors import BootError

from .pools import ROOT, base_environment
from .processes import Program, Supervisor, wait_gone, wait_until

FRAME = """
import os, signal, sys
from pathlib import Path
from spawner.daemon import PidFile, daemonize
from tests.system.processes import wait_until
from workers.errors import BootError
"""

#: Holds argv[1] until its stdin ends or it is killed; says what happened.
HOLDER = (
    FRAME
    + """
try:
    held = PidFile(sys.argv[1])
except BootError as error:
    print(f"refused ({error.exit_code}): {error}", flush=True)
else:
    print(f"holding as {os.getpid()}", flush=True)
    sys.stdin.read()
"""
)


@pytest.fixture
def python(supervisor: Supervisor, tmp_path: Path) -> Callable[..., Program]:
    def start(script: str, *words: str, **options: Any) -> Program:
        options.setdefault("stdin", subprocess.PIPE)
        options.setdefault("cwd", tmp_path)
        return supervisor.start(
            [sys.executable, "-c", FRAME + script, *words],
            env=base_environment(tmp_path),
            **options,
        )

    return start


def end_daemon(tmp_path: Path) -> None:
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, signal.SIGTERM)
    wait_gone([pid])


# Becoming a daemon


def test_the_command_ends_when_the_daemon_is_ready_and_not_before(
    python: Callable[..., Program], tmp_path: Path
) -> None:
    program = python(
        "print('before', flush=True)\n"
        "launcher = daemonize()\n"
        "Path('pid').write_text(f'{os.getpid()}')\n"
        "print('starting', file=sys.stderr, flush=True)\n"
        "wait_until(Path('go').exists)\n"
        "launcher.ready()\n"
        "print('to nobody', flush=True); os.write(2, b'to nobody')\n"
        "Path('done').touch()\n"
        "signal.pause()\n"
    )
    # Errors of the start reach the terminal.
    program.wait_for_line("^starting$")
    assert program.running
    (tmp_path / "go").touch()
    assert program.wait_exit() == 0
    wait_until((tmp_path / "done").exists)
    assert program.log.splitlines() == ["before", "starting"]
    end_daemon(tmp_path)


def test_a_daemon_has_its_own_session_no_terminal_and_no_stdin(
    python: Callable[..., Program], tmp_path: Path
) -> None:
    leader, terminal = pty.openpty()
    program = python(
        "import fcntl, termios\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "os.umask(0o037)\n"
        "launcher = daemonize()\n"
        "Path('pid').write_text(f'{os.getpid()}')\n"
        "assert os.read(0, 1) == b''\n"
        "launcher.ready()\n"
        "signal.pause()\n",
        stdin=terminal,
    )
    assert program.wait_exit() == 0, program.log
    daemon = psutil.Process(int((tmp_path / "pid").read_text()))
    # Not the leader of its session: such a one would get a terminal by opening it.
    assert os.getsid(daemon.pid) not in (daemon.pid, os.getsid(0), program.pid)
    assert daemon.terminal() is None
    assert daemon.cwd() == str(tmp_path)
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
    )
    assert fields["Umask"].strip() == "0037"
    links = {fd: os.readlink(f"/proc/{daemon.pid}/fd/{fd}") for fd in (0, 1, 2)}
    assert set(links.values()) == {"/dev/null"}
    os.close(terminal)
    os.close(leader)
    end_daemon(tmp_path)


def test_the_status_of_a_failed_start_is_the_one_of_the_command(
    python: Callable[..., Program],
) -> None:
    program = python(
        "launcher = daemonize()\n"
        "print('because', file=sys.stderr, flush=True)\n"
        "launcher.failed(os.EX_CONFIG)\n"
        "launcher.failed(1); launcher.ready()\n"
        "print('still here', file=sys.stderr, flush=True)\n"
    )
    assert program.wait_exit() == os.EX_CONFIG
    program.wait_for_line("still here")
    assert program.log == "because\nstill here\n"


@pytest.mark.parametrize("death", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_daemon_that_dies_without_a_word_is_a_failure(
    python: Callable[..., Program], death: str
) -> None:
    program = python(f"daemonize()\n{death}\n")
    assert program.wait_exit() == os.EX_SOFTWARE
    assert "ended before it was ready" in program.log


def test_a_child_that_forgot_does_not_hide_the_death(
    python: Callable[..., Program], tmp_path: Path
) -> None:
    program = python(
        "launcher = daemonize()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    launcher.forget()\n"
        "    Path('pid').write_text(f'{os.getpid()}')\n"
        "    signal.pause()\n"
        "wait_until(Path('pid').exists)\n"
        "os._exit(0)\n"
    )
    assert program.wait_exit() == os.EX_SOFTWARE
    wait_until(lambda: (tmp_path / "pid").read_text())
    end_daemon(tmp_path)


def test_interrupting_the_command_leaves_no_traceback_and_the_daemon_starting(
    python: Callable[..., Program], tmp_path: Path
) -> None:
    program = python(
        "launcher = daemonize()\n"
        "Path('pid').write_text(f'{os.getpid()}')\n"
        "print('starting', flush=True)\n"
        "wait_until(Path('go').exists)\n"
        "launcher.ready()\n"
        "Path('done').touch()\n"
        "signal.pause()\n"
    )
    program.wait_for_line("starting")
    program.interrupt()
    assert program.wait_exit() == -signal.SIGINT
    (tmp_path / "go").touch()
    wait_until((tmp_path / "done").exists)
    assert "Traceback" not in program.log
    end_daemon(tmp_path)


def test_what_was_buffered_is_written_once(python: Callable[..., Program], tmp_path: Path) -> None:
    program = python(
        "sys.stdout.write('once')\n"
        "launcher = daemonize()\n"
        "Path('pid').write_text(f'{os.getpid()}')\n"
        "sys.stdout.write(' and once')\n"
        "launcher.ready()\n"
        "signal.pause()\n"
    )
    assert program.wait_exit() == 0
    assert program.log == "once and once"
    end_daemon(tmp_path)


def test_a_listening_socket_on_descriptor_0_stays(
    python: Callable[..., Program], tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{tmp_path}/s")
        listening.listen()
        program = python(
            "launcher = daemonize()\n"
            "Path('pid').write_text(f'{os.getpid()}')\n"
            "import socket\n"
            "assert socket.socket(fileno=0).getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)\n"
            "launcher.failed(99)\n",
            stdin=listening.fileno(),
        )
        assert program.wait_exit() == 99


# The pid file


def refusal(path: Path) -> BootError:
    with pytest.raises(BootError) as caught:
        PidFile(str(path)).close()
    return caught.value


def test_a_pid_file_from_beginning_to_end(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    before = os.umask(0o077)
    try:
        held = PidFile(str(path))
    finally:
        os.umask(before)
    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    held.close()
    assert not path.exists()
    held.close()
    # No temporary file left.
    assert not list(tmp_path.glob(".*"))


def test_a_pid_file_that_is_held_is_refused(
    python: Callable[..., Program], tmp_path: Path
) -> None:
    path = tmp_path / "pid"
    holder = python(HOLDER, str(path))
    holder.wait_for_line("holding")
    error = refusal(path)
    assert error.exit_code == os.EX_UNAVAILABLE
    assert str(path) in str(error) and f"process {holder.pid} (" in str(error)
    assert path.read_text() == f"{holder.pid}\n"
    assert not list(tmp_path.glob(".*"))


def test_a_stale_pid_file_is_replaced(python: Callable[..., Program], tmp_path: Path) -> None:
    path = tmp_path / "pid"
    holder = python(HOLDER, str(path))
    holder.wait_for_line("holding")
    holder.signal(signal.SIGKILL)
    holder.wait_exit()
    assert path.read_text() == f"{holder.pid}\n"
    held = PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    held.close()


def test_an_empty_pid_file_and_one_of_our_own_number_are_stale(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    for text in ("", f"{os.getpid()}\n"):
        path.write_text(text)
        held = PidFile(str(path))
        assert path.read_text() == f"{os.getpid()}\n"
        held.close()


def test_the_pid_file_of_a_program_that_takes_no_lock_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(f"{os.getppid()}\n")
    assert f"process {os.getppid()} (" in str(refusal(path))
    # From before that process started, so it merely has the number again.
    os.utime(path, (1, 1))
    PidFile(str(path)).close()


def test_a_file_that_is_no_pid_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("precious\n")
    error = refusal(path)
    assert error.exit_code == os.EX_CANTCREAT
    assert "holds no process number" in str(error)
    assert path.read_text() == "precious\n"
    path.unlink()
    path.mkdir()
    assert refusal(path).exit_code == os.EX_CANTCREAT
    path.rmdir()
    os.mkfifo(path)
    assert "not a regular file" in str(refusal(path))
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert refusal(path).exit_code == os.EX_CANTCREAT
    assert not (tmp_path / "elsewhere").exists()


def test_of_many_at_once_exactly_one_gets_it(
    python: Callable[..., Program], tmp_path: Path
) -> None:
    path = tmp_path / "pid"
    path.write_text("1000000000\n")
    programs = [python(HOLDER, str(path)) for _ in range(6)]
    for program in programs:
        program.wait_for_line("holding as|refused")
    winners = [program for program in programs if "holding as" in program.log]
    assert len(winners) == 1
    assert path.read_text() == f"{winners[0].pid}\n"
    assert all("refused (69)" in program.log for program in programs if program not in winners)


def test_close_leaves_the_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    held = PidFile(str(path))
    path.unlink()
    path.write_text("1\n")
    held.close()
    assert path.read_text() == "1\n"


def test_a_child_that_forgets_leaves_file_and_lock(
    python: Callable[..., Program], tmp_path: Path
) -> None:
    """And it does not keep the lock when the parent is gone."""
    path = tmp_path / "pid"
    program = python(
        "held = PidFile(sys.argv[1])\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    held.forget(); held.close()\n"
        "    Path('child').write_text(f'{os.getpid()}')\n"
        "    signal.pause()\n"
        "sys.stdin.read()\n",
        str(path),
    )
    wait_until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
    assert f"process {program.pid} (" in str(refusal(path))
    program.signal(signal.SIGKILL)
    program.wait_exit()
    PidFile(str(path)).close()
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_a_folder_that_is_missing_or_closed_is_an_error(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    error = refusal(tmp_path / "missing" / "pid")
    assert error.exit_code == os.EX_CANTCREAT
    assert f"cannot create {tmp_path}/missing/pid: No such file" in str(error)
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    options: dict[str, Any] = {}
    code = ROOT
    if os.geteuid() == 0:
        user = request.getfixturevalue("other_user")
        code = request.getfixturevalue("_public_code")
        options = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    done = subprocess.run(
        [sys.executable, "-c", HOLDER, f"{folder}/pid"],
        env=base_environment(tmp_path, code),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=30,
        **options,
    )
    assert "refused (73)" in done.stdout and "Permission denied" in done.stdout

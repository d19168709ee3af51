"""trac-spawnctl doctor: it finds each mistake that is made on purpose, and none where there is none."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from .pools import BIN, Pool, Spawner, base_environment
from .processes import PATIENCE

APP = ("--app", "tests.system.apps:application")


@dataclass
class Stage:
    """Where a site is set up, rightly or wrongly: a folder of root's, and what can be started."""

    directory: Path
    spawn: Spawner
    #: Listening sockets of the test's own.
    held: List[socket.socket] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.directory / "trac.sock"

    def pool(self, *options: object) -> Pool:
        return self.spawn("-n", 1, "-s", self.socket, *options, listen=False)

    def listener(self) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX)
        self.held.append(listening)
        listening.bind(str(self.socket))
        self.socket.chmod(0o660)
        os.chown(self.socket, 0, grp.getgrnam("www-data").gr_gid)
        return listening


@pytest.fixture
def stage(spawn_as_root: Spawner, tmp_path: Path) -> Iterator[Stage]:
    # In the tests' own folders everybody may write, which the doctor does not like.
    tmp_path.chmod(0o755)
    stage = Stage(tmp_path, spawn_as_root)
    yield stage
    for one in stage.held:
        one.shutdown(socket.SHUT_RDWR)  # wakes up who waits in accept()
        one.close()


def doctor(stage: Stage, *arguments: object) -> Dict[str, Any]:
    """The diagnosis; its exit status is that of the worst finding."""
    done = subprocess.run(
        [str(BIN / "trac-spawnctl"), "doctor", "--json", *map(str, arguments)],
        env=base_environment(stage.directory, stage.spawn.code),
        cwd=stage.directory, capture_output=True, text=True, timeout=3 * PATIENCE, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    result: Dict[str, Any] = json.loads(done.stdout)["result"]
    severities = [finding["severity"] for finding in result["findings"]]
    assert done.returncode == (2 if "error" in severities else 1 if "warning" in severities else 0)
    return result


def found(result: Dict[str, Any]) -> List[str]:
    return [finding["name"] for finding in result["findings"]]


# -- mistakes ------------------------------------------------------------------------------------

Arguments = List[object]


def options_of(stage: Stage, *more: object) -> Arguments:
    return ["--web-user", "www-data", "--", "-s", stage.socket, *(more or APP)]


def no_socket(stage: Stage) -> Arguments:
    return options_of(stage)


def no_folder(stage: Stage) -> Arguments:
    return ["--", "-s", stage.directory / "gone" / "trac.sock", *APP]


def no_socket_but_a_file(stage: Stage) -> Arguments:
    stage.socket.write_text("")
    return options_of(stage)


def left_behind(stage: Stage) -> Arguments:
    stage.listener().listen()
    stage.held.pop().close()
    return options_of(stage)


def other_group(stage: Stage) -> Arguments:
    pool = stage.pool(*APP)
    return ["--web-user", "www-data", "-s", pool.control]


def open_to_everybody(stage: Stage) -> Arguments:
    pool = stage.pool("-M", "0666", *APP)
    return ["--web-user", "www-data", "-s", pool.control]


def closed_folder(stage: Stage) -> Arguments:
    (stage.directory / "inner").mkdir(mode=0o700)
    pool = stage.spawn("-n", 1, "-s", stage.directory / "inner" / "s", "-G", "www-data", *APP, listen=False)
    return ["--web-user", "www-data", "-s", pool.control]


def folder_of_everybody(stage: Stage) -> Arguments:
    stage.directory.chmod(0o777)
    pool = stage.pool("-G", "www-data", *APP)
    return ["--web-user", "www-data", "-s", pool.control]


def silence(stage: Stage) -> Arguments:
    stage.listener().listen()
    return ["--timeout", "0.3s", *options_of(stage)]


def another_protocol(stage: Stage) -> Arguments:
    listening = stage.listener()
    listening.listen()

    def serve() -> None:
        with contextlib.suppress(OSError):  # that it is closed ends it
            while True:
                connection, _ = listening.accept()
                with connection:
                    if connection.recv(1000):
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    threading.Thread(target=serve).start()
    return options_of(stage)


def few_files(stage: Stage) -> Arguments:
    pool = stage.pool("-G", "www-data", "--rlimit-files", 128, *APP)
    return ["--web-user", "www-data", "-s", pool.control]


def long_queue(stage: Stage) -> Arguments:
    pool = stage.pool("-G", "www-data", "-b", 10_000_000, *APP)
    return ["--web-user", "www-data", "-s", pool.control]


@dataclass(frozen=True)
class Fault:
    """``seed`` makes the mistake and returns the doctor's arguments; ``name`` is the only finding;
    ``mend`` is in what it says to do."""

    seed: Callable[[Stage], Arguments]
    name: str
    mend: str


FAULTS = [
    Fault(no_socket, "socket-missing", "start trac-spawn with -s {directory}/trac.sock"),
    Fault(no_folder, "socket-missing", "mkdir -p {directory}/gone"),
    Fault(no_socket_but_a_file, "socket-no-socket", "mv {directory}/trac.sock {directory}/trac.sock.old"),
    Fault(left_behind, "socket-stale", "start trac-spawn"),
    Fault(other_group, "socket-denied", "-G www-data"),
    Fault(open_to_everybody, "socket-open", "-M 0660"),
    Fault(closed_folder, "socket-folder-closed", "chmod o+x {directory}/inner"),
    Fault(folder_of_everybody, "socket-folder-open", "chmod o-w {directory}"),
    Fault(silence, "pool-silent", "--request-timeout"),
    Fault(another_protocol, "pool-not-fastcgi", "ss -lp"),
    Fault(few_files, "limit-files", "--rlimit-files 4096"),
    Fault(long_queue, "limit-backlog", "sysctl -w net.core.somaxconn=10000000"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.seed.__name__)
def test_a_mistake_is_found(stage: Stage, fault: Fault) -> None:
    result = doctor(stage, *fault.seed(stage))
    assert found(result) == [fault.name]
    (finding,) = result["findings"]
    assert fault.mend.format(directory=stage.directory) in finding["mend"]


# -- no mistakes ---------------------------------------------------------------------------------


def test_a_sound_pool(stage: Stage) -> None:
    pool = stage.pool("-G", "www-data", *APP)
    result = doctor(stage, "--web-user", "www-data", "-s", pool.control, "--url", "http://localhost/x")
    assert result["findings"] == []
    assert result["left_out"] == []
    where = f"unix:{stage.socket}"
    assert result["looked_at"] == [where, f"answers of {where}", "limits"]


def test_the_report_and_what_is_no_question(stage: Stage) -> None:
    command = [str(BIN / "trac-spawnctl"), "doctor", "--", "-s", str(stage.socket), *APP]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith(f"error: there is no socket {stage.socket}\n")
    assert done.stdout.endswith("1 error\n")
    failed = subprocess.run([*command, "--no-such-option"], capture_output=True, text=True, check=False)
    assert failed.returncode == os.EX_USAGE and "--no-such-option" in failed.stderr
    other = subprocess.run([*command[:2], "-s", "/nowhere"], capture_output=True, text=True, check=False)
    assert other.returncode == os.EX_UNAVAILABLE and "Without a master, say" in other.stderr

"""``trac-spawn --demo`` as a person meets it: a page, Ctrl-C, and nothing left."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from .clients import Browser, Upload
from .pools import BIN, Pool, Spawner
from .processes import descendants, title, wait_gone, wait_until


class Demo:
    """Starts the demo with a home and a runtime folder of its own."""

    def __init__(self, spawn: Spawner, home: Path) -> None:
        self.spawn = spawn
        self.home = home
        self.data = home / "data" / "trac-spawn"
        self.runtime = home / "run"
        self.runtime.mkdir()

    def start(self, *options: object) -> Pool:
        env = {"XDG_RUNTIME_DIR": str(self.runtime), "XDG_DATA_HOME": str(self.home / "data")}
        return self.spawn("--demo", *options, listen=False, ready=False, env=env)

    def show(self, *options: object) -> tuple[Pool, Browser]:
        program = self.start(*options)
        match = program.wait_for_line(r"^Trac is ready:  (http://127\.0\.0\.1:\d+)/ ")
        return program, Browser(match[1])

    def check_nothing_is_left(self) -> None:
        wait_until(lambda: not self.spawn.supervisor.strays(), what="end of all processes")
        assert list(self.runtime.iterdir()) == []
        assert [path.name for path in self.data.iterdir()] == ["demo"]


@pytest.fixture
def demo(spawn: Spawner, tmp_path: Path) -> Demo:
    return Demo(spawn, tmp_path)


def preview_of(program: Pool) -> psutil.Process:
    (found,) = [p for p in program.descendants() if title(p) == "trac-spawn: preview"]
    return found


def test_a_page_a_ticket_a_file_and_ctrl_c(demo: Demo) -> None:
    program, browser = demo.show("-n", 2)
    assert "Creating a Trac environment" in program.log
    assert "Welcome to the trac-spawn demo" in browser.get("/wiki").text
    assert "Put the pool behind a web server" in browser.get("/report/1").text
    assert browser.get("/chrome/common/css/trac.css").status == 200

    fields = {"field_summary": "From the test", "field_type": "defect", "submit": "Create"}
    answer = browser.post("/newticket", fields)
    assert answer.status == 303, answer.text
    assert "From the test" in browser.follow(answer).text

    data = os.urandom(10 << 20)
    form = {"action": "new", "realm": "ticket", "id": "1", "description": ""}
    answer = browser.upload("/attachment/ticket/1/", {**form, "attachment": Upload("f", data)})
    assert answer.status == 303, answer.text
    fetched = browser.get("/raw-attachment/ticket/1/f")
    assert hashlib.sha256(fetched.body).digest() == hashlib.sha256(data).digest()

    program.interrupt()
    assert program.wait_exit() == 0
    demo.check_nothing_is_left()


def test_the_url_is_printed_when_it_works(demo: Demo) -> None:
    program, browser = demo.show("-n", 1)
    assert browser.get("/wiki").status == 200
    command = program.wait_for_line(r"trac-spawnctl (-s .* snippet nginx)$")[1]
    done = subprocess.run(
        [BIN / "trac-spawnctl", *shlex.split(command)], stdout=subprocess.PIPE, text=True, check=True
    )
    assert re.search(r"server unix:/.*/trac\.sock ", done.stdout)
    assert "for trying out only" in program.log
    assert program.log.index("template gen 1") < program.log.index("Trac is ready")


def test_sigterm_to_the_one_process_and_a_second_start(demo: Demo) -> None:
    program, browser = demo.show("-n", 1)
    browser.get("/wiki")
    browser.post("/wiki/Kept", {"action": "edit", "text": "kept text", "save": "1", "version": "0"})
    assert program.stop() == 0
    demo.check_nothing_is_left()
    again, browser = demo.show("-n", 1)
    assert "Creating" not in again.log
    assert "kept text" in browser.get("/wiki/Kept").text


def test_the_other_options_are_honoured(demo: Demo, trac_env: Path) -> None:
    program, browser = demo.show("-n", 3, "--env", trac_env, "--max-requests", 2)
    assert len(program.wait_workers(3)) == 3
    for _ in range(8):
        assert "Test project" in browser.get("/wiki").text
    program.wait_for_line("max-requests")
    assert not demo.data.exists()


def test_any_application_can_be_shown(demo: Demo) -> None:
    _, browser = demo.show("-n", 1, "--app", "tests.system.apps:application")
    assert browser.get("/echo?id=abc").text.startswith("id=abc ")


def test_a_taken_port_is_passed_over(demo: Demo) -> None:
    with contextlib.ExitStack() as held:
        # Taken already is as good.
        with contextlib.suppress(OSError):
            held.enter_context(socket.create_server(("127.0.0.1", 8000)))
        _, browser = demo.show("-n", 1, "--app", "tests.system.apps:application")
        assert browser.port != 8000
        assert browser.get("/echo?id=abc").status == 200


def test_without_its_pool_the_preview_ends(demo: Demo) -> None:
    program, _ = demo.show("-n", 1, "--app", "tests.system.apps:application")
    (master,) = program.members("master")
    os.kill(master.pid, signal.SIGKILL)
    program.wait_for_line(r"the pool has ended \(SIGKILL\)")
    assert program.wait_exit() == os.EX_SOFTWARE
    wait_until(lambda: not demo.spawn.supervisor.strays())
    assert list(demo.runtime.iterdir()) == []


def test_without_its_preview_the_pool_ends(demo: Demo) -> None:
    program, _ = demo.show("-n", 1, "--app", "tests.system.apps:application")
    preview_of(program).kill()
    program.wait_for_line(r"the preview has ended \(SIGKILL\)")
    assert program.wait_exit() == os.EX_SOFTWARE
    wait_until(lambda: not demo.spawn.supervisor.strays())


def test_when_it_is_killed_itself_both_end(demo: Demo) -> None:
    program, _ = demo.show("-n", 1, "--app", "tests.system.apps:application")
    parts = [process.pid for process in program.descendants()]
    os.kill(program.pid, signal.SIGKILL)
    program.wait_exit()
    wait_gone(parts)


def test_an_application_that_cannot_start_is_named(demo: Demo) -> None:
    program = demo.start("--app", "no_such_module:application")
    assert program.wait_exit() == os.EX_SOFTWARE
    last = program.log.splitlines()[-1]
    assert last.startswith("trac-spawn: --app no_such_module:application: ")
    assert "Trac is ready" not in program.log
    wait_until(lambda: not demo.spawn.supervisor.strays())
    assert list(demo.runtime.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_creation_is_done_again(demo: Demo, number: signal.Signals) -> None:
    program = demo.start("-n", 1)
    wait_until(lambda: list(demo.data.glob("*/demo/db")), what="a half-made environment")
    program.signal(number)
    assert program.wait_exit() != 0
    wait_until(lambda: not demo.spawn.supervisor.strays())
    assert not (demo.data / "demo").exists()
    if number != signal.SIGKILL:
        assert list(demo.data.iterdir()) == []
        assert "Traceback" not in program.log
    program, browser = demo.show("-n", 1)
    assert "Welcome to the trac-spawn demo" in browser.get("/wiki").text
    assert program.stop() == 0
    demo.check_nothing_is_left()


def test_its_environment_is_not_made_for_another_user(demo: Demo) -> None:
    program = demo.start("--user", "nobody")
    assert program.wait_exit() == (os.EX_USAGE if os.geteuid() == 0 else os.EX_NOPERM)
    assert "--user" in program.log
    assert not demo.data.exists()
    assert descendants(program.pid) == []

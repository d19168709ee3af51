"""trac.fcgi: FastCGI on descriptor 0, by itself or as the master of a pool, and plain CGI."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional, Union

import psutil
import pytest

from workers.fastcgi import client

from .clients import params
from .pools import BIN, Member, Pool, Spawner, base_environment
from .processes import PATIENCE, Program, Supervisor, gone, title, wait_gone, wait_until
from .tracenv import WHOSE, configure

COMMAND = str(BIN / "trac.fcgi")
#: A page that answers when the test has opened the gate.
GATE = """
from trac.core import Component, implements
from trac.web.api import IRequestHandler

class Gate(Component):
    implements(IRequestHandler)

    def match_request(self, req):
        return req.path_info == "/gate"

    def process_request(self, req):
        open("{gate}").close()
        req.send(b"through", "text/plain")
"""
#: Trac takes any token that the cookie has as well.
TOKEN = "0123456789abcdef01234567"
FORM = f"__FORM_TOKEN={TOKEN}&field_summary=By+form&submit=Create".encode()
FORM_HEADERS = {
    "CONTENT_TYPE": "application/x-www-form-urlencoded",
    "CONTENT_LENGTH": str(len(FORM)),
    "HTTP_COOKIE": f"trac_form_token={TOKEN}",
}


class Starter:
    """Starts trac.fcgi as a web server does: with its listening socket as descriptor 0."""

    def __init__(self, supervisor: Supervisor, directory: Path) -> None:
        self.supervisor = supervisor
        self.directory = directory
        self.path = directory / "fcgi.sock"

    def environment(self, variables: dict[str, str]) -> dict[str, str]:
        return {**base_environment(self.directory), **variables}

    def __call__(
        self,
        variables: dict[str, str],
        *arguments: str,
        listener: Optional[socket.socket] = None,
        command: tuple[str, ...] = (COMMAND,),
    ) -> Pool:
        with listener or unix_listener(self.path) as listening:
            program = Pool(
                [*command, *arguments],
                self.supervisor.log_path("trac.fcgi"),
                env=self.environment(variables),
                cwd=self.directory,
                stdin=listening.fileno(),
            )
        program.socket = self.path
        self.supervisor.add(program)
        return program

    def cgi(self, path: str, method: str = "GET", body: bytes = b"", **more: str) -> bytes:
        """What the CGI program answers, which it must do without an error."""
        variables = {**params(path, method), **more}
        done = subprocess.run(
            [COMMAND], env=self.environment(variables), input=body, stdout=subprocess.PIPE, timeout=PATIENCE
        )
        assert done.returncode == 0
        return done.stdout


@pytest.fixture
def start(supervisor: Supervisor, tmp_path: Path) -> Starter:
    return Starter(supervisor, tmp_path)


def unix_listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    return listener


def get(where: Union[Path, tuple[str, int]], path: str = "/wiki/WikiStart") -> client.Response:
    return client.request(str(where) if isinstance(where, Path) else where, params(path))


# -- one process ---------------------------------------------------------------------------------


def test_one_process_serves_by_itself(start: Starter, own_env: Path) -> None:
    program = start({"TRAC_ENV": str(own_env)})
    answer = get(start.path)
    assert (answer.status, answer.protocol_status) == (200, 0)
    assert b"Welcome to Trac" in answer.body
    answer = client.request(str(start.path), params("/newticket", "POST", **FORM_HEADERS), FORM)
    assert answer.status == 303
    assert program.descendants() == []
    wait_until(lambda: title(psutil.Process(program.pid)) == "trac-spawn: trac.fcgi idle")
    assert program.stop() == 0


def test_trac_itself_may_send_static_files(start: Starter, trac_env: Path) -> None:
    start({"TRAC_ENV": str(trac_env), "TRAC_SPAWN_NO_STATIC_FILES": "yes"})
    answer = get(start.path, "/chrome/common/css/trac.css")
    assert answer.status == 200 and answer.header("Set-Cookie")


def test_trac_may_be_left_as_it_is(start: Starter, own_env: Path) -> None:
    (own_env / "plugins" / "whose.py").write_text(WHOSE)
    start({"TRAC_ENV": str(own_env), "TRAC_SPAWN_NO_ACCELERATE": "yes"})
    assert get(start.path, "/whose").body == b"trac.web.href"


def test_lighttpds_own_setting_means_one_process(start: Starter, trac_env: Path) -> None:
    """lighttpd gives PHP_FCGI_CHILDREN=1 to whatever it starts."""
    program = start({"TRAC_ENV": str(trac_env), "PHP_FCGI_CHILDREN": "1"})
    assert get(start.path).status == 200
    assert program.descendants() == []


@pytest.fixture
def gate(own_env: Path, tmp_path: Path) -> Path:
    """A named pipe that the page /gate of ``own_env`` reads before it answers."""
    pipe = tmp_path / "gate"
    os.mkfifo(pipe)
    (own_env / "plugins" / "gate.py").write_text(GATE.format(gate=pipe))
    return pipe


@contextmanager
def waiting_at(gate: Path, where: Path) -> Iterator[list[client.Response]]:
    """A request that is being answered until the end of the block; then its answer is there."""
    answers: list[client.Response] = []
    visitor = threading.Thread(target=lambda: answers.append(get(where, "/gate")))
    visitor.start()
    opened = wait_until(lambda: _open_if_read(gate), what="request at the gate")
    assert opened is not None
    try:
        yield answers
    finally:
        os.close(opened)
        visitor.join()


def _open_if_read(pipe: Path) -> Optional[int]:
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        assert error.errno == errno.ENXIO
        return None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_it_ends_after_the_current_request(
    start: Starter, own_env: Path, gate: Path, number: signal.Signals
) -> None:
    program = start({"TRAC_ENV": str(own_env)})
    with waiting_at(gate, start.path) as answers:
        program.signal(number)
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"through")]
    assert program.wait_exit() == 0


def test_it_opens_tracs_log_again(start: Starter, own_env: Path) -> None:
    configure(own_env, "logging", "log_type", "file")
    configure(own_env, "logging", "log_level", "DEBUG")
    log = own_env / "log" / "trac.log"
    program = start({"TRAC_ENV": str(own_env)})
    assert get(start.path).status == 200
    log.rename(log.with_name("old.log"))
    program.signal(signal.SIGUSR1)
    wait_until(log.exists)
    assert get(start.path, "/wiki/TracGuide").status == 200
    wait_until(lambda: "TracGuide" in log.read_text())
    assert program.stop() == 0


def test_closed_standard_streams(start: Starter, trac_env: Path) -> None:
    """As mod_fastcgi starts its programs: what is opened later must not be taken for them."""
    program = start({"TRAC_ENV": str(trac_env)}, command=("sh", "-c", f"exec {COMMAND} >&- 2>&-"))
    assert get(start.path).status == 200
    for descriptor in (1, 2):
        assert os.readlink(f"/proc/{program.pid}/fd/{descriptor}") == os.devnull
    assert program.stop() == 0
    assert program.log == ""


def test_closed_standard_streams_of_a_pool(start: Starter, trac_env: Path) -> None:
    program = start(
        {"TRAC_ENV": str(trac_env), "TRAC_FCGI_CHILDREN": "1"},
        command=("sh", "-c", f"exec {COMMAND} >&- 2>&-"),
    )
    assert get(start.path).status == 200
    for member in program.members():
        for descriptor in (1, 2):
            assert os.readlink(f"/proc/{member.pid}/fd/{descriptor}") == os.devnull
    assert program.stop() == 0


# -- a pool --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["TRAC_FCGI_CHILDREN", "PHP_FCGI_CHILDREN"])
def test_children_make_a_pool(start: Starter, trac_env: Path, variable: str) -> None:
    program = start({"TRAC_ENV": str(trac_env), variable: "2"})
    program.wait_ready()
    assert [member.role for member in program.members()] == [
        "master", "template", "worker", "worker",
    ]  # fmt: skip
    assert program.members()[0].pid == program.pid
    assert get(start.path).status == 200
    assert program.stop() == 0
    # The socket is the web server's.
    assert start.path.is_socket()


def test_a_pool_is_tuned_by_the_options_of_trac_spawn(start: Starter, trac_env: Path) -> None:
    variables = {"TRAC_FCGI_CHILDREN": "1", "TRAC_SPAWN_MAX_REQUESTS": "1"}
    program = start({"TRAC_ENV": str(trac_env), **variables})
    program.wait_ready()
    assert get(start.path).status == 200
    program.wait_for_line("worker 1 .* recycled: max-requests")


def test_a_pool_takes_no_code_from_the_directory_it_is_started_in(
    start: Starter, trac_env: Path
) -> None:
    """Web servers start programs in their own directory, such as cgi-bin."""
    for name in ("spawner", "logging", "trac"):
        (start.directory / f"{name}.py").write_text("raise SystemExit('taken from here')")
    program = start({"TRAC_ENV": str(trac_env), "TRAC_FCGI_CHILDREN": "1"})
    program.wait_ready()
    assert get(start.path).status == 200


# -- who may connect -----------------------------------------------------------------------------


def connected_from(address: str, port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(address, 0))


@pytest.mark.parametrize("children", ["", "1"])
def test_only_the_named_web_servers_are_answered(
    start: Starter, trac_env: Path, children: str
) -> None:
    """FastCGI 1.0, section 3.2."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    addresses = {"FCGI_WEB_SERVER_ADDRS": "192.0.2.1, 127.0.0.2", "TRAC_FCGI_CHILDREN": children}
    program = start({"TRAC_ENV": str(trac_env), **addresses}, listener=listener)
    with connected_from("127.0.0.2", port) as friend:
        assert client.request(friend, params("/wiki/WikiStart")).status == 200
    with connected_from("127.0.0.3", port) as stranger:
        assert stranger.recv(1) == b""
    program.wait_for_line(r"refused a connection from 127\.0\.0\.3: it is not on the list")


def test_all_web_servers_are_answered_when_none_is_named(start: Starter, trac_env: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    start({"TRAC_ENV": str(trac_env), "FCGI_WEB_SERVER_ADDRS": ""}, listener=listener)
    assert get(("127.0.0.1", port)).status == 200


# -- other starters ------------------------------------------------------------------------------


@contextmanager
def spawned(start: Starter, env: Path, *options: str) -> Iterator[list[int]]:
    """``spawn-fcgi OPTIONS``: the ids of what it started, which is stopped at the end."""
    pidfile = start.directory / "spawn-fcgi.pid"
    command = ["spawn-fcgi", "-s", str(start.path), "-P", str(pidfile), *options, "--", COMMAND]
    starter = start.supervisor.start(command, env=start.environment({"TRAC_ENV": str(env)}))
    assert starter.wait_exit() == 0, starter.log
    pids = [int(word) for word in pidfile.read_text().split()]
    try:
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        wait_gone(pids)


@pytest.mark.parametrize("options", [(), ("-F", "2"), ("-C", "2")])
def test_spawn_fcgi_starts_it(start: Starter, trac_env: Path, options: tuple[str, ...]) -> None:
    """The parent leaves by design, which must not be taken for the end of the web server."""
    with spawned(start, trac_env, *options) as pids:
        assert len(pids) == (2 if "-F" in options else 1)
        for _ in range(4):
            assert b"Welcome to Trac" in get(start.path).body
        assert not any(gone(pid) for pid in pids)
        if "-C" in options:
            members = [Member.of(process) for process in psutil.Process(pids[0]).children()]
            roles = sorted(member.role for member in members if member is not None)
            assert roles == ["template", "worker", "worker"]


def test_spawn_fcgi_without_forking(start: Starter, trac_env: Path) -> None:
    command = ["spawn-fcgi", "-n", "-s", str(start.path), "--", COMMAND]
    program = start.supervisor.start(command, env=start.environment({"TRAC_ENV": str(trac_env)}))
    wait_until(start.path.is_socket)
    wait_until(lambda: title(psutil.Process(program.pid)) == "trac-spawn: trac.fcgi idle")
    assert get(start.path).status == 200
    assert program.stop() == 0


def cgi_fcgi(start: Starter, path: str, body: bytes = b"", method: str = "GET", **more: str) -> bytes:
    """The answer to one request that cgi-fcgi, a CGI program, passes on to ``start.path``."""
    variables = {**params(path, method), **more}
    done = subprocess.run(
        ["cgi-fcgi", "-bind", "-connect", str(start.path)],
        env=start.environment(variables),
        input=body,
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout


def check_through_cgi_fcgi(start: Starter) -> None:
    answer = cgi_fcgi(start, "/wiki/WikiStart")
    assert answer.startswith(b"Status: 200 ")
    assert b"Welcome to Trac" in answer
    answer = cgi_fcgi(start, "/newticket", FORM, "POST", **FORM_HEADERS)
    assert answer.startswith(b"Status: 303 ")
    assert re.search(rb"\r\nLocation: http://localhost/ticket/\d+\r\n", answer)


def test_cgi_fcgi_in_front_of_trac_fcgi(start: Starter, own_env: Path) -> None:
    start({"TRAC_ENV": str(own_env)})
    check_through_cgi_fcgi(start)


def test_cgi_fcgi_in_front_of_a_pool(start: Starter, spawn: Spawner, own_env: Path) -> None:
    start.path = spawn("-n", 1, "--env", own_env).socket
    check_through_cgi_fcgi(start)


def test_cgi_fcgi_starts_it_and_leaves(start: Starter, own_env: Path) -> None:
    command = ["cgi-fcgi", "-start", "-connect", str(start.path), COMMAND, "1"]
    starter = start.supervisor.start(command, env=start.environment({"TRAC_ENV": str(own_env)}))
    assert starter.wait_exit() == 0
    (started,) = start.supervisor.strays()
    check_through_cgi_fcgi(start)
    started.terminate()
    wait_gone([started.pid])


# -- plain CGI -----------------------------------------------------------------------------------


def test_plain_cgi(start: Starter, own_env: Path) -> None:
    answer = start.cgi("/wiki/WikiStart", TRAC_ENV=str(own_env))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"Status: 200 ")
    assert b"Welcome to Trac" in body
    # What follows the body is not part of it.
    body = FORM + b"&field_summary=Else"
    answer = start.cgi("/newticket", "POST", body, TRAC_ENV=str(own_env), **FORM_HEADERS)
    assert answer.startswith(b"Status: 303 ")


def test_plain_cgi_for_a_parent_directory(start: Starter, trac_parent: Path) -> None:
    answer = start.cgi("/", TRAC_ENV_PARENT_DIR=str(trac_parent))
    assert b"Project One" in answer
    head, _, body = start.cgi(
        "/two/wiki/WikiStart", "HEAD", TRAC_ENV_PARENT_DIR=str(trac_parent)
    ).partition(b"\r\n\r\n")
    assert head.startswith(b"Status: 200 ")
    assert body == b""


@pytest.mark.parametrize(
    "length, status", [("10", "400"), ("-1", "400"), ("5, 5", "400"), (str(1 << 40), "413")]
)
def test_plain_cgi_refuses_a_body_that_is_not_as_it_says(
    start: Starter, trac_env: Path, length: str, status: str
) -> None:
    answer = start.cgi("/newticket", "POST", b"short", TRAC_ENV=str(trac_env), CONTENT_LENGTH=length)
    assert answer.startswith(f"Status: {status} ".encode())


# -- what keeps it from starting -----------------------------------------------------------------


def check_refusal(program: Program, code: int, *words: str) -> None:
    """One line, and the exit status."""
    assert program.wait_exit() == code
    for word in words:
        assert word in program.log
    assert "Traceback" not in program.log
    complaints = [line for line in program.log.splitlines() if not re.search("INFO|WARNING", line)]
    assert len(complaints) == 1, program.log


@pytest.mark.parametrize("children", ["", "2"])
def test_no_environment_is_named(start: Starter, children: str) -> None:
    program = start({"TRAC_FCGI_CHILDREN": children})
    check_refusal(program, os.EX_USAGE, "TRAC_ENV")


@pytest.mark.parametrize("children", ["", "2"])
def test_an_environment_and_a_parent_directory(start: Starter, trac_env: Path, children: str) -> None:
    both = {"TRAC_ENV": str(trac_env), "TRAC_ENV_PARENT_DIR": str(trac_env.parent)}
    program = start({**both, "TRAC_FCGI_CHILDREN": children})
    check_refusal(program, os.EX_USAGE, "TRAC_ENV", "TRAC_ENV_PARENT_DIR")


@pytest.mark.parametrize("children", ["", "2"])
@pytest.mark.parametrize("variable", ["TRAC_ENV", "TRAC_ENV_PARENT_DIR"])
def test_a_path_that_is_not_there(start: Starter, variable: str, children: str) -> None:
    program = start({variable: "/no/such/place", "TRAC_FCGI_CHILDREN": children})
    check_refusal(program, os.EX_NOINPUT, "/no/such/place")


@pytest.mark.parametrize("children", ["", "2"])
def test_an_environment_that_needs_an_upgrade(start: Starter, own_env: Path, children: str) -> None:
    with sqlite3.connect(own_env / "db" / "trac.db") as database:
        database.execute("UPDATE system SET value = '40' WHERE name = 'database_version'")
    database.close()
    program = start({"TRAC_ENV": str(own_env), "TRAC_FCGI_CHILDREN": children})
    check_refusal(program, os.EX_CONFIG, f'Run: trac-admin "{own_env}" upgrade')


def test_neither_yes_nor_no(start: Starter, trac_env: Path) -> None:
    program = start({"TRAC_ENV": str(trac_env), "TRAC_SPAWN_NO_STATIC_FILES": "maybe"})
    check_refusal(program, os.EX_USAGE, "TRAC_SPAWN_NO_STATIC_FILES", "maybe")


@pytest.mark.parametrize("text", ["two", "-1", "9999"])
def test_a_wrong_number_of_children(start: Starter, trac_env: Path, text: str) -> None:
    program = start({"TRAC_ENV": str(trac_env), "TRAC_FCGI_CHILDREN": text})
    check_refusal(program, os.EX_USAGE, text)


def test_a_failure_without_standard_streams_has_its_status(start: Starter) -> None:
    program = start({}, command=("sh", "-c", f"exec {COMMAND} >&- 2>&-"))
    assert program.wait_exit() == os.EX_USAGE


def test_started_by_hand_it_says_what_it_is_for(start: Starter) -> None:
    program = start.supervisor.start([COMMAND], env=start.environment({}))
    assert program.wait_exit() == os.EX_USAGE
    assert "trac-spawn -n 8 -s" in program.log


def test_arguments(start: Starter) -> None:
    assert start({}, "--version").wait_exit() == 0
    assert start.supervisor.programs[-1].log.startswith("trac.fcgi ")
    start.path = start.directory / "2.sock"
    assert start({}, "--help").wait_exit() == 0
    start.path = start.directory / "3.sock"
    program = start({}, "-n", "8")
    assert program.wait_exit() == os.EX_USAGE
    assert "unknown argument '-n'" in program.log

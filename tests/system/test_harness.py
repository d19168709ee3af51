"""The harness itself: a test that cannot fail shows nothing."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from .clients import Load
from .processes import Leftover, Supervisor, descendants, gone, wait_gone, wait_until
from .tracenv import trac_admin
from .webservers import Port, WebServers

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER
#: Leaves a daemon behind: in its own session, its parent gone, its title changed.
DAEMON = f"""
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        {SLEEPER.replace("; ", chr(10) + " " * 8)}
    os._exit(0)
"""


def test_nginx_serves_with_its_own_configuration(webservers: WebServers) -> None:
    server = webservers.nginx('location /hello { return 200 "from nginx"; }')
    assert server.browser().get("/hello").text == "from nginx"


def test_lighttpd_serves_with_its_own_configuration(webservers: WebServers) -> None:
    server = webservers.lighttpd('index-file.names = ( "hello.txt" )')
    (server.directory / "hello.txt").write_text("from lighttpd")
    assert server.browser().get("/").text == "from lighttpd"


def test_apache_serves_with_its_own_configuration(webservers: WebServers) -> None:
    server = webservers.apache("Redirect /hello /from-apache", modules=["proxy_fcgi", "fcgid"])
    assert server.browser().get("/hello").location.endswith("/from-apache")


def test_haproxy_serves_with_its_own_configuration(webservers: WebServers) -> None:
    port = Port()
    answer = 'http-request return status 200 content-type text/plain string "from haproxy"'
    server = webservers.haproxy(f"frontend one\n bind 127.0.0.1:{port.number}\n {answer}", port)
    assert server.browser().get("/hello").text == "from haproxy"


def test_caddy_serves_with_its_own_configuration(webservers: WebServers) -> None:
    port = Port()
    site = f'http://127.0.0.1:{port.number} {{\n respond /hello "from caddy"\n}}'
    server = webservers.caddy(site, port)
    assert server.browser().get("/hello").text == "from caddy"


def test_two_apaches_at_once(webservers: WebServers) -> None:
    first = webservers.apache("Redirect /hello /first")
    second = webservers.apache("Redirect /hello /second")
    assert first.browser().get("/hello").location.endswith("/first")
    assert second.browser().get("/hello").location.endswith("/second")


def test_two_web_servers_at_once(webservers: WebServers) -> None:
    first = webservers.nginx('location / { return 200 "first"; }')
    second = webservers.nginx('location / { return 200 "second"; }')
    assert first.browser().get("/").text == "first"
    assert second.browser().get("/").text == "second"


def test_a_web_server_that_cannot_start_says_why(webservers: WebServers) -> None:
    server = webservers.nginx("nonsense;")
    server.wait_for_line('unknown directive "nonsense"')
    assert server.wait_exit() != 0


def test_a_line_is_awaited_and_an_early_end_noticed(supervisor: Supervisor) -> None:
    program = supervisor.start([sys.executable, "-c", SLEEPER], "sleeper")
    assert program.wait_for_line("^up$")
    assert program.stop() == -signal.SIGTERM
    with pytest.raises(AssertionError, match="ended .* no line matches"):
        program.wait_for_line("never printed")


def test_a_program_that_ignores_sigterm_is_killed_and_reported(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    program = supervisor.start([sys.executable, "-c", STUBBORN], "stubborn")
    program.wait_for_line("^up$")
    assert program.end(timeout=0.2) == [f"{program.pid} ({' '.join(program.argv)})"]
    assert gone(program.pid)


def test_a_daemon_left_behind_is_killed_and_reported(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    supervisor.GRACE = 0.1
    program = supervisor.start([sys.executable, "-c", DAEMON], "daemon")
    assert program.wait_exit() == 0
    wait_until(lambda: program.log)
    (daemon,) = supervisor.strays()
    with pytest.raises(Leftover, match=str(daemon.pid)):
        supervisor.finish()
    wait_gone([daemon.pid])
    assert daemon.pid not in [process.pid for process in descendants()]


def test_a_load_notices_every_kind_of_lost_request() -> None:
    def fetch(id: str) -> tuple[int, bytes]:
        number = int(id[4:-1])
        if number == 3:
            raise ConnectionResetError("gone")
        return (502, b"bad") if number == 5 else (200, b"load1x" if number == 7 else id.encode())

    with Load(fetch, threads=2, limit=30.0) as load:
        load.wait_for(20)
    reasons = sorted(failure.reason for failure in load.failures)
    assert len(reasons) == 3
    assert "ConnectionResetError" in reasons[0]
    assert "answer to something else" in reasons[1]
    assert "status 502" in reasons[2]
    with pytest.raises(AssertionError, match="3 of .* requests failed"):
        load.check()


def test_environments_are_real_and_apart(own_env: Path, trac_parent: Path, trac_env: Path) -> None:
    trac_admin(own_env, "component", "add", "only-here")
    assert "only-here" in trac_admin(own_env, "component", "list")
    assert "only-here" not in trac_admin(trac_env, "component", "list")
    assert sorted(path.name for path in trac_parent.iterdir()) == ["one", "two"]
    assert "Project Two" in trac_admin(trac_parent / "two", "config", "get", "project", "name")

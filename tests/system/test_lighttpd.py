"""lighttpd, configured as its users do: it starts trac.fcgi, or connects to a pool."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from . import tracenv
from .pools import BIN, Member, Spawner
from .processes import wait_gone, wait_until
from .scenarios import Site, ticket, visit, visit_projects, wiki_page
from .webservers import WebServer, WebServers

#: As in "Simple Lighttpd Configuration" of the page TracFastCgi in Trac's wiki.
TRAC_FAST_CGI = """
fastcgi.server = ("/trac" =>
                   ("trac" =>
                     ("socket" => "/tmp/trac-fastcgi.sock",
                      "bin-path" => "/path/to/cgi-bin/trac.fcgi",
                      "check-local" => "disable",
                      "bin-environment" =>
                        ("TRAC_ENV" => "/path/to/projenv")
                     )
                   )
                 )
"""
EXTERNAL = """
server.modules += ( "mod_fastcgi" )
fastcgi.server = ( "/trac" => (( "socket" => "{socket}", "check-local" => "disable" )) )
"""
CHILDREN = """
server.modules += ( "mod_fastcgi" )
fastcgi.server = ( "/trac" =>
                   (( "socket" => "{socket}",
                      "bin-path" => "{program}",
                      "bin-environment" =>
                        ( "TRAC_ENV" => "{env}", "TRAC_FCGI_CHILDREN" => "2" ),
                      "max-procs" => 1,
                      "check-local" => "disable" ))
                 )
"""
#: One is quicker to start than lighttpd's default of four.
ONE_PROCESS = '"max-procs" => 1,'
CGI = """
server.modules += ( "mod_cgi", "mod_setenv" )
cgi.assign = ( "/trac.fcgi" => "" )
setenv.set-environment = ( "TRAC_ENV" => "{env}" )
"""


class Seed:
    """lighttpd with the wiki's configuration, the placeholders filled in."""

    def __init__(self, webservers: WebServers, directory: Path) -> None:
        self.webservers = webservers
        self.socket = directory / "fcgi.sock"

    def __call__(self, env: Path, *, variable: str = "TRAC_ENV", more: str = "") -> WebServer:
        """``more`` is one more line for the entry of the program."""
        text = TRAC_FAST_CGI.replace("/tmp/trac-fastcgi.sock", str(self.socket))
        text = text.replace("/path/to/cgi-bin/trac.fcgi", str(BIN / "trac.fcgi"))
        text = text.replace("TRAC_ENV", variable).replace("/path/to/projenv", str(env))
        if more:
            text = text.replace('"check-local"', f'{more}\n"check-local"')
        return self.webservers.lighttpd('server.modules += ( "mod_fastcgi" )\n' + text)


@pytest.fixture
def seed(webservers: WebServers, tmp_path: Path) -> Seed:
    return Seed(webservers, tmp_path)


def test_everything_works_with_trac_env(seed: Seed, own_env: Path) -> None:
    server = seed(own_env)
    visit(Site.at(server, "/trac"))
    started = [process.pid for process in server.descendants()]
    # lighttpd's default for max-procs.
    assert len(started) == 4
    server.stop()
    wait_gone(started)


def test_everything_works_with_trac_env_parent_dir(
    seed: Seed, tmp_path: Path, trac_parent: Path
) -> None:
    parent = tracenv.copy(trac_parent, tmp_path / "projects")
    visit_projects(seed(parent, variable="TRAC_ENV_PARENT_DIR"), "/trac")


def test_an_entry_for_each_instance(
    webservers: WebServers, tmp_path: Path, trac_env: Path, trac_parent: Path
) -> None:
    entries = "".join(
        f"""
        "{mount}" => (( "socket" => "{tmp_path}/{name}.sock", "bin-path" => "{BIN}/trac.fcgi",
                        "max-procs" => 1, "check-local" => "disable",
                        "bin-environment" => ( "TRAC_ENV" => "{env}" ) )),"""
        for mount, name, env in (("/trac", "a", trac_env), ("/two", "b", trac_parent / "two"))
    )
    server = webservers.lighttpd(f'server.modules += ( "mod_fastcgi" )\nfastcgi.server = ({entries} )\n')
    wiki_page(Site.at(server, "/trac"))
    wiki_page(Site.at(server, "/two"))
    assert "Project Two" in server.browser("/two").get("/about").text


def test_everything_works_with_a_pool_that_lighttpd_starts(
    webservers: WebServers, tmp_path: Path, own_env: Path
) -> None:
    server = webservers.lighttpd(
        CHILDREN.format(socket=tmp_path / "fcgi.sock", program=BIN / "trac.fcgi", env=own_env)
    )
    visit(Site.at(server, "/trac"))
    members = [Member.of(process) for process in server.descendants()]
    roles = sorted(member.role for member in members if member is not None)
    assert roles == ["master", "template", "worker", "worker"]
    server.stop()
    wait_gone(member.pid for member in members if member is not None)


def test_killing_lighttpd_ends_the_process_that_it_started(seed: Seed, trac_env: Path) -> None:
    server = seed(trac_env, more=ONE_PROCESS)
    kill_and_see(server, 1)


def test_killing_lighttpd_ends_the_pool_that_it_started(
    webservers: WebServers, tmp_path: Path, trac_env: Path
) -> None:
    server = webservers.lighttpd(
        CHILDREN.format(socket=tmp_path / "fcgi.sock", program=BIN / "trac.fcgi", env=trac_env)
    )
    kill_and_see(server, 5)  # master, template, two workers and a spare one


def kill_and_see(server: WebServer, processes: int) -> None:
    wiki_page(Site.at(server, "/trac"))
    wait_until(lambda: len(server.descendants()) == processes, what=f"{processes} processes")
    started = [process.pid for process in server.descendants()]
    server.signal(signal.SIGKILL)
    assert server.wait_exit() == -signal.SIGKILL
    wait_gone(started)


def test_lighttpd_starts_a_killed_trac_fcgi_again(seed: Seed, trac_env: Path) -> None:
    server = seed(trac_env, more=ONE_PROCESS)
    site = Site.at(server, "/trac")
    wiki_page(site)
    (started,) = server.descendants()
    started.kill()
    wait_until(lambda: site.browser.get("/wiki/WikiStart").status == 200, what="answer")
    assert [process.pid for process in server.descendants()] != [started.pid]


def test_an_environment_that_cannot_be_opened_is_told_in_lighttpds_log(
    seed: Seed, tmp_path: Path
) -> None:
    server = seed(tmp_path / "nowhere", more=ONE_PROCESS)
    server.wait_for_line(r"trac\.fcgi: ERROR: Trac environment .*/nowhere: No such file")
    server.wait_for_line(r"child exited: 66")


def test_everything_works_with_a_pool_on_its_own_socket(
    spawn: Spawner, webservers: WebServers, own_env: Path
) -> None:
    pool = spawn("-n", 2, "--env", own_env)
    visit(Site.at(webservers.lighttpd(EXTERNAL.format(socket=pool.socket)), "/trac"))


def test_everything_works_with_a_pool_for_a_parent_directory(
    spawn: Spawner, webservers: WebServers, tmp_path: Path, trac_parent: Path
) -> None:
    parent = tracenv.copy(trac_parent, tmp_path / "projects")
    pool = spawn("-n", 2, "--env-parent-dir", parent)
    visit_projects(webservers.lighttpd(EXTERNAL.format(socket=pool.socket)), "/trac")


def test_plain_cgi(webservers: WebServers, own_env: Path) -> None:
    server = webservers.lighttpd(CGI.format(env=own_env))
    (server.directory / "trac.fcgi").symlink_to(BIN / "trac.fcgi")
    # Each request starts Trac anew, so not all of the scenarios.
    visit(Site.at(server, "/trac.fcgi"), (wiki_page, ticket))

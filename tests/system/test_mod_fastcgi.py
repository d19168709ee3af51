"""mod_fastcgi, which no Debian has any more: its process manager, as far as trac.fcgi meets it.

What that does before exec (fcgi_pm.c, spawn_fs_process): it goes to the program's folder, puts the
listening Unix socket on descriptor 0, standard output and error on its error log, closes whatever
else is open, ignores SIGPIPE, and hands on an environment of -initial-env alone: no PATH, no HOME.
"""

from __future__ import annotations

import re
import shlex
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import psutil
import pytest

from workers.fastcgi import client

from .clients import fcgi_load, params
from .pools import BIN, Pool, Spawner, base_environment
from .printed import text_for
from .processes import PATIENCE, Supervisor, title, wait_gone, wait_until
from .scenarios import Site, static_file, ticket, visit, wiki_page
from .webservers import WebServers

START = """
import os, signal, sys
os.setpgid(0, 0)
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
os.chdir(os.path.dirname(sys.argv[1]))
os.dup2(2, 1)
os.closerange(3, 1024)
os.execve(sys.argv[1], sys.argv[1:2], dict(pair.split("=", 1) for pair in sys.argv[2:]))
"""
#: "Simple Apache configuration" of the page TracFastCgi in Trac's wiki.
WIKI = """
FastCgiConfig -initial-env TRAC_ENV=/path/to/env/trac
FastCgiConfig -initial-env TRAC_ENV_PARENT_DIR=/parent/dir/of/projects
"""


class ProcessManager:
    """Starts programs as a directive says, on one listening socket for each directive."""

    def __init__(self, supervisor: Supervisor, directory: Path) -> None:
        self.supervisor = supervisor
        self.path = directory / "mod_fastcgi.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(100)

    def start(self, directive: str, program: Optional[str] = None) -> Pool:
        """One more process of ``FastCgiServer PROGRAM ...`` or ``FastCgiConfig ...``."""
        words = shlex.split(directive)
        variables = [after for word, after in zip(words, words[1:]) if word == "-initial-env"]
        started = Pool(
            [sys.executable, "-c", START, program or words[1], *variables],
            self.supervisor.log_path("trac.fcgi"),
            stdin=self.listener.fileno(),
            own_group=False,
        )
        started.socket = self.path
        self.supervisor.add(started)
        return started


    def start_one(self, directive: str) -> Pool:
        """A trac.fcgi that serves by itself, once it does."""
        started = self.start(directive, str(BIN / "trac.fcgi"))
        serving = re.compile("trac-spawn: trac.fcgi (idle|busy)")
        # Loading Trac may take long beside the load of others.
        process = psutil.Process(started.pid)
        wait_until(lambda: serving.match(title(process)), 3 * PATIENCE, "serving process")
        return started


@pytest.fixture
def manager(supervisor: Supervisor, tmp_path: Path) -> Iterator[ProcessManager]:
    manager = ProcessManager(supervisor, tmp_path)
    yield manager
    manager.listener.close()


def directive(form: str, env: Path, name: str, *options: object) -> str:
    """The one of this name in the printed configuration."""
    text = text_for("apache", "--form", form, "--", "--env", env, *options).replace("\\\n", " ")
    found = re.search(rf"(?m)^{name} .*$", text)
    assert found is not None, text
    return found[0]


def get(path: Path, page: str = "/wiki/WikiStart") -> client.Response:
    return client.request(str(path), params(page, SCRIPT_NAME="/trac"))


def test_static_with_the_printed_directive_is_a_pool(manager: ProcessManager, trac_env: Path) -> None:
    line = directive("fastcgi-static", trac_env, "FastCgiServer", "-n", 2)
    assert "-processes 1" in line
    started = manager.start(line)
    answer = get(manager.path)
    assert (answer.status, b'href="/trac/timeline"' in answer.body) == (200, True)
    wait_until(lambda: len(started.workers()) == 2)
    members = [member.pid for member in started.members()]
    assert started.stop() == 0
    wait_gone(members)
    assert manager.path.is_socket()


def test_dynamic_processes_come_and_go(manager: ProcessManager, trac_env: Path) -> None:
    """One is started for the first visitor, another when there are more; SIGTERM ends either."""
    line = directive("fastcgi-dynamic", trac_env, "FastCgiConfig")
    first = manager.start_one(line)
    with fcgi_load(manager.path, "/search?noquickjump=1&q={id}", threads=2, pause=0.1) as load:
        second = manager.start_one(line)
        first.signal(signal.SIGTERM)
        assert first.wait_exit() == 0
        load.wait_for(5)
    load.check(5)
    assert second.running and second.stop() == 0


@pytest.mark.parametrize("variable", ["TRAC_ENV", "TRAC_ENV_PARENT_DIR"])
def test_the_directives_of_tracs_wiki(
    manager: ProcessManager, trac_env: Path, trac_parent: Path, variable: str
) -> None:
    line = next(line for line in WIKI.splitlines() if f" {variable}=" in line)
    place = trac_env if variable == "TRAC_ENV" else trac_parent
    started = manager.start(re.sub("=/.*", f"={place}", line), str(BIN / "trac.fcgi"))
    page = "/wiki/WikiStart" if variable == "TRAC_ENV" else "/one/wiki/WikiStart"
    assert b"Welcome to Trac" in get(manager.path, page).body
    assert started.stop() == 0


def test_what_went_wrong_is_in_apaches_error_log(manager: ProcessManager, tmp_path: Path) -> None:
    started = manager.start(f"FastCgiConfig -initial-env TRAC_ENV={tmp_path}/none", str(BIN / "trac.fcgi"))
    started.wait_for_line(r"trac\.fcgi: ERROR: Trac environment .*/none: No such file")


def test_external_with_the_printed_directive_reaches_the_pool(spawn: Spawner, trac_env: Path) -> None:
    pool = spawn("-n", 1, "--env", trac_env)
    text = text_for("apache", "--form", "fastcgi-external", pool=pool)
    found = re.search(r"(?m)^FastCgiExternalServer \S+ -socket (\S+) -idle-timeout \d+$", text)
    assert found is not None, text
    assert get(Path(found[1])).status == 200


def test_the_same_for_mod_fcgid(webservers: WebServers, own_env: Path) -> None:
    """Whose Debian package has the AddHandler; the wiki's other lines have other names there."""
    program = BIN / "trac.fcgi"
    config = f"""
        AddHandler fcgid-script .fcgi
        FcgidInitialEnv TRAC_ENV {own_env}
        FcgidInitialEnv PYTHONPATH {base_environment(own_env)["PYTHONPATH"]}
        ScriptAlias /trac {program}
        <Directory {program.parent}>
            Require all granted
        </Directory>
    """
    server = webservers.apache(config, ["fcgid"])
    visit(Site.at(server, "/trac"), (wiki_page, static_file, ticket))

"""What the template leaves to its workers, and what a Trac that cannot be loaded is told as."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from workers import prctl
from workers.fastcgi import client

from . import tracenv
from .clients import params
from .pools import Pool, Spawner
from .visits import APP

#: A page that shows what Trac takes for its own address when it writes mails.
ADDRESS = """
from trac.core import Component, implements
from trac.web.api import IRequestHandler

class Address(Component):
    implements(IRequestHandler)

    def match_request(self, req):
        return req.path_info == "/address"

    def process_request(self, req):
        req.send(f"{self.env.abs_href.base} {self.env.href.base}".encode(), "text/plain")
"""
BROKEN_UPGRADE = """
from trac.core import Component, implements
from trac.env import IEnvironmentSetupParticipant

class Broken(Component):
    implements(IEnvironmentSetupParticipant)

    def environment_created(self):
        pass

    def environment_needs_upgrade(self):
        raise KeyError("broken on purpose")

    def upgrade_environment(self):
        pass
"""


def needs_upgrade(env: Path) -> None:
    """Make it look like one of an older Trac."""
    database = sqlite3.connect(env / "db" / "trac.db")
    database.execute("UPDATE system SET value = '40' WHERE name = 'database_version'")
    database.commit()
    database.close()


def open_files(pid: int) -> list[str]:
    folder = f"/proc/{pid}/fd"
    return [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]


def check_no_database(pool: Pool) -> None:
    members = pool.members()
    assert [member.role for member in members] == ["master", "template", "worker", "worker"]
    for member in members:
        assert not [path for path in open_files(member.pid) if "/db/" in path], member
    assert "not safe to fork" not in pool.log


def refused(pool: Pool, code: int) -> str:
    """The only complaint of a trac-spawn that did not start."""
    assert pool.wait_exit() == code, pool.log
    (line,) = [line for line in pool.log.splitlines() if line.startswith("trac-spawn: ")]
    assert "Traceback" not in pool.log
    return line


def test_no_database_handle_crosses_the_fork(spawn: Spawner, trac_env: Path) -> None:
    check_no_database(spawn("-n", 2, "--env", trac_env))


def test_nor_that_of_an_environment_that_cannot_be_served(
    spawn: Spawner, tmp_path: Path, pristine_env: Path
) -> None:
    parent = tmp_path / "projects"
    tracenv.copy(pristine_env, parent / "old")
    needs_upgrade(parent / "old")
    pool = spawn("-n", 2, "--env-parent-dir", parent)
    check_no_database(pool)
    assert f'Run: trac-admin "{parent}/old" upgrade' in pool.log
    # Its visitors are told the same, and the index is there.
    old = client.request(str(pool.socket), params("/old/wiki"))
    assert (old.status, b"needs to be upgraded" in old.body) == (500, True)
    assert client.request(str(pool.socket), params("/")).status == 200


def test_more_environments_than_are_loaded_ahead(
    spawn: Spawner, tmp_path: Path, pristine_env: Path
) -> None:
    parent = tmp_path / "projects"
    for number in range(17):
        # No databases: these are broken, which is quick to find out, but count.
        (parent / f"a{number:02}").mkdir(parents=True)
        shutil.copy(pristine_env / "VERSION", parent / f"a{number:02}")
    tracenv.copy(pristine_env, parent / "last")
    pool = spawn("-n", 1, "--env-parent-dir", parent)
    assert "only the first 16 of 18 environments are loaded ahead" in pool.log
    # Neither the index nor its own pages have opened it in the template.
    log = str(parent / "last" / "log")
    assert not [path for path in open_files(pool.template().pid) if path.startswith(log)]
    assert client.request(str(pool.socket), params("/last/wiki")).status == 200


def test_the_address_is_that_of_the_first_real_request(spawn: Spawner, own_env: Path) -> None:
    (own_env / "plugins" / "address.py").write_text(ADDRESS)
    pool = spawn("-n", 1, "--env", own_env)
    where = params("/address", HTTP_HOST="trac.example.org", SCRIPT_NAME="/projects", HTTPS="on")
    answer = client.request(str(pool.socket), where)
    assert answer.body == b"https://trac.example.org/projects /projects"


def test_a_configured_address_stays(spawn: Spawner, own_env: Path) -> None:
    (own_env / "plugins" / "address.py").write_text(ADDRESS)
    tracenv.configure(own_env, "trac", "base_url", "https://configured.example.org/t")
    pool = spawn("-n", 1, "--env", own_env)
    answer = client.request(str(pool.socket), params("/address", HTTP_HOST="other.example.org"))
    assert answer.body == b"https://configured.example.org/t /t"


def test_an_environment_that_needs_an_upgrade(spawn: Spawner, own_env: Path) -> None:
    needs_upgrade(own_env)
    line = refused(spawn("-n", 1, "--env", own_env, ready=False), os.EX_CONFIG)
    told = "The Trac Environment needs to be upgraded. Run: trac-admin"
    assert line == f'trac-spawn: Trac environment {own_env}: {told} "{own_env}" upgrade'


def test_a_plugin_that_cannot_be_imported_is_left_to_trac(spawn: Spawner, own_env: Path) -> None:
    """Trac logs it and goes on without it, and so do we."""
    (own_env / "plugins" / "broken.py").write_text("this is not python(")
    pool = spawn("-n", 1, "--env", own_env)
    pool.wait_for_line("the plugin .*broken.py cannot be loaded; Trac goes on without it")
    assert client.request(str(pool.socket), params("/wiki")).status == 200


def test_a_plugin_that_keeps_the_environment_from_opening(spawn: Spawner, own_env: Path) -> None:
    (own_env / "plugins" / "broken.py").write_text(BROKEN_UPGRADE)
    line = refused(spawn("-n", 1, "--env", own_env, ready=False), os.EX_CONFIG)
    assert "broken.Broken: KeyError: 'broken on purpose'" in line


@dataclass(frozen=True)
class Unprivileged:
    """Starts trac-spawn so that the application runs as a user without rights."""

    spawn: Spawner
    user: str
    options: tuple[str, ...]

    def __call__(self, *options: object, **settings: Any) -> Pool:
        return self.spawn("-n", 1, *self.options, *options, ready=False, **settings)


@pytest.fixture
def unprivileged(request: pytest.FixtureRequest) -> Unprivileged:
    if os.geteuid() != 0:
        spawn = request.getfixturevalue("spawn")
        return Unprivileged(spawn, pwd.getpwuid(os.geteuid()).pw_name, ())
    user = request.getfixturevalue("other_user")
    return Unprivileged(request.getfixturevalue("spawn_as_root"), user, ("-u", user))


@pytest.mark.parametrize("closed", ["log", "conf", "conf/trac.ini"])
def test_an_environment_that_the_user_may_not_read(
    unprivileged: Unprivileged, own_env: Path, closed: str
) -> None:
    configuration = own_env / "conf" / "trac.ini"
    text = configuration.read_text()
    assert "log_type = none" in text
    configuration.write_text(text.replace("log_type = none", "log_type = file"))
    (own_env / closed).chmod(0)
    line = refused(unprivileged("--env", own_env), os.EX_NOPERM)
    (own_env / closed).chmod(0o777)
    assert f"Trac environment {own_env}: Permission denied: {own_env}/" in line
    assert f"the user {unprivileged.user} must be able to read and write the environment" in line


def test_a_database_that_the_user_may_not_write(unprivileged: Unprivileged, own_env: Path) -> None:
    (own_env / "db" / "trac.db").chmod(0o444)
    line = refused(unprivileged("--env", own_env), os.EX_CONFIG)
    assert f"The user {unprivileged.user} requires read _and_ write permissions" in line
    assert str(own_env / "db" / "trac.db") in line


def test_modules_that_the_user_may_not_read(unprivileged: Unprivileged, tmp_path: Path) -> None:
    """As when Python packages were installed below root's home."""
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "website.py").write_text("application = print")
    closed.chmod(0o700 if os.geteuid() == 0 else 0)
    paths = {"PYTHONPATH": f"{unprivileged.spawn.code}:{closed}"}
    line = refused(unprivileged("--app", "website:application", env=paths), os.EX_NOPERM)
    closed.chmod(0o700)
    assert f"the user {unprivileged.user} may not read {closed}" in line


@pytest.mark.parametrize("mode", [[], ["--no-template"]])
def test_pages_may_be_merged_where_the_kernel_can(spawn: Spawner, mode: list[str]) -> None:
    pool = spawn("-n", 1, *APP, "--ksm", *mode)
    if prctl.can_merge_pages():
        (worker,) = pool.workers()
        flags = re.findall("^VmFlags: (.*)", Path(f"/proc/{worker.pid}/smaps").read_text(), re.M)
        assert any("mg" in of_mapping.split() for of_mapping in flags)
    else:
        assert "--ksm: no memory is saved: this kernel cannot" in pool.log

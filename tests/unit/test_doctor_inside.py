"""The doctor's judgement of environments, interpreters and wrappers, of facts that the tests make up."""

from __future__ import annotations

import dataclasses
import os
import stat
import typing
from pathlib import Path
from typing import Any, List

import pytest

from spawner.doctor import environment, filesystem, inside, interpreter
from spawner.doctor.account import Account, current_account
from spawner.doctor.wrapper import Wrapper, judge_wrapper

TRAC = Account("trac", 200, 201, frozenset((201,)))
SOUND: inside.Facts = {
    "trac": "1.6",
    "plugins": [],
    "database": "sqlite:db/trac.db",
    "database_file": "/srv/env/db/trac.db",
    "database_error": "",
    "needs_upgrade": False,
    "journal_mode": "wal",
    "log_file": "/srv/env/log/trac.log",
    "log_writable": True,
    "log_makeable": True,
    "base_url": "",
    "sends_mail": False,
}


def names(findings: Any) -> List[str]:
    return [finding.name for finding in findings]


def with_facts(**changes: Any) -> inside.Facts:
    facts: Any = {**SOUND, **changes}
    return typing.cast(inside.Facts, facts)


# Environments


@pytest.mark.parametrize(
    ("changes", "network", "found"),
    [
        ({}, None, []),
        ({"journal_mode": "delete"}, None, ["advice env-journal"]),
        ({"journal_mode": "delete"}, "nfs4", ["warning env-network"]),
        ({}, "nfs4", ["error env-network"]),
        ({"journal_mode": None}, "nfs4", []),
        ({"needs_upgrade": True}, None, ["error env-upgrade"]),
        ({"database_error": "no such file", "journal_mode": None}, None, ["error env-database"]),
    ],
)
def test_databases(changes: Any, network: Any, found: List[str]) -> None:
    judged = list(environment.judge_database("/srv/env", with_facts(**changes), network, TRAC))
    assert [f"{one.severity} {one.name}" for one in judged] == found


@pytest.mark.parametrize(
    ("problem", "file", "mend"),
    [
        (
            "The user trac requires read _and_ write permissions to the database file",
            "/srv/env/db/trac.db",
            "chown trac:201 /srv/env/db /srv/env/db/trac.db && chmod u+rwX /srv/env/db /srv/env/db/trac.db",
        ),
        ("requires read _and_ write permissions", "/var/lib/trac.db", "as well as the folder it is in"),
        ("requires read _and_ write permissions", "/srv/env/trac.db", "as well as the folder it is in"),
        ("database is locked", "/srv/env/db/trac.db", "lslocks | grep /srv/env/db/trac.db"),
        ("connection refused", None, "[trac] database in /srv/env/conf/trac.ini"),
    ],
)
def test_what_mends_a_database(problem: str, file: Any, mend: str) -> None:
    facts = with_facts(database_error=problem, database_file=file)
    (finding,) = environment.judge_database("/srv/env", facts, None, TRAC)
    assert problem in finding.what
    assert mend in finding.mend


def test_what_trac_says_has_no_markup() -> None:
    message = "The user <code>trac</code> may not, <em class=x>a &amp; b</em>; 1 < 2 > 0"
    assert inside._plain(message) == "The user trac may not, a & b; 1 < 2 > 0"


def test_wal_is_added_to_what_is_there() -> None:
    assert environment._with_wal("sqlite:db/trac.db") == "sqlite:db/trac.db?journal_mode=wal"
    assert environment._with_wal("sqlite:t.db?synchronous=normal").endswith("normal&journal_mode=wal")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"log_file": None, "log_writable": False}, []),
        ({"log_writable": False, "log_makeable": False}, ["env-log"]),
        ({"log_makeable": False}, ["env-log-folder"]),
    ],
)
def test_logs(changes: Any, found: List[str]) -> None:
    assert names(environment.judge_log("/srv/env", with_facts(**changes), TRAC)) == found


@pytest.mark.parametrize(
    ("base_url", "mail", "url", "found"),
    [
        ("", False, "https://example.org/trac", []),
        ("", True, None, ["base-url"]),
        ("https://example.org/trac", True, None, []),
        ("https://example.org/trac/", True, "https://example.org:443/trac", []),
        ("http://example.org/trac", True, "https://example.org/trac", ["base-url"]),
        ("https://example.org/", False, "https://example.org/trac", ["base-url"]),
    ],
)
def test_base_urls(base_url: str, mail: bool, url: Any, found: List[str]) -> None:
    assert names(environment.judge_base_url("/srv/env", base_url, mail, url)) == found


def test_a_traceback_on_one_line() -> None:
    text = 'Skipping "x": \nTraceback (most recent call last):\n  File "x"\nImportError: no y\n'
    assert inside._first_line(text) == 'Skipping "x": ImportError: no y'
    assert inside._first_line("one") == "one"
    assert inside._first_line("") == ""


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("sqlite:db/trac.db", "/e/db/trac.db"),
        ("sqlite:/var/t.db?journal_mode=wal", "/var/t.db"),
        ("postgres://u@h/db", None),
    ],
)
def test_database_files(text: str, file: Any) -> None:
    assert inside._sqlite_file("/e", text) == file


MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /srv rw shared:2 master:1 - nfs4 server:/srv rw
31 30 0:41 / /srv/my\040trac rw - xfs /dev/sdb rw
32 22 0:42 / /srvother rw - tmpfs tmpfs rw
bad line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/trac/db", "nfs4"),
        ("/srv", "nfs4"),
        ("/srv/my trac/db", "xfs"),
        ("/srvother/x", "tmpfs"),
        ("/srvo", "ext4"),
    ],
)
def test_file_systems(path: str, kind: str) -> None:
    assert filesystem.kind_of(path, MOUNTS) == kind


def test_the_file_system_of_this_test(tmp_path: Path) -> None:
    assert filesystem.network_kind(str(tmp_path)) in {None, *filesystem.NETWORK}


# Interpreters

PYTHON: interpreter.Facts = {
    "executable": "/venv/bin/python", "python": [3, 11], "missing": {}, "trac": "1.6"
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"missing": {"pkg_resources": "x", "trac": "x"}}, ["interpreter-pkg-resources"]),
        ({"missing": {"cgi": "x", "trac": "x"}}, ["interpreter-cgi"]),
        ({"missing": {"trac": "x"}, "trac": None}, ["interpreter-trac"]),
        ({"trac": "1.4.3"}, ["interpreter-trac-old"]),
        ({"trac": "1.10"}, []),
        ({"python": [3, 14]}, ["interpreter-python"]),
        ({"python": [3, 8]}, ["interpreter-python"]),
    ],
)
def test_interpreters(changes: Any, found: List[str]) -> None:
    facts: Any = {**PYTHON, **changes}
    assert names(interpreter.judge_interpreter(facts)) == found


def test_a_master_of_another_version() -> None:
    assert names(interpreter.judge_master(None)) == []
    assert names(interpreter.judge_master("0.0.1")) == ["interpreter-master"]


# Wrappers


@pytest.fixture
def wrapper(tmp_path: Path) -> Wrapper:
    """One that suexec would start as the user 200, group 201."""
    folder = tmp_path / "www" / "trac"
    folder.mkdir(parents=True)
    return Wrapper(
        path=str(folder / "trac.fcgi"),
        found=state(stat.S_IFREG | 0o755),
        folder=state(stat.S_IFDIR | 0o755),
        docroot=str(tmp_path / "www"),
        text="#!/bin/sh\nTRAC_ENV=/srv/trac exec /venv/bin/trac.fcgi\n",
    )


def state(mode: int, uid: int = 200, gid: int = 201) -> os.stat_result:
    return os.stat_result((mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


FILE, FOLDER = stat.S_IFREG, stat.S_IFDIR
WRONG: List[Any] = [
    ({}, []),
    ({"found": state(FILE | 0o755, 0, 0)}, ["wrapper-owner"]),
    ({"found": state(FILE | 0o755, 200, 0)}, ["wrapper-owner"]),
    ({"folder": state(FOLDER | 0o755, 0, 201)}, ["wrapper-owner"]),
    ({"found": state(FILE | 0o775)}, ["wrapper-writable"]),
    ({"folder": state(FOLDER | 0o757)}, ["wrapper-writable"]),
    ({"found": state(FILE | 0o4755)}, ["wrapper-setuid"]),
    ({"found": state(FILE | 0o2755)}, ["wrapper-setuid"]),
    ({"found": state(FILE | 0o644)}, ["wrapper-mode"]),
    ({"found": state(stat.S_IFLNK | 0o777)}, ["wrapper-kind"]),
    ({"docroot": "/var/www"}, ["wrapper-docroot"]),
    ({"text": "#!/bin/sh\nexec /venv/bin/trac.fcgi\n"}, ["wrapper-environment"]),
    ({"text": "#!/bin/sh\r\nTRAC_ENV=/srv exec trac.fcgi\r\n"}, ["wrapper-interpreter"]),
    ({"text": ""}, []),
]


@pytest.mark.parametrize(("changes", "found"), WRONG)
def test_wrappers(wrapper: Wrapper, changes: Any, found: List[str]) -> None:
    assert names(judge_wrapper(dataclasses.replace(wrapper, **changes), TRAC)) == found


def test_the_document_root_itself_will_do(wrapper: Wrapper) -> None:
    at_root = dataclasses.replace(wrapper, path=os.path.join(wrapper.docroot, "trac.fcgi"))
    assert names(judge_wrapper(at_root, TRAC)) == []


def test_suexec_starts_nothing_as_root(wrapper: Wrapper) -> None:
    root = Account("root", 0, 0, frozenset((0,)))
    assert "wrapper-user" in names(judge_wrapper(wrapper, root))
    assert current_account().uid == os.geteuid()

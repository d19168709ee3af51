"""The doctor's judgement, of facts that the tests make up."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Dict, List

import pytest

from spawner.doctor import answering, apart, limits, report, sockets, webservers
from spawner.doctor.account import ENTER, READ, WRITE, Account, obstacles
from spawner.doctor.finding import Diagnosis, Finding, Severity, advice, error, warning, worst
from spawner.doctor.site import Site, Wish, settings_of_master
from spawner.doctor.webservers import WebServer
from spawner.settings import Settings
from spawner.values import UNLIMITED

SOMEBODY = Account("web", 33, 33, frozenset((33, 44)))


def names(findings: Any) -> List[str]:
    return [finding.name for finding in findings]


def status_of(mode: int, uid: int = 0, gid: int = 0) -> os.stat_result:
    return os.stat_result((mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


# Who may


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "wanted", "may"),
    [
        (0o660, 0, 33, READ | WRITE, True),
        (0o660, 0, 44, READ | WRITE, True),
        (0o660, 0, 0, READ | WRITE, False),
        (0o640, 0, 33, READ | WRITE, False),
        (0o666, 0, 0, READ | WRITE, True),
        # The owner has the owner's rights, whatever all others have.
        (0o077, 33, 0, READ, False),
        (0o707, 0, 33, READ, False),
        (0o711, 0, 0, ENTER, True),
        (0o710, 0, 0, ENTER, False),
    ],
)
def test_rights(mode: int, uid: int, gid: int, wanted: int, may: bool) -> None:
    assert SOMEBODY.may(wanted, status_of(mode, uid, gid)) is may
    assert Account("root", 0, 0, frozenset((0,))).may(wanted, status_of(mode, uid, gid))


def test_each_obstacle_on_the_way() -> None:
    tree = {
        "/": status_of(stat.S_IFDIR | 0o755),
        "/run": status_of(stat.S_IFDIR | 0o750),
        "/run/trac": status_of(stat.S_IFDIR | 0o755),
        "/run/trac/s": status_of(stat.S_IFSOCK | 0o600),
    }
    found = obstacles("/run/trac/s", SOMEBODY, READ | WRITE, tree.__getitem__)
    assert [(one.path, one.is_folder) for one in found] == [("/run", True), ("/run/trac/s", False)]


@pytest.mark.parametrize(
    ("gid", "mode", "mend"),
    [
        (0, 0o660, "-G {group} (socket-group = {group} in the file)"),
        (0, 0o600, "-G {group} (socket-group = {group} in the file) and -M 0660"),
        (44, 0o600, "-M 0660 (socket-mode = 0660 in the file)"),
    ],
)
def test_what_opens_a_socket(gid: int, mode: int, mend: str) -> None:
    obstacle = sockets.Obstacle("/s", status_of(stat.S_IFSOCK | mode, 0, gid))
    finding = sockets._explain(obstacle, "/s", Settings(socket_mode=mode), SOMEBODY)
    assert finding.name == "socket-denied"
    assert finding.mend.endswith(mend.format(group=SOMEBODY.group))


def test_a_web_server_with_another_tmp(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    theirs = tmp_path / "theirs"
    for root in (ours, theirs):
        (root / "tmp").mkdir(parents=True)
    path = ours / "tmp" / "s"
    path.write_text("")

    class Process(WebServer):
        @property
        def root(self) -> str:
            return self.name

    # All of them have the root "/" that is compared: their own.
    for server, sees in ((Process("/", 1, 33), True), (Process(str(theirs), 2, 33), False)):
        found = webservers.cannot_see(str(path), [server], f"{server.root}/")
        assert found is (None if sees else server)
    # A container's.
    assert webservers.cannot_see(str(path), [Process(str(theirs), 2, 33)]) is None


# The pool


def test_one_finding_for_what_all_meet() -> None:
    outcomes = {"nginx": "status 500", "Caddy": "status 500", "HAProxy": "status 500"}
    (finding,) = answering.judge("unix:/s", outcomes)
    assert "in the way of any web server" in finding.what
    outcomes["HAProxy"] = ""
    (finding,) = answering.judge("unix:/s", outcomes)
    assert "in the way of nginx and Caddy" in finding.what
    assert names(answering.judge("unix:/s", dict.fromkeys(outcomes, ""))) == []


def test_the_words_of_an_error_page() -> None:
    page = "<html><head><title>no</title></head><style>no</style><h1>It &lt;failed&gt;</h1>\n <p>badly"
    assert answering._first_words(page) == "It <failed> badly"


@pytest.mark.parametrize(("soft", "found"), [(299, ["limit-files"]), (300, []), (UNLIMITED, []), (None, [])])
def test_open_files(soft: Any, found: List[str]) -> None:
    assert names(limits.judge_files(soft)) == found


def test_open_files_of_a_process() -> None:
    with open("/proc/self/limits", encoding="ascii") as file:
        assert limits.parse_open_files(file.read()) is not None
    assert limits.parse_open_files("Max open files   unlimited  unlimited  files\n") == UNLIMITED
    assert limits.parse_open_files("Max open files   256   4096  files\n") == 256
    assert limits.parse_open_files("") is None


@pytest.mark.parametrize(("limit", "found"), [(128, ["limit-backlog"]), (2048, []), (None, [])])
def test_backlog(limit: Any, found: List[str]) -> None:
    assert names(limits.judge_backlog(2048, limit)) == found


# The settings


def row(pool: Any, name: str, value: str, source: str = "file x, line 1") -> Any:
    return {"pool": pool, "name": name, "value": value, "source": source}


def test_settings_of_a_master() -> None:
    first, second = settings_of_master(
        [
            row(None, "rlimit-files", "512"),
            row(None, "a-setting-of-a-newer-version", "1"),
            row("a", "listen", "unix:/a 127.0.0.1:1"),
            row("a", "no-template", "yes"),
            row("a", "workers", "3", "default"),
            row("b", "socket", "/b"),
        ]
    )
    assert (first.name, second.name) == ("a", "b")
    assert first.listen == ("unix:/a", "127.0.0.1:1")
    assert first.template is False and second.template is True
    assert first.workers == 3
    assert first.rlimit_files == second.rlimit_files == 512
    site = Site(Wish(), (first, second))
    assert [str(address) for address in site.addresses(second)] == ["unix:/b"]
    assert site.named(second) == "pool b: "


# A process of its own


def test_apart() -> None:
    mine = os.getpid()
    assert apart.apart(lambda: {"pid": os.getpid()})["pid"] != mine


def test_apart_tells_what_was_raised() -> None:
    def work() -> None:
        raise ZeroDivisionError("a plugin's")

    with pytest.raises(apart.Failed, match="a plugin's") as failed:
        apart.apart(work)
    assert failed.value.kind == "ZeroDivisionError"
    assert "in work" in failed.value.details


def test_apart_survives_a_crash() -> None:
    with pytest.raises(apart.Failed, match="SIGKILL"):
        apart.apart(lambda: os.kill(os.getpid(), 9))


def test_apart_does_not_wait_for_ever() -> None:
    reading, writing = os.pipe()
    with pytest.raises(apart.Failed, match="no result within 0.1 seconds"):
        apart.apart(lambda: os.read(reading, 1).decode(), timeout=0.1)
    os.close(reading)
    os.close(writing)


# The report


def test_the_worst_decides() -> None:
    kinds = [advice("a", "", "", ""), error("e", "", "", ""), warning("w", "", "", "")]
    assert worst(kinds) == 2
    assert worst(kinds[::2]) == 1
    assert worst(kinds[:1]) == worst([]) == 0


def test_the_report() -> None:
    findings: List[Dict[str, Any]] = [
        {
            "severity": str(Severity.ERROR),
            "name": "x",
            "what": "it is " + "very " * 30 + "wrong",
            "why": "Because.",
            "mend": "location /x {\n    a;\n}",
        }
    ]
    diagnosis: Any = {"findings": findings, "looked_at": ["a", "b"], "left_out": ["c: no"]}
    text = "\n".join(report.lines(diagnosis))
    assert max(map(len, text.splitlines())) <= report.WIDTH
    assert text.startswith("error: it is very")
    assert "\n    Because.\n  > location /x {\n        a;\n    }\n" in text
    assert text.endswith("looked at: a, b\nleft out: c: no\n1 error")


def test_the_report_of_nothing() -> None:
    diagnosis: Diagnosis = {"findings": [], "looked_at": ["a"], "left_out": []}
    assert list(report.lines(diagnosis)) == ["looked at: a", "nothing found"]


def test_findings_are_values() -> None:
    assert error("a", "b", "c", "d") == Finding(Severity.ERROR, "a", "b", "c", "d")

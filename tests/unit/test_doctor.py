"""The doctor's judgement, of facts that the tests make up."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from email import policy
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from spawner.doctor import (
    answering,
    apart,
    examination,
    forms,
    limits,
    logins,
    remedies,
    report,
    sockets,
    webservers,
)
from spawner.doctor.account import ENTER, READ, WRITE, Account, obstacles
from spawner.doctor.finding import Diagnosis, Finding, Findings, Severity, advice, error, warning, worst
from spawner.doctor.page import Page
from spawner.doctor.site import Site, Wish, environments, settings_of_master
from spawner.doctor.visit import MARK, Visit, is_missing_page
from spawner.doctor.visitor import Reply, Visitor
from spawner.doctor.webservers import WebServer
from spawner.settings import Settings
from spawner.values import UNLIMITED
from workers.errors import BootError

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
    now = "chmod ug+rw /s" if gid in SOMEBODY.groups else f"chgrp {SOMEBODY.group} /s && chmod ug+rw /s"
    assert finding.mend == f"{now}\nfor good, start trac-spawn with {mend.format(group=SOMEBODY.group)}"


@pytest.mark.parametrize(("uid", "gid", "who"), [(33, 44, "u"), (0, 44, "g"), (0, 0, "o")])
def test_what_opens_a_folder(uid: int, gid: int, who: str) -> None:
    obstacle = sockets.Obstacle("/d", status_of(stat.S_IFDIR | 0o600, uid, gid))
    finding = sockets._explain(obstacle, "/d/s", Settings(), SOMEBODY)
    assert finding.mend.startswith(f"chmod {who}+x /d, ")


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


def test_a_page_that_does_not_come_is_to_be_looked_for_elsewhere() -> None:
    outcomes = {"nginx": "no answer: timed out", "lighttpd": "status 500: Oops", "Caddy": ""}
    silent, failing = answering.judge("unix:/t.sock", outcomes)
    assert "--slow-after 5s" in silent.mend
    assert "--slow-after" not in failing.mend


# The front end

PAGE = """<html><head><title>T</title>
<link rel="search" href="/trac/search"/> <link rel="start" href="/trac/wiki">
<link rel="stylesheet" href="/trac/chrome/common/css/trac.css" type="text/css">
<script>var words = "not shown";</script></head>
<body><a href="/trac/about">About &amp; more</a><form><input type="password" name="p"></form></body></html>
"""


def visit(prefix: str = "/trac", server: str = "", text: str = PAGE) -> Visit:
    headers = Message()
    headers["Server"] = server
    reply = Reply(200, headers, text.encode())
    return Visit(Visitor.of(f"https://example.org{prefix}", 1.0), prefix, reply, Page(text))


def test_what_a_page_says() -> None:
    page = visit().page
    assert page.is_tracs and page.asks_password
    assert page.own_links == ["/trac/wiki", "/trac/search"]
    assert page.anchors == ["/trac/about"]
    assert page.text == "T About & more"
    assert not Page("<p>It works!").is_tracs


@pytest.mark.parametrize(
    ("link", "path"),
    [
        ("/trac/x?a=b", "/trac/x?a=b"),
        ("x", "/trac/x"),
        ("https://example.org/y", "/y"),
        ("//cdn.example.net/y", None),
    ],
)
def test_where_a_link_leads(link: str, path: Any) -> None:
    assert visit().on_site(link) == path


def test_below() -> None:
    assert visit().below("/trac") and visit().below("/trac/x") and not visit().below("/tracer")
    assert visit("").below("/anything")
    assert visit().path("/é?", "a=b") == "/trac/%C3%A9%3F?a=b"


@pytest.mark.parametrize(
    ("server", "start"),
    [("nginx/1.22.1", "nginx: "), ("Apache/2.4.62 (Debian)", "Apache: "), ("lighttpd/1.4.69", "lighttpd: ")],
)
def test_the_remedy_for_a_server(server: str, start: str) -> None:
    text = visit(server=server).mend(remedies.LOGIN)
    assert text.startswith(start) and "/trac/login" in text
    assert not any(f"\n{name}: " in text for name in remedies.LOGIN)


def test_the_remedy_for_an_unknown_server() -> None:
    text = visit(server="gws").mend(remedies.LOGIN)
    assert all(f"{name}: " in text for name in remedies.LOGIN)


TABLES = [value for name, value in vars(remedies).items() if name.isupper() and name != "SERVERS"]


@pytest.mark.parametrize("lines", [table for table in TABLES if isinstance(table, dict)])
def test_every_remedy_can_be_filled_in(lines: Dict[str, str]) -> None:
    for server in lines:
        assert server in remedies.SERVERS.values()
        text = remedies.remedy(lines, server, prefix="/trac", header="Cookie", param="HTTP_COOKIE")
        assert "{{" not in text and "{prefix}" not in text and "{header}" not in text


def test_a_remedy_has_the_names_of_the_site() -> None:
    places = {"socket": "/run/s", "environment": "/srv/p"}
    known = replace(visit("", "nginx"), places=places)
    assert known.mend(remedies.SOCKET) == "nginx: fastcgi_pass unix:/run/s;"
    assert known.mend_chrome() == (
        "trac-admin /srv/p deploy /var/www/trac-deployed\n"
        "nginx: location ^~ /chrome/ { alias /var/www/trac-deployed/htdocs/; }"
    )
    assert "location = /login {" in known.mend(remedies.LOGIN)


def test_the_names_of_a_site(tmp_path: Path) -> None:
    pool = Settings(env="/srv/p", socket="/run/s")
    assert Site(Wish(), (pool,)).places() == {"environment": "/srv/p", "socket": "/run/s"}
    assert Site(Wish(), (pool, pool)).places() == {}
    assert Site(Wish(), (Settings(env_parent_dir=f"{tmp_path}/no"),)).places() == {}


def test_the_pool_is_to_be_mended_and_not_the_web_server() -> None:
    front = error("front-no-pool", "502", "why", "another path")
    closed = error("socket-denied", "closed", "why", "chmod ug+rw /s")
    (finding,) = examination._with_cause(iter([front]), [closed])
    assert finding.mend.startswith("chmod ug+rw /s\n(socket-denied above")
    stranger = error("limit-files", "few", "why", "more")
    assert list(examination._with_cause(iter([front]), [stranger])) == [front]


def test_a_missing_page() -> None:
    def reply(status: int, text: str) -> Reply:
        return Reply(status, Message(), text.encode())

    assert is_missing_page(reply(404, "No handler matched request to /a&#39;b"), "/a'b")
    assert not is_missing_page(reply(404, "No handler matched request to /trac/a"), "/a")
    assert not is_missing_page(reply(200, "No handler matched request to /a"), "/a")


@pytest.mark.parametrize(("status", "mend"), [(500, "log/trac.log"), (405, "limit_except"), (200, None)])
def test_a_form_that_fails(status: int, mend: Optional[str]) -> None:
    refused = forms._refused(visit(), Reply(status, Message(), MARK.encode()))
    assert (refused and refused.name) == (mend and "front-form")
    assert mend is None or (refused is not None and mend in refused.mend)


def test_the_upload_is_of_the_size_that_it_says() -> None:
    body, kind = forms._with_file({"__FORM_TOKEN": "t"})
    parser = BytesParser(policy=policy.HTTP)
    message = parser.parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    token, file = message.iter_parts()
    assert token.get_payload() == "t"
    assert len(file.get_payload(decode=True)) == forms.FILE_SIZE


@pytest.mark.parametrize(
    ("url", "clear"),
    [
        ("http://example.org/", True),
        ("https://example.org/", False),
        ("http://localhost:8000/", False),
        ("http://127.0.0.2/", False),
        ("http://[::1]/", False),
        ("http://10.0.0.1/", True),
    ],
)
def test_passwords_in_the_clear(url: str, clear: bool) -> None:
    page = visit()
    there = Visit(Visitor.of(url, 1.0), "", page.first, page.page)
    assert logins._in_the_clear(there) is clear


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
            row("a", "workers", "3"),
            row("a", "backlog", "5", "default"),
            row("b", "socket", "/b"),
        ]
    )
    assert (first.name, second.name) == ("a", "b")
    assert first.listen == ("unix:/a", "127.0.0.1:1")
    assert first.template is False and second.template is True
    assert first.workers == 3 and first.backlog == Settings().backlog
    assert first.rlimit_files == second.rlimit_files == 512
    site = Site(Wish(), (first, second))
    assert [str(address) for address in site.addresses(second)] == ["unix:/b"]
    assert site.named(second) == "pool b: "


@pytest.mark.parametrize("url", ["http://a", "https://a.example/trac", "http://[::1]:80/", "HTTP://a/b?c"])
def test_urls(url: str) -> None:
    examination._check_url(url)


@pytest.mark.parametrize(
    "url", ["", "a/trac", "ftp://a/", "http:///trac", "http://a:x/", "http://a:0/", "http://[::1/", "http:a"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(BootError, match="--url") as raised:
        examination._check_url(url)
    assert raised.value.exit_code == os.EX_USAGE


def test_what_cannot_be_looked_at() -> None:
    def refused() -> Findings:
        yield warning("first", "", "", "")
        raise PermissionError(1, "not allowed", "/secret")

    def wrong() -> Findings:
        yield from ()
        raise BootError("--user: there is no user 'x'", os.EX_NOUSER)

    seen = examination.Examination()
    seen.look_at("a", refused())
    seen.look_at("b", wrong())
    seen.look_at("c", iter([advice("last", "", "", ""), advice("last", "", "", "")]))
    diagnosis = seen.diagnosis()
    assert [one["name"] for one in diagnosis["findings"]] == ["settings", "first", "last"]
    assert diagnosis["left_out"] == ["a: not allowed: /secret; ask as root"]
    assert diagnosis["looked_at"] == ["c"]


def test_the_environments_of_a_directory(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "VERSION").write_text("")
    (tmp_path / "in" / "none").mkdir()
    pool = Settings(env_parent_dir=f"{tmp_path}/in")
    assert environments(pool, 2) == [f"{tmp_path}/in/a", f"{tmp_path}/in/b"]
    assert environments(Settings(env_parent_dir="/in", chroot=str(tmp_path)), 1) == ["/in/a"]
    assert environments(Settings(env="/e"), 5) == ["/e"]
    assert environments(Settings(app="a:b"), 5) == []


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


def test_a_socket_that_lighttpd_has_numbered(tmp_path: Path) -> None:
    pool = Settings(socket=str(tmp_path / "t.sock"))

    def paths() -> List[str]:
        return [address.path for address in Site(Wish(), (pool,)).addresses(pool)]

    assert paths() == [f"{tmp_path}/t.sock"]
    (tmp_path / "t.sock-0").touch()
    assert paths() == [f"{tmp_path}/t.sock-0"]
    (tmp_path / "t.sock").touch()
    assert paths() == [f"{tmp_path}/t.sock"]


def test_options_may_name_no_socket(tmp_path: Path) -> None:
    site = examination._site(Wish(), str(tmp_path / "no.ctl"), None, ["--env", str(tmp_path)])
    (pool,) = site.pools
    assert pool.env == str(tmp_path)
    assert site.addresses(pool) == ()


@pytest.mark.parametrize("variable", ["TRAC_SPAWN_LISTEN", "TRAC_SPAWN_SOCKET"])
def test_the_environment_may_name_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"{'unix:' if variable.endswith('LISTEN') else ''}{tmp_path}/s")
    site = examination._site(Wish(), str(tmp_path / "no.ctl"), None, ["--env", str(tmp_path)])
    assert [str(one) for one in site.addresses(site.pools[0])] == [f"unix:{tmp_path}/s"]


def test_a_file_must_name_the_socket(tmp_path: Path) -> None:
    file = tmp_path / "conf"
    file.write_text(f"[trac-spawn]\nenv = {tmp_path}\n")
    with pytest.raises(BootError, match="nowhere to listen"):
        examination._site(Wish(), str(tmp_path / "no.ctl"), str(file), [])

"""Each web server, started with the configuration that is printed for it, as it is."""

from __future__ import annotations

import base64
import functools
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from . import tracenv
from .clients import Answer, Browser, Load, http_load
from .pools import Pool, Spawner
from .printed import HTPASSWD, Printed, text_for
from .processes import title, wait_until
from .scenarios import (
    SCENARIOS,
    Site,
    attachment,
    redirect,
    start_page,
    static_file,
    ticket,
    visit,
    wiki_page,
)
from .visits import APP, METRICS, page_of
from .webservers import WebServers

#: Whoever sits behind a socket of the pool.
SHARED = ("--socket-group", "www-data")
WITH_POOL = ("lighttpd", "apache", "nginx", "haproxy", "caddy")
SENDS_FILES = ("lighttpd", "apache", "nginx", "caddy")
#: lighttpd repeats no request.
REPEATS = ("apache", "nginx", "haproxy", "caddy")
#: SuEXEC becomes nobody with an id below 100, and www-data's is 33.
SUEXEC_USER = "nobody"


@pytest.fixture
def printed(webservers: WebServers) -> Printed:
    return Printed(webservers)


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_text(HTPASSWD, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def deployed(session_dir: Path, trac_env: Path) -> Path:
    path = session_dir / "deployed"
    tracenv.trac_admin(trac_env, "deploy", str(path))
    tracenv.open_to_all(path)
    # So that a test can tell who has sent it.
    css = path / "htdocs" / "common" / "css" / "trac.css"
    css.write_text(css.read_text() + "/* deployed */")
    return path


@pytest.fixture
def suexec_folder() -> Iterator[Path]:
    """Below /var/www, which is compiled into Debian's SuEXEC or stands in its configuration."""
    path = Path(tempfile.mkdtemp(prefix="trac-spawn-test-", dir="/var/www"))
    path.chmod(0o755)
    shutil.chown(path, SUEXEC_USER, "nogroup")
    yield path
    shutil.rmtree(path)


# -- what visitors do ----------------------------------------------------------------------------


def log_in(browser: Browser, user: str, password: str, path: str = "/login") -> Answer:
    words = base64.b64encode(f"{user}:{password}".encode()).decode()
    return browser.get(path, Authorization=f"Basic {words}")


def login(site: Site) -> None:
    answer = site.browser.get("/login")
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].lower().startswith('basic realm="trac"')
    assert site.browser.get("/login/").status == 401
    assert site.browser.get("/%6cogin").status == 401
    assert log_in(site.browser, "joe", "guessed").status == 401
    # Where no password is asked for, nobody is believed.
    assert "logged in as" not in log_in(site.browser, "joe", "guessed", "/wiki/WikiStart").text
    answer = log_in(site.browser, "joe", "secret")
    assert answer.status in (302, 303), answer.text
    assert "logged in as" in site.browser.get("/wiki/WikiStart").text
    site.browser.cookies.clear()
    assert log_in(site.browser, "joé", "pässword").status in (302, 303)
    assert 'trac-author-user">joé<' in site.browser.get("/wiki/WikiStart").text
    site.browser.cookies.clear()
    assert "logged in as" not in site.browser.get("/wiki/WikiStart").text


#: Paths of pages that are not there, and what Trac calls them.
AWKWARD = {
    "/wiki/A+B%26C": "A+B&amp;C",
    "/wiki/Two%20words": "Two words",
    "/wiki/100%25": "100%",
    "/wiki/%C3%9Cber/%E2%9C%93": "Über/✓",
    "/wiki/With%2Fslash": "With/slash",
    "/wiki/What%3F": "What?",
    "/wiki/Semi;colon": "Semi;colon",
    "/wiki/Quote%22s": "Quote&#34;s",
    "/wiki/Tilde~": "Tilde~",
    "/wiki/(a)[b]": "(a)[b]",
}


def awkward_urls(site: Site) -> None:
    for url, name in AWKWARD.items():
        answer = site.browser.get(url)
        title = re.search("<title>([^<]*)</title>", answer.text)
        assert title is not None and " ".join(title[1].split()).startswith(f"{name} – "), answer.text
    # Trac has no page of such a name, and says so, if the web server has not: lighttpd refuses it.
    answer = site.browser.get("/wiki/a%0Ab")
    told = "request to /wiki/a\nb" in answer.text or "Trac" not in answer.text
    assert answer.status in (400, 404) and told, answer


def deployed_file(site: Site) -> None:
    answer = site.browser.get("/chrome/common/css/trac.css")
    assert answer.text.endswith("/* deployed */"), answer.text
    assert answer.headers["Content-Type"].startswith("text/css")


def send_files(env: Path, header: str) -> None:
    """Have Trac leave it to the web server."""
    ini = env / "conf" / "trac.ini"
    text = re.sub("(?m)^(use_xsendfile|xsendfile_header) = .*\n", "", ini.read_text())
    more = f"[trac]\nuse_xsendfile = true\nxsendfile_header = {header}\n"
    ini.write_text(text.replace("[trac]\n", more, 1))


WITHOUT_FILES = tuple(one for one in SCENARIOS if one is not static_file)


# -- a pool that runs by itself ------------------------------------------------------------------


@pytest.mark.parametrize("kind", WITH_POOL)
def test_everything(
    spawn: Spawner, printed: Printed, own_env: Path, htpasswd: Path, deployed: Path, kind: str
) -> None:
    options = ["--login", str(htpasswd)]
    if kind in SENDS_FILES:
        options += ["--deployed", str(deployed), "--xsendfile"]
        send_files(own_env, "X-Accel-Redirect" if kind == "nginx" else "X-Sendfile")
    # Each says how it has checked a password.
    pool = spawn("-n", 2, "--env", own_env, "--trust-remote-user", "auth-type", *SHARED)
    site = Site.at(printed(kind, *options, pool=pool), "/trac")
    visit(site, (*WITHOUT_FILES, login, awkward_urls))
    visit(site, (deployed_file,) if kind in SENDS_FILES else (static_file,))


def test_the_whole_host(spawn: Spawner, printed: Printed, own_env: Path, htpasswd: Path) -> None:
    pool = spawn("-n", 1, "--env", own_env, *SHARED)
    for kind in WITH_POOL:
        site = Site.at(printed(kind, "--mount", "/", "--login", htpasswd, pool=pool), "")
        visit(site, (start_page, wiki_page, static_file, redirect, ticket, login, awkward_urls))


#: Of one page, as visitors may write it.
SPELLINGS = ("status", "%73tatus", "/status", "./status", "x/../status", "status?full", "status/", "STATUS")


@pytest.mark.parametrize("options", [(), ("--script-name", "/trac")], ids=["plain", "script-name"])
def test_what_visitors_request_is_not_shown_to_others(
    spawn: Spawner, printed: Printed, options: tuple[str, ...]
) -> None:
    pool = spawn("-n", 1, *APP, *SHARED, "--status-path", "/trac/status", *options)
    for kind in WITH_POOL:
        browser = printed(kind, pool=pool).browser("/trac")
        assert "accepted conn:" in browser.get("/status").text, kind
        browser.source = "127.0.0.2"
        assert browser.get("/status").status == 403, kind
        for spelling in SPELLINGS:
            assert "accepted conn" not in browser.get(f"/{spelling}").text, (kind, spelling)
        assert browser.get("/echo").status == 200


def test_nginx_says_since_when_a_request_waits(spawn: Spawner, printed: Printed) -> None:
    pool = spawn("-n", 1, *APP, *METRICS, *SHARED)
    answer = printed("nginx", "--mount", "/", pool=pool).browser("").get("/echo")
    assert answer.status == 200, answer
    told = 'trac_spawn_request_queue_seconds_count{pool="trac"} 1'
    wait_until(lambda: told in page_of(pool).get("/metrics").text, what="the wait of one request")


@pytest.mark.parametrize(
    "header, kinds",
    [("X-Sendfile", ("lighttpd", "apache", "haproxy", "caddy")), ("X-Accel-Redirect", ("nginx",))],
    ids=["X-Sendfile", "X-Accel-Redirect"],
)
def test_a_parent_directory(
    spawn: Spawner,
    printed: Printed,
    tmp_path: Path,
    trac_parent: Path,
    htpasswd: Path,
    deployed: Path,
    header: str,
    kinds: tuple[str, ...],
) -> None:
    parent = tracenv.copy(trac_parent, tmp_path / "projects")
    send_files(parent / "one", header)
    pool = spawn("-n", 1, "--env-parent-dir", parent, *SHARED)
    for kind in kinds:
        files = ("--deployed", deployed, "--xsendfile") if kind in SENDS_FILES else ()
        server = printed(kind, "--login", htpasswd, *files, pool=pool)
        index = server.browser("/trac").get("/")
        assert 'href="/trac/one"' in index.text and "Project Two" in index.text
        site = Site.at(server, "/trac/one")
        visit(site, (wiki_page, ticket, login, awkward_urls))
        visit(site, (deployed_file, attachment) if files else ())
        assert "Project Two" in server.browser("/trac/two").get("/about").text


def test_over_tcp(spawn: Spawner, printed: Printed, own_env: Path) -> None:
    pool = spawn("-n", 2, "--env", own_env, "-p", 0, listen=False)
    for kind in WITH_POOL:
        visit(Site.at(printed(kind, pool=pool), "/trac"), (wiki_page, static_file, ticket))


# -- a web server that starts Trac ---------------------------------------------------------------


def test_lighttpd_starts_the_pool(
    printed: Printed, own_env: Path, tmp_path: Path, htpasswd: Path
) -> None:
    socket = tmp_path / "fcgi.sock"
    options = ("--form", "bin-path", "--login", htpasswd, "--", "--env", own_env, "-s", socket, "-n", 2)
    visit(Site.at(printed("lighttpd", *options), "/trac"), (*SCENARIOS, login, awkward_urls))


def test_mod_fcgid_starts_trac(printed: Printed, own_env: Path, htpasswd: Path) -> None:
    options = ("--form", "fcgid", "--login", htpasswd, "--", "--env", own_env, "-n", 2)
    visit(Site.at(printed("apache", *options), "/trac"), (*SCENARIOS, login, awkward_urls))


def test_suexec_starts_trac_as_its_user(
    printed: Printed, own_env: Path, htpasswd: Path, suexec_folder: Path
) -> None:
    wrapper = suexec_folder / "trac.fcgi"
    options = ("--wrapper", wrapper, "--", "--env", own_env, "--user", SUEXEC_USER)
    wrapper.write_text(text_for("trac.fcgi", *options))
    wrapper.chmod(0o755)
    shutil.chown(wrapper, SUEXEC_USER, "nogroup")
    server = printed("apache", "--form", "fcgid-suexec", "--login", htpasswd, *options)
    visit(Site.at(server, "/trac"), (*SCENARIOS, login))
    users = {p.username() for p in server.descendants() if "trac.fcgi" in title(p)}
    assert users == {SUEXEC_USER}


# -- workers that die ----------------------------------------------------------------------------


def post(base: str, id: str) -> tuple[int, bytes]:
    """Each web server has numbers of its own: its port goes before them."""
    browser = Browser(base)
    answer = browser.request("POST", f"/record?id={browser.port}-{id}", b"body")
    return answer.status, answer.body


@contextmanager
def killing(pool: Pool, loads: Sequence[Load], every: float) -> Iterator[None]:
    """Kill one worker after the other, one that is busy if there is one.

    Not before each visitor has got over the last: a web server tries twice, and on a machine that is
    busy elsewhere two kills could meet the same request.
    """
    enough = threading.Event()

    def kill() -> None:
        over = [0 for _ in loads]
        while not enough.wait(every):
            workers = pool.workers("busy") or pool.workers()
            if workers and all(load.requests >= least for load, least in zip(loads, over)):
                over = [load.requests + 2 for load in loads]
                os.kill(workers[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        enough.set()
        killer.join()


def test_a_killed_worker_costs_no_get_and_repeats_no_post(
    spawn: Spawner, printed: Printed, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    app = "tests.system.apps:application"
    pool = spawn("-n", 4, "--app", app, *SHARED, env={"RECORD": str(record)})
    with ExitStack() as stack:
        gets, posts = [], []
        for kind in REPEATS:
            base = f"{printed(kind, pool=pool).url}/trac"
            gets.append(stack.enter_context(http_load(base, "/sleep?seconds=0.02&id={id}", 1)))
            posts.append(stack.enter_context(Load(functools.partial(post, base), 1)))
        stack.enter_context(killing(pool, gets, every=0.5))
        wait_until(lambda: pool.log.count("SIGKILL") >= 8, what="eight deaths")
    for load in gets:
        load.check(20)
    done = record.read_text().split()
    assert len(done) == len(set(done)), "a POST was carried out twice"
    # Whoever was told of no failure, had none.
    assert sum(load.requests - len(load.failures) for load in posts) <= len(done)

"""The printed web server configuration, used as it is by the real web servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from spawner import snippets

from .pools import Spawner
from .webservers import WebServer, WebServers


def start(webservers: WebServers, kind: str, socket: Path, prefix: str) -> WebServer:
    if kind == "nginx":
        return webservers.nginx(snippets.nginx(str(socket), prefix))
    return webservers.lighttpd(snippets.lighttpd(str(socket), prefix))


@pytest.mark.parametrize("prefix", ["", "/trac"])
@pytest.mark.parametrize("kind", ["lighttpd", "nginx"])
def test_pages_links_forms_and_uploads(
    spawn: Spawner, webservers: WebServers, own_env: Path, kind: str, prefix: str
) -> None:
    pool = spawn("-n", 1, "--env", own_env)
    browser = start(webservers, kind, pool.socket, prefix).browser(prefix)
    page = browser.get("/wiki/WikiStart").text
    assert f'href="{prefix}/timeline"' in page
    assert browser.get("/chrome/common/css/trac.css").headers["Content-Type"] == "text/css"
    assert "Größe &lt;1&gt;" in browser.get("/search?noquickjump=1&q=Gr%C3%B6%C3%9Fe+%3C1%3E").text
    assert "Größe" in browser.get("/wiki/Gr%C3%B6%C3%9Fe").text
    answer = browser.post("/newticket", {"field_summary": "By form", "submit": "Create"})
    assert answer.status == 303, answer.text
    assert "By form" in browser.follow(answer).text


@pytest.mark.parametrize("kind", ["lighttpd", "nginx"])
def test_a_mount_is_the_script_name(spawn: Spawner, webservers: WebServers, kind: str) -> None:
    pool = spawn("-n", 1, "--app", "tests.system.apps:application")
    server = start(webservers, kind, pool.socket, "/trac")
    where = server.browser().get("/trac/environ").text
    assert "SCRIPT_NAME='/trac'\n" in where
    assert "PATH_INFO='/environ'\n" in where


def test_a_mount_takes_nothing_beside_it(spawn: Spawner, webservers: WebServers) -> None:
    pool = spawn("-n", 1, "--app", "tests.system.apps:application")
    server = start(webservers, "nginx", pool.socket, "/trac")
    answer = server.browser().get("/tracer/environ")
    assert answer.status == 404
    assert "nginx" in answer.text

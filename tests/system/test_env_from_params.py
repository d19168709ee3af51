"""One pool for many instances: the web server names the environment of each request."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.fastcgi import client

from .clients import params
from .pools import Pool, Spawner
from .scenarios import Site, wiki_page
from .webservers import WebServers

#: Seconds: every page of both environments is warmed up.
LOADING = 60.0
NGINX = """
location /first {{
    include /etc/nginx/fastcgi_params;
    fastcgi_param TRAC_ENV {parent}/one;
    fastcgi_pass unix:{socket};
}}
location ~ ^/all(/.*)?$ {{
    include /etc/nginx/fastcgi_params;
    fastcgi_param SCRIPT_NAME /all;
    fastcgi_param PATH_INFO $1;
    fastcgi_param TRAC_ENV_PARENT_DIR {parent};
    fastcgi_pass unix:{socket};
}}
"""
LIGHTTPD = """
server.modules += ( "mod_setenv", "mod_fastcgi" )
fastcgi.server = ( "/trac" => (( "socket" => "{socket}", "check-local" => "disable" )) )
$HTTP["url"] =~ "^/trac" {{ setenv.set-environment = ( "TRAC_ENV" => "{parent}/two" ) }}
"""
APACHE = """
<Location /trac>
    SetEnv TRAC_ENV {parent}/two
    ProxyPass unix:{socket}|fcgi://trac/trac
</Location>
"""


@pytest.fixture
def pool(spawn: Spawner, trac_parent: Path) -> Pool:
    return spawn("-n", 1, "--env-from-params", trac_parent, "-M", "0666", timeout=LOADING)


def name_of_project(pool: Pool, page: str = "/about", **named: object) -> str:
    texts = {name: str(value) for name, value in named.items()}
    answer = client.request(str(pool.socket), params(page, **texts))
    assert answer.status == 200, answer.body
    return "One" if b"Project One" in answer.body else "Two"


def test_requests_name_their_environment(pool: Pool, trac_parent: Path) -> None:
    assert name_of_project(pool, TRAC_ENV=trac_parent / "one") == "One"
    assert name_of_project(pool, TRAC_ENV=trac_parent / "two") == "Two"
    assert name_of_project(pool, "/two/about", TRAC_ENV_PARENT_DIR=trac_parent) == "Two"
    index = client.request(str(pool.socket), params("/", TRAC_ENV_PARENT_DIR=str(trac_parent)))
    assert index.body.count(b'href="/one"') == index.body.count(b'href="/two"') == 1


def test_what_is_not_allowed_is_refused_and_logged(
    pool: Pool, trac_parent: Path, trac_env: Path, tmp_path: Path
) -> None:
    outside = client.request(str(pool.socket), params("/about", TRAC_ENV=str(trac_env)))
    assert outside.status == 403
    assert b"asks for an environment that is not served here" in outside.body
    assert str(trac_env).encode() not in outside.body
    pool.wait_for_line(rf"403 Forbidden: TRAC_ENV='{trac_env}' is not in a directory of .*: GET /about")
    missing = client.request(str(pool.socket), params("/about", TRAC_ENV=f"{trac_parent}/three"))
    assert missing.status == 404
    # No header is one of these parameters, and what is for us alone does not come from outside.
    for forged in ("HTTP_TRAC_ENV", "trac.env_path"):
        answer = client.request(str(pool.socket), params("/about", **{forged: f"{trac_parent}/one"}))
        assert answer.status == 404
    pool.wait_for_line("404 Not Found: the web server names no environment")


def test_without_the_option_the_parameters_mean_nothing(
    spawn: Spawner, trac_parent: Path, trac_env: Path
) -> None:
    pool = spawn("-n", 1, "--env", trac_parent / "one")
    assert name_of_project(pool, TRAC_ENV=trac_parent / "two") == "One"


def test_a_default_for_requests_that_name_nothing(spawn: Spawner, trac_parent: Path) -> None:
    pool = spawn("-n", 1, "--env", trac_parent / "one", "--env-from-params", trac_parent, timeout=LOADING)
    assert name_of_project(pool) == "One"
    assert name_of_project(pool, TRAC_ENV=trac_parent / "two") == "Two"


def test_web_servers_that_name_it(pool: Pool, webservers: WebServers, trac_parent: Path) -> None:
    words = {"socket": pool.socket, "parent": trac_parent}
    nginx = webservers.nginx(NGINX.format(**words))
    assert "Project Two" in nginx.browser("/all").get("/two/about").text
    assert 'href="/all/one"' in nginx.browser("/all").get("/").text
    lighttpd = webservers.lighttpd(LIGHTTPD.format(**words))
    assert "Project Two" in lighttpd.browser("/trac").get("/about").text
    wiki_page(Site.at(lighttpd, "/trac"))


def test_web_servers_that_name_it_and_not_the_page(
    spawn: Spawner, webservers: WebServers, trac_parent: Path
) -> None:
    options = ("-n", 1, "--env-from-params", trac_parent, "-M", "0666", "--script-name")
    first = spawn(*options, "/first", timeout=LOADING)
    nginx = webservers.nginx(NGINX.format(socket=first.socket, parent=trac_parent))
    wiki_page(Site.at(nginx, "/first"))
    assert "Project One" in nginx.browser("/first").get("/about").text
    trac = spawn(*options, "/trac", timeout=LOADING)
    apache = webservers.apache(APACHE.format(socket=trac.socket, parent=trac_parent), ["proxy_fcgi"])
    assert "Project Two" in apache.browser("/trac").get("/about").text
    wiki_page(Site.at(apache, "/trac"))

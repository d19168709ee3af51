"""--script-name behind web servers that split the path wrongly, and paths as visitors wrote them."""

from __future__ import annotations

from pathlib import Path

from workers.fastcgi import client

from .clients import params
from .pools import Spawner
from .scenarios import Site, redirect, start_page, static_file, visit, wiki_page
from .webservers import WebServers

SOME = (wiki_page, start_page, static_file, redirect)
#: nginx with its fastcgi_params alone: the whole path is SCRIPT_NAME.
NGINX = """
location {place} {{
    include /etc/nginx/fastcgi_params;
    fastcgi_param HTTP_HOST $host:$server_port;
    fastcgi_pass unix:{socket};
}}
"""
LIGHTTPD = """
server.modules += ( "mod_fastcgi" )
fastcgi.server = ( "/" => (( "socket" => "{socket}", "check-local" => "disable" )) )
"""
APACHE = """
ProxyPass {place} unix:{socket}|fcgi://trac{place}
"""


def test_nginx_without_path_info(spawn: Spawner, webservers: WebServers, trac_env: Path) -> None:
    pool = spawn("-n", 1, "--env", trac_env, "--script-name", "/trac")
    visit(Site.at(webservers.nginx(NGINX.format(place="/trac", socket=pool.socket)), "/trac"), SOME)


def test_lighttpd_at_the_root(spawn: Spawner, webservers: WebServers, trac_env: Path) -> None:
    pool = spawn("-n", 1, "--env", trac_env, "--script-name", "")
    visit(Site.at(webservers.lighttpd(LIGHTTPD.format(socket=pool.socket)), ""), SOME)


def test_apache_with_mod_proxy_fcgi(
    spawn_as_root: Spawner, webservers: WebServers, trac_env: Path
) -> None:
    pool = spawn_as_root("-n", 1, "--env", trac_env, "--script-name", "/trac", "-M", "0666")
    config = APACHE.format(place="/trac", socket=pool.socket)
    visit(Site.at(webservers.apache(config, ["proxy_fcgi"]), "/trac"), SOME)


def test_another_place_is_not_found_and_the_log_says_why(spawn: Spawner, trac_env: Path) -> None:
    pool = spawn("-n", 1, "--env", trac_env, "--script-name", "/trac")
    answer = client.request(str(pool.socket), params("/wiki/WikiStart"))
    assert answer.status == 404
    assert b"There is nothing at this address" in answer.body
    pool.wait_for_line("404 Not Found: not below --script-name /trac .*: GET /wiki/WikiStart")
    assert client.request(str(pool.socket), params("/trac/wiki/WikiStart")).status == 200


def test_a_page_has_the_name_that_the_visitor_gives_it(
    spawn: Spawner, webservers: WebServers, trac_env: Path
) -> None:
    pool = spawn("-n", 1, "--env", trac_env, "--script-name", "/trac")
    server = webservers.nginx(NGINX.format(place="/trac", socket=pool.socket))
    browser = server.browser("/trac")
    for spelling, said in [
        ("A%2FB", "<strong>A/B</strong>"),
        ("A+B", "<strong>A+B</strong>"),
        ("A%252FB", "<strong>A%2FB</strong>"),
        ("Caf%C3%A9", "<strong>Caf\xe9</strong>"),
        ("A/../B", "Invalid Wiki page name &#39;A/../B&#39;"),
        ("Caf%E9", "Invalid URL encoding"),
    ]:
        assert said in browser.get(f"/wiki/{spelling}").text, spelling
    # Trac has its own answer to this one, if only it hears of it.
    assert browser.get("/wiki/A//B").location == f"{server.url}/trac/wiki/A/B"

"""nginx in front of pools, with configurations as its users write them."""

from __future__ import annotations

from pathlib import Path

import psutil

from workers.fastcgi import client

from . import tracenv
from .clients import http_load, params
from .pools import Spawner
from .processes import wait_until
from .scenarios import Site, visit, visit_projects
from .webservers import WebServers

#: With the file that every nginx package brings along. Debian's sends the host without its port,
#: which only the default ports can do without.
LOCATION = """
location /trac {{
    fastcgi_split_path_info ^(/trac)(/.*)?$;
    include /etc/nginx/fastcgi_params;
    fastcgi_param SCRIPT_NAME $fastcgi_script_name;
    fastcgi_param PATH_INFO $fastcgi_path_info;
    fastcgi_param HTTP_HOST $host:$server_port;
    fastcgi_pass {target};
    {more}
}}
"""
#: Trac as the whole site: nothing to split.
ROOT_LOCATION = """
location / {{
    include /etc/nginx/fastcgi_params;
    fastcgi_param SCRIPT_NAME "";
    fastcgi_param PATH_INFO $fastcgi_script_name;
    fastcgi_param HTTP_HOST $host:$server_port;
    fastcgi_pass {target};
}}
"""
UPSTREAM = """
upstream trac {{
    server unix:{socket};
    keepalive {connections};
}}
"""


def kept_open(socket: Path, pid: int) -> int:
    """How many accepted connections of the pool's socket a process holds."""
    held = psutil.Process(pid).net_connections("unix")
    # The listening socket has the same name.
    return sum(str(connection.laddr) == str(socket) for connection in held) - 1


def test_everything_works_with_env(spawn: Spawner, webservers: WebServers, own_env: Path) -> None:
    pool = spawn("-n", 2, "--env", own_env)
    server = webservers.nginx(LOCATION.format(target=f"unix:{pool.socket}", more=""))
    visit(Site.at(server, "/trac"))
    assert "FastCGI sent in stderr" not in server.log


def test_everything_works_with_env_parent_dir(
    spawn: Spawner, webservers: WebServers, tmp_path: Path, trac_parent: Path
) -> None:
    parent = tracenv.copy(trac_parent, tmp_path / "projects")
    pool = spawn("-n", 2, "--env-parent-dir", parent)
    server = webservers.nginx(LOCATION.format(target=f"unix:{pool.socket}", more=""))
    visit_projects(server, "/trac")


def test_everything_works_as_the_whole_site_over_tcp(
    spawn: Spawner, webservers: WebServers, own_env: Path
) -> None:
    pool = spawn("-n", 2, "--env", own_env, "-p", 0, listen=False)
    port = pool.wait_for_line(r"listening on 127\.0\.0\.1:(\d+)")[1]
    server = webservers.nginx(ROOT_LOCATION.format(target=f"127.0.0.1:{port}"))
    visit(Site.at(server, ""))


def test_everything_works_on_kept_open_connections(
    spawn: Spawner, webservers: WebServers, own_env: Path
) -> None:
    pool = spawn("-n", 2, "--env", own_env)
    server = webservers.nginx(
        LOCATION.format(target="trac", more="fastcgi_keep_conn on;"),
        http=UPSTREAM.format(socket=pool.socket, connections=4),
    )
    visit(Site.at(server, "/trac"))
    assert "upstream prematurely closed" not in server.log
    assert "Connection reset" not in server.log


def test_idle_kept_open_connections_occupy_nobody(
    spawn: Spawner, webservers: WebServers, trac_env: Path
) -> None:
    """More of them than there are workers, each idle: the next visitor is served."""
    pool = spawn("-n", 1, "--env", trac_env)
    server = webservers.nginx(
        LOCATION.format(target="trac", more="fastcgi_keep_conn on;"),
        http=UPSTREAM.format(socket=pool.socket, connections=8),
    )
    with http_load(f"{server.url}/trac", "/search?noquickjump=1&q={id}", threads=4) as load:
        load.wait_for(40)
    load.check(40)
    (worker,) = pool.workers()
    # One may be on its way from the worker to itself, which it offers to whoever is idle.
    wait_until(lambda: kept_open(pool.socket, worker.pid) >= 2, what="kept-open connections")
    assert client.request(str(pool.socket), params("/wiki/WikiStart")).status == 200


def test_no_request_on_a_kept_open_connection_is_lost_when_workers_are_recycled(
    spawn: Spawner, webservers: WebServers, trac_env: Path
) -> None:
    pool = spawn("-n", 2, "--env", trac_env, "--max-requests", 15)
    server = webservers.nginx(
        LOCATION.format(target="trac", more="fastcgi_keep_conn on; fastcgi_next_upstream off;"),
        http=UPSTREAM.format(socket=pool.socket, connections=4),
    )
    with http_load(f"{server.url}/trac", "/search?noquickjump=1&q={id}", threads=4) as load:
        load.wait_for(200)
    load.check(200)
    assert pool.log.count("recycled: max-requests") >= 4

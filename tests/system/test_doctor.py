"""trac-spawnctl doctor: it finds each mistake that is made on purpose, and none where there is none."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
import trac

from . import tracenv
from .pools import BIN, Pool, Spawner, base_environment
from .printed import HTPASSWD, Printed
from .processes import PATIENCE, Supervisor
from .webservers import Port, WebServer, WebServers

HTDOCS = Path(trac.__file__).with_name("htdocs")
APP = ("--app", "tests.system.apps:application")


@dataclass
class Stage:
    """Where a site is set up, rightly or wrongly: a folder of root's, and what can be started."""

    directory: Path
    spawn: Spawner
    #: Listening sockets of the test's own.
    held: List[socket.socket] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.directory / "trac.sock"

    def pool(self, *options: object) -> Pool:
        return self.spawn("-n", 1, "-s", self.socket, *options, listen=False)

    def listener(self) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX)
        self.held.append(listening)
        listening.bind(str(self.socket))
        self.socket.chmod(0o660)
        os.chown(self.socket, 0, grp.getgrnam("www-data").gr_gid)
        return listening


#: nginx as its documentation and Trac's would have it; the names are what the mistakes change.
LOCATION = """
    fastcgi_pass unix:{socket};
    include /etc/nginx/fastcgi_params;
    fastcgi_split_path_info ^(/trac)(/.*)?$;
    fastcgi_param SCRIPT_NAME $fastcgi_script_name;
    fastcgi_param PATH_INFO $fastcgi_path_info;
    fastcgi_param HTTP_HOST $http_host;
    fastcgi_param REMOTE_USER {user};
"""
NGINX = """
location {match} {{ {location} {more} }}
location = {login} {{
    auth_basic "Trac";
    auth_basic_user_file {directory}/htpasswd;
    {with_user}
}}
{beside}
"""
LIGHTTPD = """
server.modules += ( "mod_auth", "mod_authn_file", "mod_fastcgi" )
fastcgi.server = ( "/trac" => (( "socket" => "{socket}", "check-local" => "{check_local}" )) )
auth.backend = "htpasswd"
auth.backend.htpasswd.userfile = "{directory}/htpasswd"
auth.require = ( "/trac/login" =>
    ( "method" => "basic", "realm" => "Trac", "require" => "valid-user" ) )
{more}
"""
APACHE = """
ProxyPass "/trac" "unix:{socket}|fcgi://trac/trac"
<LocationMatch "^/trac(/[^/]+)?/login$">
    AuthType Basic
    AuthName Trac
    AuthUserFile {directory}/htpasswd
    Require valid-user
</LocationMatch>
"""


@dataclass
class Front:
    """A pool that serves a Trac at /trac, and web servers that are put in front of it."""

    pool: Pool
    webservers: WebServers
    directory: Path

    def nginx(
        self,
        more: str = "",
        match: str = "~ ^/trac(?:/|$)",
        login: str = "/trac/login",
        beside: str = "",
        http: str = "",
        socket: str = "",
    ) -> WebServer:
        config = NGINX.format(
            # Debian's fastcgi_params have a REMOTE_USER that nobody has checked.
            location=LOCATION.format(socket=socket or self.pool.socket, user='""'),
            with_user=LOCATION.format(socket=socket or self.pool.socket, user="$remote_user"),
            more=more, match=match, login=login, beside=beside,
            directory=self.directory,
        )  # fmt: skip
        return self.webservers.nginx(config, http, user="www-data")

    def lighttpd(self, check_local: str = "disable", more: str = "") -> WebServer:
        return self.webservers.lighttpd(
            LIGHTTPD.format(
                socket=self.pool.socket, directory=self.directory, check_local=check_local, more=more
            )
        )

    def apache(self) -> WebServer:
        config = APACHE.format(socket=self.pool.socket, directory=self.directory)
        return self.webservers.apache(config, modules=("proxy", "proxy_fcgi"))

    def tls(self, behind: WebServer) -> str:
        """The address of HAProxy, which encrypts for ``behind`` and tells it nothing."""
        both = self.directory / "both.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "1", "-subj", "/CN=localhost", "-keyout", both, "-out", f"{both}.crt"],
            check=True, capture_output=True,
        )  # fmt: skip
        both.write_text(both.read_text() + Path(f"{both}.crt").read_text())
        port = Port()
        self.webservers.haproxy(
            f"frontend f\n  bind 127.0.0.1:{port.number} ssl crt {both}\n  default_backend b\n"
            f"backend b\n  server s 127.0.0.1:{behind.port}\n",
            port,
        )
        return f"https://127.0.0.1:{port.number}/trac"

    def arguments(self, server: WebServer) -> List[object]:
        return ["-s", self.pool.control, "--web-user", "www-data", "--url", f"{server.url}/trac"]


def set_in_ini(env: Path, before: str, after: str) -> None:
    ini = env / "conf" / "trac.ini"
    text = ini.read_text()
    assert before in text
    ini.write_text(text.replace(before, after))


def with_wal(env: Path) -> Path:
    set_in_ini(env, "sqlite:db/trac.db", "sqlite:db/trac.db?journal_mode=wal")
    return env


@pytest.fixture(scope="module")
def trac_pool(
    session_dir: Path, pristine_env: Path, _public_code: Path
) -> Iterator[Pool]:
    """One for all tests that only look at it: starting Trac takes longer than looking."""
    directory = session_dir / "doctor"
    directory.mkdir(mode=0o755)
    env = with_wal(tracenv.copy(pristine_env, directory / "env"))
    supervisor = Supervisor(directory)
    spawn = Spawner(supervisor, directory, _public_code)
    pool = spawn("-n", 2, "-G", "www-data", "-u", "www-data", "--env", env)
    pool.spare()  # whatever it starts later would seem to be of the test that runs then
    yield pool
    supervisor.finish()


@pytest.fixture
def front(trac_pool: Pool, webservers: WebServers, tmp_path: Path) -> Front:
    (tmp_path / "htpasswd").write_text("admin:{PLAIN}secret\n")
    return Front(trac_pool, webservers, tmp_path)


@pytest.fixture
def stage(spawn_as_root: Spawner, tmp_path: Path) -> Iterator[Stage]:
    # In the tests' own folders everybody may write, which the doctor does not like.
    tmp_path.chmod(0o755)
    stage = Stage(tmp_path, spawn_as_root)
    yield stage
    for one in stage.held:
        one.shutdown(socket.SHUT_RDWR)  # wakes up who waits in accept()
        one.close()


def doctor(directory: Path, *arguments: object, **variables: str) -> Dict[str, Any]:
    """The diagnosis; its exit status is that of the worst finding. Patient, unless told otherwise."""
    done = subprocess.run(
        [str(BIN / "trac-spawnctl"), "--timeout", "20s", "doctor", "--json", *map(str, arguments)],
        env={**base_environment(directory), **variables}, cwd=directory, capture_output=True, text=True,
        timeout=3 * PATIENCE, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    result: Dict[str, Any] = json.loads(done.stdout)["result"]
    severities = [finding["severity"] for finding in result["findings"]]
    assert done.returncode == (2 if "error" in severities else 1 if "warning" in severities else 0)
    return result


def found(result: Dict[str, Any]) -> List[str]:
    return [finding["name"] for finding in result["findings"]]


# -- mistakes ------------------------------------------------------------------------------------

Arguments = List[object]


def options_of(stage: Stage, *more: object) -> Arguments:
    return ["--web-user", "www-data", "--", "-s", stage.socket, *(more or APP)]


def no_socket(stage: Stage) -> Arguments:
    return options_of(stage)


def no_folder(stage: Stage) -> Arguments:
    return ["--", "-s", stage.directory / "gone" / "trac.sock", *APP]


def no_socket_but_a_file(stage: Stage) -> Arguments:
    stage.socket.write_text("")
    return options_of(stage)


def left_behind(stage: Stage) -> Arguments:
    stage.listener().listen()
    stage.held.pop().close()
    return options_of(stage)


def other_group(stage: Stage) -> Arguments:
    pool = stage.pool(*APP)
    return ["--web-user", "www-data", "-s", pool.control]


def open_to_everybody(stage: Stage) -> Arguments:
    pool = stage.pool("-M", "0666", *APP)
    return ["--web-user", "www-data", "-s", pool.control]


def closed_folder(stage: Stage) -> Arguments:
    (stage.directory / "inner").mkdir(mode=0o700)
    pool = stage.spawn("-n", 1, "-s", stage.directory / "inner" / "s", "-G", "www-data", *APP, listen=False)
    return ["--web-user", "www-data", "-s", pool.control]


def folder_of_everybody(stage: Stage) -> Arguments:
    stage.directory.chmod(0o777)
    pool = stage.pool("-G", "www-data", *APP)
    return ["--web-user", "www-data", "-s", pool.control]


def silence(stage: Stage) -> Arguments:
    stage.listener().listen()
    return ["--timeout", "0.3s", *options_of(stage)]


def another_protocol(stage: Stage) -> Arguments:
    listening = stage.listener()
    listening.listen()

    def serve() -> None:
        with contextlib.suppress(OSError):  # that it is closed ends it
            while True:
                connection, _ = listening.accept()
                with connection:
                    if connection.recv(1000):
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    threading.Thread(target=serve).start()
    return options_of(stage)


def few_files(stage: Stage) -> Arguments:
    pool = stage.pool("-G", "www-data", "--rlimit-files", 128, *APP)
    return ["--web-user", "www-data", "-s", pool.control]


def long_queue(stage: Stage) -> Arguments:
    pool = stage.pool("-G", "www-data", "-b", 10_000_000, *APP)
    return ["--web-user", "www-data", "-s", pool.control]


def open_name(stage: Stage) -> Arguments:
    name = f"unix:@{stage.directory}"
    pool = stage.spawn("-n", 1, "--listen", name, *APP, listen=False)
    return ["--web-user", "www-data", "-s", pool.control]


def another_guest(stage: Stage) -> Arguments:
    """Nobody else than root and the pool's own user, which the web server is not."""
    pool = stage.pool("-G", "www-data", "-u", "nobody", "--allow-user", "daemon", *APP)
    return ["--web-user", "www-data", "-s", pool.control]


def another_tmp(stage: Stage) -> Arguments:
    """A web server that systemd has given other files than ours under the same names."""
    folder = stage.directory / "tmp"
    folder.mkdir(mode=0o755)
    pool = stage.spawn("-n", 1, "-s", folder / "s", "-G", "www-data", *APP, listen=False)
    config = stage.directory / "nginx.conf"
    config.write_text(f"daemon off; pid {config}.pid; error_log stderr notice; events {{ }}")
    command = f"mount -t tmpfs none {folder} && exec nginx -c {config}"
    server = stage.spawn.supervisor.start(
        ["unshare", "--mount", "sh", "-c", command], "nginx", env=base_environment(stage.directory)
    )
    server.wait_for_line("start worker process ")
    return ["--web-user", "www-data", "-s", pool.control]


def name_for_all(stage: Stage) -> Arguments:
    """In a folder such as /tmp itself."""
    folder = stage.directory / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    pool = stage.spawn("-n", 1, "-s", folder / "s", "-G", "www-data", *APP, listen=False)
    return ["--web-user", "www-data", "-s", pool.control]


def failing_application(stage: Stage) -> Arguments:
    (stage.directory / "failing.py").write_text("def application(environ, start_response): 1 / 0")
    pool = stage.spawn("-n", 1, "-s", stage.socket, "-G", "www-data", "--app", "failing:application",
                       listen=False, cwd=stage.directory)  # fmt: skip
    return ["--web-user", "www-data", "-s", pool.control, "--url", "http://localhost/trac"]


@dataclass(frozen=True)
class Fault:
    """``seed`` makes the mistake and returns the doctor's arguments; ``name`` is the only finding;
    ``mend`` is in what it says to do."""

    seed: Callable[[Stage], Arguments]
    name: str
    mend: str


FAULTS = [
    Fault(no_socket, "socket-missing", "start trac-spawn with -s {directory}/trac.sock"),
    Fault(no_folder, "socket-missing", "mkdir -p {directory}/gone"),
    Fault(no_socket_but_a_file, "socket-no-socket", "mv {directory}/trac.sock {directory}/trac.sock.old"),
    Fault(left_behind, "socket-stale", "start trac-spawn"),
    Fault(other_group, "socket-denied", "-G www-data"),
    Fault(open_to_everybody, "socket-open", "-M 0660"),
    Fault(closed_folder, "socket-folder-closed", "chmod o+x {directory}/inner"),
    Fault(folder_of_everybody, "socket-folder-open", "chmod o-w {directory}"),
    Fault(open_name, "socket-open", "--allow-user www-data"),
    Fault(another_guest, "pool-refuses", "--allow-user www-data"),
    Fault(another_tmp, "socket-private-tmp", "-s /run/trac/trac.sock"),
    Fault(name_for_all, "socket-in-tmp", "-s /run/trac/trac.sock"),
    Fault(failing_application, "pool-page", "log/trac.log"),
    Fault(silence, "pool-silent", "--request-timeout"),
    Fault(another_protocol, "pool-not-fastcgi", "ss -lp"),
    Fault(few_files, "limit-files", "--rlimit-files 4096"),
    Fault(long_queue, "limit-backlog", "sysctl -w net.core.somaxconn=10000000"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.seed.__name__)
def test_a_mistake_is_found(stage: Stage, fault: Fault) -> None:
    result = doctor(stage.directory, *fault.seed(stage))
    assert found(result) == [fault.name]
    (finding,) = result["findings"]
    assert fault.mend.format(directory=stage.directory) in finding["mend"]


# -- mistakes of the web server ------------------------------------------------------------------


def param(name: str, value: str) -> Callable[[Front], WebServer]:
    """nginx, with one FastCGI parameter that is wrong."""
    return lambda front: front.nginx(f"fastcgi_param {name} {value};")


def full_disk(front: Front) -> WebServer:
    """As far as nginx can tell: it may not write what it has no memory for."""
    server = front.nginx()
    assert server.browser("/trac").get("/about").status == 200
    folder = server.directory / "fastcgi"
    os.chown(folder, 0, 0)
    folder.chmod(0o700)
    return server


def stale_files(front: Front) -> WebServer:
    copy = front.directory / "htdocs"
    shutil.copytree(HTDOCS, copy)
    (copy / "css" / "trac.css").write_text("/* of Trac 1.4 */")
    return chrome(front, copy)


def chrome(front: Front, folder: Path, more: str = "") -> WebServer:
    return front.nginx(beside=f"location ^~ /trac/chrome/common/ {{ alias {folder}/; {more} }}")


@dataclass(frozen=True)
class FrontFault:
    """``seed`` starts a web server with the mistake."""

    id: str
    seed: Callable[[Front], WebServer]
    name: str
    mend: str


FRONT_FAULTS = [
    FrontFault(
        "nobody behind", lambda front: front.nginx(socket="/nowhere"), "front-no-pool", "fastcgi_pass unix:"
    ),
    FrontFault("exact", lambda front: front.nginx(match="= /trac"), "front-not-passed", "location ~"),
    FrontFault(
        "lighttpd looks for files", lambda front: front.lighttpd(check_local="enable"),
        "front-not-passed", '"check-local" => "disable"',
    ),
    FrontFault("SCRIPT_NAME", param("SCRIPT_NAME", "/elsewhere"), "front-links", "SCRIPT_NAME $fastcgi"),
    FrontFault("PATH_INFO", param("PATH_INFO", "/wiki/WikiStart"), "front-path", "PATH_INFO $fastcgi"),
    FrontFault(
        "PATH_INFO as it was sent",
        lambda front: front.nginx(
            "set $raw /; if ($request_uri ~ ^/trac(/[^?]*)) { set $raw $1; } fastcgi_param PATH_INFO $raw;"
        ),
        "front-utf8", "--script-name /trac",
    ),
    FrontFault("QUERY_STRING", param("QUERY_STRING", '""'), "front-query", "QUERY_STRING $query_string;"),
    FrontFault(
        "short buffers", lambda front: front.nginx(http="large_client_header_buffers 2 2k;"),
        "front-long-url", "large_client_header_buffers 4 16k;",
    ),
    FrontFault(
        "lighttpd's short buffers",
        lambda front: front.lighttpd(more="server.max-request-field-size = 2048"),
        "front-long-url", "server.max-request-field-size = 16384",
    ),
    FrontFault("HTTP_HOST", param("HTTP_HOST", "internal:8080"), "front-host", "HTTP_HOST $http_host;"),
    FrontFault("HTTPS", param("HTTPS", "on"), "front-scheme", "HTTPS $https if_not_empty;"),
    FrontFault("HTTP_COOKIE", param("HTTP_COOKIE", '""'), "front-form", "fastcgi_param HTTP_COOKIE"),
    FrontFault(
        "small uploads", lambda front: front.nginx("client_max_body_size 1m;"),
        "front-upload", "client_max_body_size 64m;",
    ),
    FrontFault(
        "HTTP_IF_MODIFIED_SINCE", param("HTTP_IF_MODIFIED_SINCE", '""'),
        "front-not-modified", "fastcgi_param HTTP_IF_MODIFIED_SINCE",
    ),
    FrontFault(
        "HEAD",
        lambda front: front.lighttpd(
            more='server.modules += ( "mod_access" )\n'
            '$HTTP["request-method"] == "HEAD" { url.access-deny = ( "" ) }'
        ),
        "front-head", "the method HEAD",
    ),
    FrontFault("no room for answers", full_disk, "front-download", "fastcgi_temp_path"),
    FrontFault(
        "no files", lambda front: chrome(front, front.directory / "nothing"),
        "front-static",
        "trac-admin ENVIRONMENT deploy /var/www/trac-deployed\nnginx: location ^~ /trac/chrome/",
    ),
    FrontFault("no types", lambda front: chrome(front, HTDOCS, "types { }"), "front-static", "mime.types"),
    FrontFault(
        "files of another version", stale_files, "chrome-stale", "alias /var/www/trac-deployed/htdocs/;"
    ),
    FrontFault(
        "a user without a password", param("REMOTE_USER", "$remote_user"),
        "login-bypass", 'fastcgi_param REMOTE_USER "";',
    ),
    FrontFault(
        "no login", lambda front: front.nginx(login="/trac/other"), "login-no-challenge", "auth_basic"
    ),
]  # fmt: skip


@pytest.mark.parametrize("fault", FRONT_FAULTS, ids=lambda fault: fault.id)
def test_a_mistake_of_the_web_server_is_found(front: Front, fault: FrontFault) -> None:
    # Without the settings of the pool, which is sound: that is quicker.
    url = f"{fault.seed(front).url}/trac"
    result = doctor(front.directory, "-s", front.directory / "no.ctl", "--url", url)
    assert found(result) == [fault.name], result["findings"]
    (finding,) = result["findings"]
    assert fault.mend in finding["mend"]


def test_who_is_to_blame_for_a_502(front: Front) -> None:
    socket = front.pool.socket
    arguments = front.arguments(front.nginx())
    mode = socket.stat().st_mode & 0o777
    socket.chmod(0)
    result = doctor(front.directory, *arguments)
    socket.chmod(mode)
    assert found(result) == ["socket-denied", "front-no-pool"], result["findings"]
    closed, front_end = result["findings"]
    assert f"chmod ug+rw {socket}\n" in closed["mend"]
    assert front_end["mend"].startswith(closed["mend"])


def test_who_encrypts_and_does_not_say_so(front: Front) -> None:
    arguments = front.arguments(front.nginx())[:-1]
    result = doctor(front.directory, *arguments, front.tls(front.nginx()))
    assert found(result) == ["front-scheme", "front-certificate", "front-cookies"]


@pytest.mark.parametrize("kind", ["nginx", "lighttpd", "apache", "haproxy", "caddy"])
def test_nothing_is_wrong_with_what_is_printed(front: Front, kind: str) -> None:
    file = front.directory / "htpasswd"
    file.write_text(HTPASSWD)
    server = Printed(front.webservers)(kind, "--login", file, pool=front.pool)
    result = doctor(front.directory, *front.arguments(server))
    assert result["findings"] == []
    assert result["left_out"] == []


def test_a_sound_directory_of_projects_behind_apache(
    stage: Stage, webservers: WebServers, trac_parent: Path
) -> None:
    tracenv.copy(trac_parent, stage.directory / "projects")
    for name in ("one", "two"):
        with_wal(stage.directory / "projects" / name)
    pool = stage.pool("-G", "www-data", "--env-parent-dir", stage.directory / "projects",
                      "--script-name", "/trac")  # fmt: skip
    (stage.directory / "htpasswd").write_text("admin:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n")
    front = Front(pool, webservers, stage.directory)
    result = doctor(front.directory, *front.arguments(front.apache()))
    assert result["findings"] == []
    assert result["left_out"] == []


# -- mistakes inside -----------------------------------------------------------------------------


def older(env: Path) -> None:
    with contextlib.closing(sqlite3.connect(env / "db" / "trac.db")) as database:
        database.execute("UPDATE system SET value='20' WHERE name='database_version'")
        database.commit()


def broken_plugin(env: Path) -> None:
    (env / "plugins" / "broken.py").write_text("import no_such_module\n")


def gone(env: Path) -> None:
    shutil.rmtree(env)


def closed_file(env: Path) -> None:
    (env / "conf" / "trac.ini").chmod(0o600)


def closed_database(env: Path) -> None:
    (env / "db" / "trac.db").chmod(0o600)


def closed_log(env: Path) -> None:
    set_in_ini(env, "log_type = none", "log_type = file")
    log = env / "log" / "trac.log"
    log.write_text("")
    log.chmod(0o600)


def closed_log_folder(env: Path) -> None:
    closed_log(env)
    (env / "log" / "trac.log").chmod(0o666)
    (env / "log").chmod(0o755)


def without_wal(env: Path) -> None:
    set_in_ini(env, "?journal_mode=wal", "")


def mail(env: Path) -> None:
    set_in_ini(env, "smtp_enabled = disabled", "smtp_enabled = enabled")


@dataclass(frozen=True)
class InnerFault:
    """``seed`` spoils an environment that is sound otherwise."""

    seed: Callable[[Path], None]
    name: str
    mend: str


INNER_FAULTS = [
    InnerFault(older, "env-upgrade", "trac-admin {env} upgrade && trac-admin {env} wiki upgrade"),
    InnerFault(broken_plugin, "plugin-broken", "remove it from {env}/plugins"),
    InnerFault(gone, "env-closed", "trac-admin {env} initenv"),
    InnerFault(closed_file, "env-closed", "chown -R www-data:www-data {env}"),
    InnerFault(closed_database, "env-database", "chown www-data:www-data {env}/db {env}/db/trac.db"),
    InnerFault(closed_log, "env-log", "&& chown www-data:www-data {env}/log/trac.log &&"),
    InnerFault(closed_log_folder, "env-log-folder", "create 0640 www-data www-data"),
    InnerFault(without_wal, "env-journal", "database = sqlite:db/trac.db?journal_mode=wal"),
    InnerFault(mail, "base-url", "base_url = https://example.org/trac"),
]


def inner_arguments(pool: Pool, env: Path) -> Arguments:
    return ["--web-user", "www-data", "--", "-s", pool.socket, "-u", "www-data", "--env", env]


@pytest.mark.parametrize("fault", INNER_FAULTS, ids=lambda fault: fault.seed.__name__)
def test_a_mistake_inside_is_found(trac_pool: Pool, own_env: Path, fault: InnerFault) -> None:
    with_wal(own_env)
    fault.seed(own_env)
    before = contents(own_env)
    result = doctor(own_env.parent, *inner_arguments(trac_pool, own_env))
    assert found(result) == [fault.name], result["findings"]
    (finding,) = result["findings"]
    assert fault.mend.format(env=own_env) in finding["mend"]
    assert contents(own_env) == before


def contents(env: Path) -> Dict[str, bytes]:
    return {str(path): path.read_bytes() for path in env.rglob("*") if path.is_file()}


def test_a_python_without_pkg_resources(trac_pool: Pool, own_env: Path) -> None:
    (own_env.parent / "pkg_resources.py").write_text("raise ImportError('there is none')\n")
    arguments = inner_arguments(trac_pool, with_wal(own_env))
    path = f"{own_env.parent}:{base_environment(own_env.parent)['PYTHONPATH']}"
    result = doctor(own_env.parent, *arguments, PYTHONPATH=path)
    assert found(result) == ["interpreter-pkg-resources"]
    assert result["findings"][0]["mend"].endswith("-m pip install 'setuptools<81'")


def test_another_base_url(front: Front, own_env: Path) -> None:
    arguments = inner_arguments(front.pool, with_wal(own_env))
    url = f"{front.nginx().url}/trac"
    result = doctor(front.directory, "--url", url, *arguments, "--base-url", "http://other.example.org/")
    assert found(result) == ["base-url"]
    assert result["findings"][0]["mend"].endswith(f"base_url = {url}")


def test_a_wrapper_of_the_wrong_owner(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folder = tmp_path / "www" / "trac"
    folder.mkdir(parents=True)
    wrapper = folder / "trac.fcgi"
    wrapper.write_text("#!/bin/sh\nTRAC_ENV=/srv/trac exec trac.fcgi\n")
    wrapper.chmod(0o755)
    arguments = ["--wrapper", wrapper, "--wrapper-user", "12345:12346", "--docroot", tmp_path / "www",
                 "-s", tmp_path / "no.ctl"]  # fmt: skip
    result = doctor(tmp_path, *arguments)
    assert found(result) == ["wrapper-owner", "wrapper-owner"]
    assert result["findings"][0]["mend"].startswith("install -d -o 12345 -g 12346 -m 755 ")
    assert result["findings"][1]["mend"] == f"chown 12345:12346 {wrapper}"
    os.chown(wrapper, 12345, 12346)
    os.chown(folder, 12345, 12346)
    assert found(doctor(tmp_path, *arguments)) == []


# -- no mistakes ---------------------------------------------------------------------------------


def test_a_sound_pool(stage: Stage) -> None:
    pool = stage.pool("-G", "www-data", *APP)
    result = doctor(stage.directory, "--web-user", "www-data", "-s", pool.control)
    assert result["findings"] == []
    assert result["left_out"] == ["what visitors see: say the site's address with --url"]
    where = f"unix:{stage.socket}"
    settings = f"the settings of the master at {pool.control} (pid {pool.pid})"
    assert result["looked_at"] == [settings, where, f"answers of {where}", "limits"]


def test_as_somebody_who_may_not_look(stage: Stage) -> None:
    """What is computed is told, and what nobody can know is left out."""
    folder = stage.directory / "inner"
    folder.mkdir(mode=0o700)
    stage.listener().listen()
    stage.socket.chmod(0o600)
    both = ["-s", folder / "s", "--listen", stage.socket]
    command = ["--web-user", "nobody", "--", *both, "-u", "root", "--env", folder / "env"]
    done = subprocess.run(
        [str(BIN / "trac-spawnctl"), "doctor", "--json", *map(str, command)],
        env=base_environment(stage.directory, stage.spawn.code), cwd="/",
        user="www-data", group="www-data", extra_groups=[],
        capture_output=True, text=True, timeout=3 * PATIENCE, check=False,
    )  # fmt: skip
    result = json.loads(done.stdout)["result"]
    assert found(result) == ["socket-denied"]
    assert f"the user nobody may not connect to {stage.socket}" in result["findings"][0]["what"]
    assert f"unix:{folder}/s: Permission denied: {folder}/s; ask as root" in result["left_out"]
    assert "interpreter: only root can look as the user of the pool: root; ask as root" in result["left_out"]


def test_the_report_and_what_is_no_question(stage: Stage) -> None:
    command = [str(BIN / "trac-spawnctl"), "doctor", "--", "-s", str(stage.socket), *APP]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith(f"error: there is no socket {stage.socket}\n")
    assert done.stdout.endswith("1 error\n")
    failed = subprocess.run([*command, "--no-such-option"], capture_output=True, text=True, check=False)
    assert failed.returncode == os.EX_USAGE and "--no-such-option" in failed.stderr
    other = subprocess.run([*command[:2], "-s", "/nowhere"], capture_output=True, text=True, check=False)
    assert other.returncode == os.EX_UNAVAILABLE and "Without a master, say" in other.stderr

"""Web servers of one test's own, in the foreground, on a port that nobody else can take.

The test binds port 0 and hands the listening socket to lighttpd and nginx, so there is no moment in
which another process could have the port, and connections queue from the start. Apache, HAProxy and
Caddy bind by themselves: the test keeps the port for them with a socket that does not listen.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

from .clients import Browser
from .pools import base_environment
from .processes import Program, Supervisor, wait_until

LIGHTTPD = """\
server.document-root = "{directory}"
server.bind = "127.0.0.1"
server.port = {port}
server.systemd-socket-activation = "enable"
server.upload-dirs = ( "{directory}" )
server.max-fds = 8192
server.modules = ()
mimetype.assign = ( ".css" => "text/css", ".js" => "text/javascript", ".png" => "image/png" )
{config}
"""

NGINX = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {directory}/nginx.pid;
error_log stderr notice;
{user}
events {{ worker_connections 8192; }}
http {{
    include /etc/nginx/mime.types;
    access_log {directory}/access.log;
    client_body_temp_path {directory}/body;
    fastcgi_temp_path {directory}/fastcgi;
    proxy_temp_path {directory}/proxy;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    client_max_body_size 64m;
    {http}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        server_name localhost;
        root {directory};
        {config}
    }}
}}
"""

# ListenCoresBucketsRatio makes Apache share the port with the test, which keeps it (SO_REUSEPORT).
APACHE = """\
ServerRoot {directory}
DefaultRuntimeDir {directory}
PidFile {directory}/apache2.pid
Listen 127.0.0.1:{port}
ListenCoresBucketsRatio 100
ServerName localhost
DocumentRoot {directory}
ErrorLog {log}
{modules}
TypesConfig /etc/mime.types
{user}
<Directory />
    Require all denied
</Directory>
<Directory {directory}>
    Require all granted
</Directory>
<IfModule mod_fcgid.c>
    FcgidIPCDir {directory}/fcgid
    FcgidProcessTableFile {directory}/fcgid_shm
</IfModule>
{config}
"""
#: What Debian enables when Apache is installed, as far as it can matter here.
APACHE_MODULES = (
    "mpm_event", "access_compat", "alias", "auth_basic", "authn_core", "authn_file", "authz_core",
    "authz_host", "authz_user", "deflate", "dir", "env", "filter", "mime", "negotiation",
    "reqtimeout", "setenvif", "status",
)  # fmt: skip
MODS_AVAILABLE = Path("/etc/apache2/mods-available")

HAPROXY = """\
global
    log stderr format raw daemon
    maxconn 1024
    {user}
defaults
    log global
    mode http
    option httplog
    timeout connect 5s
    timeout client 50s
    timeout server 50s
{config}
"""

CADDY = """\
{{
    admin off
    auto_https off
}}
{config}
"""

# Gives a command its listening socket as descriptor N and, as systemd would, tells it so.
HAND_OVER = """\
import os, sys
given, wanted = int(sys.argv[1]), int(sys.argv[2])
if given != wanted:
    os.dup2(given, wanted)
    os.close(given)
os.set_inheritable(wanted, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execvp(sys.argv[3], sys.argv[3:])
"""


def hand_over(listener: socket.socket, command: list[str], descriptor: int = 3) -> list[str]:
    """The command line that starts ``command`` with the listener as a descriptor of this number.

    The socket itself goes into ``pass_fds`` of the start.
    """
    given = str(listener.fileno())
    return [sys.executable, "-c", HAND_OVER, given, str(descriptor), *command]


class Port:
    """A port of 127.0.0.1 that this process keeps for a server that binds it by itself.

    The socket never listens, so the kernel gives it no connection.
    """

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.socket.bind(("127.0.0.1", 0))
        self.number: int = self.socket.getsockname()[1]


class WebServer(Program):
    """A running web server; requests to it need no further waiting, they queue."""

    port: int
    directory: Path
    #: Keeps the port until the test ends.
    kept: Optional[Port] = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def browser(self, prefix: str = "") -> Browser:
        return Browser(self.url + prefix)


class WebServers:
    """Starts web servers for one test, with its own configuration text."""

    def __init__(self, supervisor: Supervisor, directory: Path, code: Path) -> None:
        self.supervisor = supervisor
        self.directory = directory
        self.code = code

    def lighttpd(self, config: str) -> WebServer:
        """``config`` is laid out at the top level; it adds its modules with ``+=``."""
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
            home, port = self._home("lighttpd"), listener.getsockname()[1]
            file = home / "lighttpd.conf"
            file.write_text(LIGHTTPD.format(directory=home, port=port, config=config))
            command = [self._find("lighttpd"), "-D", "-f", str(file)]
            return self._start("lighttpd", hand_over(listener, command), listener, home, {})

    def nginx(
        self, config: str, http: str = "", user: str = "root", listener: Optional[socket.socket] = None
    ) -> WebServer:
        """``config`` stands in the ``server`` block, ``http`` before it.

        ``user`` is that of the nginx workers, when the tests run as root. For an ``http`` with a
        ``server`` block of its own, ``listener`` is what that listens on.
        """
        with listener or socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
            home, port = self._home("nginx"), listener.getsockname()[1]
            file = home / "nginx.conf"
            text = NGINX.format(
                directory=home,
                port=port,
                config=config,
                http=http,
                user=f"user {user};" if os.geteuid() == 0 else "",
            )
            file.write_text(text)
            command = [self._find("nginx"), "-p", f"{home}/", "-c", str(file)]
            # How one nginx hands its sockets to the next when it is upgraded.
            inherit = {"NGINX": f"{listener.fileno()};"}
            return self._start("nginx", command, listener, home, inherit)

    def apache(self, config: str, modules: Iterable[str] = (), port: Optional[Port] = None) -> WebServer:
        """``config`` stands after Debian's defaults; ``modules`` are what a2enmod takes.

        Workers are www-data, as Debian's, when the tests run as root.
        """
        port, home = port or Port(), self._home("apache2")
        text = APACHE.format(
            directory=home,
            port=port.number,
            log=self.supervisor.log_path("apache2"),
            modules="\n".join(f"LoadModule {load}" for load in _load_lines((*APACHE_MODULES, *modules))),
            user="User www-data\nGroup www-data" if os.geteuid() == 0 else "",
            config=config,
        )
        (home / "apache2.conf").write_text(text)
        command = [self._find("apache2"), "-DFOREGROUND", "-f", str(home / "apache2.conf")]
        return self._start_on("apache2", command, port, home)

    def haproxy(self, config: str, port: Optional[Port] = None) -> WebServer:
        """``config`` stands after ``defaults``; its frontend has a ``bind 127.0.0.1:{port}``."""
        port, home = port or Port(), self._home("haproxy")
        user = "user www-data\n    group www-data" if os.geteuid() == 0 else ""
        (home / "haproxy.cfg").write_text(HAPROXY.format(user=user, config=config))
        command = [self._find("haproxy"), "-db", "-f", str(home / "haproxy.cfg")]
        return self._start_on("haproxy", command, port, home)

    def caddy(self, config: str, port: Optional[Port] = None) -> WebServer:
        """``config`` is what stands in a Caddyfile after the global options."""
        port, home = port or Port(), self._home("caddy")
        (home / "Caddyfile").write_text(CADDY.format(config=config))
        command = [self._find("caddy"), "run", "--config", str(home / "Caddyfile")]
        return self._start_on("caddy", command, port, home)

    def _start_on(self, name: str, command: list[str], port: Port, home: Path) -> WebServer:
        """Start what binds the port by itself, and wait until it does or ends."""
        server = self._start(name, command, port.socket, home, {}, pass_fds=())
        server.kept = port
        wait_until(lambda: not server.running or _accepts(server.port), what=f"{name} on its port")
        return server

    def _home(self, name: str) -> Path:
        home = self.directory / f"{name}{len(self.supervisor.programs)}"
        home.mkdir()
        home.chmod(0o777)
        return home

    def _find(self, name: str) -> str:
        found = shutil.which(name, path=base_environment(self.directory)["PATH"])
        assert found, f"{name} is not installed: tests/run installs it"
        return found

    def _start(
        self,
        name: str,
        command: list[str],
        listener: socket.socket,
        home: Path,
        env: dict[str, str],
        pass_fds: Optional[tuple[int, ...]] = None,
    ) -> WebServer:
        server = WebServer(
            command,
            self.supervisor.log_path(name),
            env={**base_environment(self.directory, self.code), **env},
            cwd=home,
            pass_fds=(listener.fileno(),) if pass_fds is None else pass_fds,
        )
        server.port = listener.getsockname()[1]
        server.directory = home
        self.supervisor.add(server)
        return server


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def _load_lines(modules: Iterable[str]) -> list[str]:
    """The arguments of LoadModule for these modules and those that they depend on, in order."""
    found: dict[str, None] = {}
    for name in modules:
        text = (MODS_AVAILABLE / f"{name}.load").read_text()
        for line in text.splitlines():
            if line.startswith("# Depends:"):
                found.update(dict.fromkeys(_load_lines(line.partition(":")[2].split())))
            elif line.startswith("LoadModule "):
                found[line.partition(" ")[2]] = None
    return list(found)

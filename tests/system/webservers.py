"""lighttpd and nginx of one test's own, in the foreground, on a port that nobody else can take.

The test binds port 0 and hands the listening socket over, so there is no moment in which another
process could have the port, and connections queue from the start.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

from .clients import Browser
from .pools import base_environment
from .processes import Program, Supervisor

LIGHTTPD = """\
server.document-root = "{directory}"
server.bind = "127.0.0.1"
server.port = {port}
server.systemd-socket-activation = "enable"
server.upload-dirs = ( "{directory}" )
server.max-fds = 8192
server.modules = ()
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


class WebServer(Program):
    """A running web server; requests to it need no further waiting, they queue."""

    port: int
    directory: Path

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

    def nginx(self, config: str, http: str = "", user: str = "root") -> WebServer:
        """``config`` stands in the ``server`` block, ``http`` before it.

        ``user`` is that of the nginx workers, when the tests run as root.
        """
        with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
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
    ) -> WebServer:
        server = WebServer(
            command,
            self.supervisor.log_path(name),
            env={**base_environment(self.directory, self.code), **env},
            cwd=home,
            pass_fds=(listener.fileno(),),
        )
        server.port = listener.getsockname()[1]
        server.directory = home
        self.supervisor.add(server)
        return server

"""Web servers in front of the recorder, each configured as its users do: what they send, recorded.

Trac is at /trac in all of them, except where the name says that it is the whole site.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .pools import ROOT
from .processes import PATIENCE, Supervisor
from .webservers import Port, WebServer, WebServers

#: The login that the web servers with authentication know; its password is "secret". UTF-8.
USER = "jo\xe9"
PASSWORD = "secret"

LIGHTTPD = """
server.modules += ( "mod_auth", "mod_authn_file", "mod_fastcgi" )
fastcgi.server = ( "{place}" => (( "socket" => "{socket}", "check-local" => "disable" )) )
auth.backend = "htpasswd"
auth.backend.htpasswd.userfile = "{passwords}"
auth.require = ( "/trac/login" =>
                 ( "method" => "basic", "realm" => "Trac", "require" => "valid-user" ) )
"""
NGINX = """
location /trac {{
    include /etc/nginx/fastcgi_params;
    {more}
    fastcgi_pass unix:{socket};
    location /trac/login {{
        auth_basic Trac;
        auth_basic_user_file {passwords};
        fastcgi_pass unix:{socket};
    }}
}}
"""
NGINX_SPLIT = """
    fastcgi_split_path_info ^(/trac)(/.*)?$;
    fastcgi_param SCRIPT_NAME $fastcgi_script_name;
    fastcgi_param PATH_INFO $fastcgi_path_info;
"""
APACHE_PROXY = """
ProxyPass /trac unix:{socket}|fcgi://trac/trac
"""
# %2F is a 404 in Apache unless it is told otherwise.
APACHE_PATH_INFO = """
AllowEncodedSlashes NoDecode
<Location /trac>
    ProxyFCGISetEnvIf true proxy-fcgi-pathinfo unescape
</Location>
"""
APACHE_FCGID = """
ScriptAlias /trac {program}/
<Directory {folder}>
    SetHandler fcgid-script
    Options +ExecCGI
    Require all granted
</Directory>
AllowEncodedSlashes On
"""
APACHE_LOGIN = """
<Location /trac/login>
    AuthType Basic
    AuthName Trac
    AuthUserFile {passwords}
    Require valid-user
</Location>
"""
HAPROXY = """
userlist trac
    user {user} insecure-password {password}
fcgi-app trac
    docroot /
    path-info ^(/trac)(/.*)?$
frontend web
    bind 127.0.0.1:{port}
    http-request auth realm Trac if {{ path_beg /trac/login }} !{{ http_auth(trac) }}
    default_backend trac
backend trac
    use-fcgi-app trac
    server recorder {socket} proto fcgi
"""
CADDY = """
http://127.0.0.1:{port}, http://localhost:{port} {{
    basicauth /trac/login {{
        {user} {hash}
    }}
    reverse_proxy /trac* unix/{socket} {{
        transport fastcgi {{
            split /trac
        }}
    }}
}}
"""
PROGRAM = """\
#!/bin/sh
PYTHONPATH={root} exec {python} -m tests.system.recorder
"""


@dataclass
class Frontends:
    """Starts web servers, each with the recorder behind it."""

    webservers: WebServers
    supervisor: Supervisor
    directory: Path

    @property
    def socket(self) -> Path:
        """Where the recorder listens; it is started once."""
        path = self.directory / "recorder.sock"
        if not path.exists():
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
                path.chmod(0o777)
                listener.listen(100)
                self.supervisor.start(
                    [sys.executable, "-m", "tests.system.recorder"], stdin=listener.fileno(), cwd=ROOT
                )
        return path

    @property
    def program(self) -> Path:
        """For mod_fcgid, which starts it by itself."""
        folder = self.directory / "programs"
        folder.mkdir()
        path = folder / "recorder.fcgi"
        path.write_text(PROGRAM.format(root=ROOT, python=sys.executable))
        path.chmod(0o755)
        return path

    @property
    def passwords(self) -> Path:
        """As htpasswd -s writes it, which all but Caddy read."""
        path = self.directory / "passwords"
        digest = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
        path.write_text(f"{USER}:{{SHA}}{digest}\n", encoding="utf-8")
        path.chmod(0o644)
        return path

    def lighttpd(self, place: str = "/trac") -> WebServer:
        return self.webservers.lighttpd(
            LIGHTTPD.format(place=place, socket=self.socket, passwords=self.passwords)
        )

    def lighttpd_whole_site(self) -> WebServer:
        return self.lighttpd("/")

    def nginx(self, more: str = "") -> WebServer:
        return self.webservers.nginx(NGINX.format(socket=self.socket, more=more, passwords=self.passwords))

    def nginx_split(self) -> WebServer:
        return self.nginx(NGINX_SPLIT)

    def apache_proxy(self, more: str = "") -> WebServer:
        config = APACHE_PROXY.format(socket=self.socket)
        return self._apache(config + more, "proxy_fcgi")

    def apache_proxy_path_info(self) -> WebServer:
        return self.apache_proxy(APACHE_PATH_INFO)

    def apache_fcgid(self) -> WebServer:
        program = self.program
        return self._apache(APACHE_FCGID.format(program=program, folder=program.parent), "fcgid")

    def _apache(self, config: str, module: str) -> WebServer:
        return self.webservers.apache(config + APACHE_LOGIN.format(passwords=self.passwords), [module])

    def haproxy(self) -> WebServer:
        port = Port()
        config = HAPROXY.format(port=port.number, socket=self.socket, user=USER, password=PASSWORD)
        return self.webservers.haproxy(config, port)

    def caddy(self) -> WebServer:
        port = Port()
        command = ["caddy", "hash-password", "--plaintext", PASSWORD]
        hashed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        config = CADDY.format(port=port.number, socket=self.socket, user=USER, hash=hashed)
        return self.webservers.caddy(config, port)


def ask(server: WebServer, target: bytes, credentials: str = "") -> tuple[int, dict[str, str]]:
    """Request ``target``, byte by byte as it is; the status, and what the recorder got (or {})."""
    # HTTP/1.0, so that no answer comes in chunks.
    request = b"GET " + target + b" HTTP/1.0\r\nHost: localhost:%d\r\n" % server.port
    if credentials:
        request += b"Authorization: Basic " + base64.b64encode(credentials.encode()) + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
        sock.sendall(request + b"\r\n")
        reply = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, body = reply.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    return status, json.loads(body) if b"application/json" in head else {}

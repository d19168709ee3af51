"""One nginx before all peers: a port for each, on which every peer's URLs are the same."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from benchmarks.load import CONNECTIONS
from benchmarks.pages import HELLO, TRAC
from benchmarks.peers import Peer
from benchmarks.processes import Program, find

NGINX = """\
daemon off;
worker_processes 1;
pid {home}/pid;
error_log stderr warn;
{user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    # wrk's connections stay open for a whole run, whatever the server behind.
    keepalive_requests 1000000000;
    default_type text/plain;
    client_body_temp_path {home}/body;
    fastcgi_temp_path {home}/fastcgi;
    proxy_temp_path {home}/proxy;
    scgi_temp_path {home}/scgi;
    uwsgi_temp_path {home}/uwsgi;
    # Every answer fits into memory: the disk is not what is measured.
    fastcgi_buffers 64 16k;
    fastcgi_buffer_size 16k;
    uwsgi_buffers 64 16k;
    uwsgi_buffer_size 16k;
    proxy_buffers 64 16k;
    proxy_buffer_size 16k;
{servers}
}}
"""
SERVER = """\
    server {{
        listen 127.0.0.1:{port};
        server_name localhost;
{locations}
    }}
"""
PARAMETERS = """\
            {p}_param SCRIPT_NAME       {mount};
            {p}_param PATH_INFO         $path;
            {p}_param REQUEST_METHOD    $request_method;
            {p}_param REQUEST_URI       $request_uri;
            {p}_param QUERY_STRING      $query_string;
            {p}_param CONTENT_TYPE      $content_type;
            {p}_param CONTENT_LENGTH    $content_length;
            {p}_param SERVER_PROTOCOL   $server_protocol;
            {p}_param SERVER_NAME       $server_name;
            {p}_param SERVER_ADDR       $server_addr;
            {p}_param SERVER_PORT       $server_port;
            {p}_param REMOTE_ADDR       $remote_addr;
            {p}_param REMOTE_PORT       $remote_port;
"""
FASTCGI = (
    PARAMETERS.replace("{p}", "fastcgi")
    + "            fastcgi_param GATEWAY_INTERFACE CGI/1.1;\n"
)
LOCATIONS = {
    "fastcgi": "            fastcgi_pass unix:{socket};\n" + FASTCGI,
    "fastcgi-kept": "            fastcgi_pass {upstream};\n"
    "            fastcgi_keep_conn on;\n" + FASTCGI,
    "uwsgi": "            uwsgi_pass unix:{socket};\n" + PARAMETERS.replace("{p}", "uwsgi"),
    "http": "            proxy_pass http://unix:{socket}:;\n"
    "            proxy_set_header Host $http_host;\n",
    "tcp": "            proxy_pass http://127.0.0.1:{port};\n"
    "            proxy_set_header Host $http_host;\n",
}
#: Only an upstream can keep its connections open.
UPSTREAM = """\
    upstream {upstream} {{
        server unix:{socket};
        keepalive {connections};
    }}
"""
LOCATION = "        location ~ ^{mount}(?<path>/.*)$ {{\n{body}        }}\n"

#: Where each of a peer's services is mounted, on its port.
MOUNTS = {TRAC: "/trac", HELLO: "/hello"}
Answer = tuple[int, bytes]
Address = tuple[str, int]


class Frontend:
    """Running nginx. Services may come and go behind it: until one is there, nginx answers 502."""

    def __init__(self, home: Path, peers: Sequence[Peer]) -> None:
        """``home`` gets nginx's files and, in ``socket()``, the peers' sockets."""
        self.home = home
        # Bound here and handed over: no moment in which another process could have the port.
        listeners = [socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in peers]
        self._ports = {p.name: s.getsockname()[1] for p, s in zip(peers, listeners)}
        tcp = [peer for peer in peers if peer.protocol == "tcp"]
        self._behind = {(peer.name, kind): _reserve() for peer in tcp for kind in MOUNTS}
        config = home / "nginx.conf"
        config.write_text(self._configuration(peers))
        command = [find("nginx", "nginx"), "-p", f"{home}/", "-c", str(config)]
        numbers = tuple(listener.fileno() for listener in listeners)
        # How one nginx hands its sockets to the next when it is upgraded.
        inherited = {"NGINX": "".join(f"{number};" for number in numbers)}
        self.program = Program(command, home, inherited, pass_fds=numbers)
        for listener in listeners:
            listener.close()

    def socket(self, peer: Peer, service: str) -> Path:
        # By number: a path for a Unix socket has 107 bytes, and temporary folders may be deep.
        return self.home / f"{list(self._ports).index(peer.name)}-{service}.sock"

    def port(self, peer: Peer, service: str) -> int:
        """Where a peer without Unix sockets has to listen on 127.0.0.1; 0 for all others."""
        reserved = self._behind.get((peer.name, service))
        return reserved.getsockname()[1] if reserved else 0

    def address(self, peer: Peer) -> Address:
        return "127.0.0.1", self._ports[peer.name]

    def url(self, peer: Peer, service: str, path: str) -> str:
        return f"http://127.0.0.1:{self._ports[peer.name]}{MOUNTS[service]}{path}"

    def get(self, peer: Peer, service: str, path: str, timeout: float = 30.0) -> Answer:
        """Status and body; status 0 when there is no answer at all."""
        connection = HTTPConnection(*self.address(peer), timeout=timeout)
        try:
            connection.request("GET", MOUNTS[service] + path, headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, HTTPException) as error:
            return 0, repr(error).encode()
        finally:
            connection.close()

    def _configuration(self, peers: Sequence[Peer]) -> str:
        servers = "".join(
            SERVER.format(port=self._ports[peer.name], locations=self._locations(peer))
            for peer in peers
        )
        servers += "".join(
            UPSTREAM.format(
                upstream=_upstream(peer, service),
                socket=self.socket(peer, service),
                connections=CONNECTIONS,
            )
            for peer in peers
            if peer.protocol == "fastcgi-kept"
            for service in MOUNTS
        )
        user = "user root;" if os.geteuid() == 0 else ""
        return NGINX.format(home=self.home, user=user, servers=servers)

    def _locations(self, peer: Peer) -> str:
        return "".join(
            LOCATION.format(
                mount=mount,
                body=LOCATIONS[peer.protocol].format(
                    mount=mount,
                    socket=self.socket(peer, service),
                    port=self.port(peer, service),
                    upstream=_upstream(peer, service),
                ),
            )
            for service, mount in MOUNTS.items()
        )


def _upstream(peer: Peer, service: str) -> str:
    return f"{peer.name}_{service}"


def _reserve() -> socket.socket:
    """A port that nobody else is given: bound, and left to a server that sets SO_REUSEADDR."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved

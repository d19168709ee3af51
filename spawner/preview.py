"""A small HTTP server in front of a pool, for trying it out on this machine only.

It keeps whole requests and answers in memory, and whoever reaches it may do in the demonstration
environment whatever they like: so it listens on the loopback interface, and answers only to the
names of that interface (a page elsewhere could point its own name at 127.0.0.1: DNS rebinding).
"""

from __future__ import annotations

import errno
import html
import socket
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Callable, Optional
from urllib.parse import unquote_to_bytes, urlsplit

from workers.fastcgi import client
from workers.fastcgi.records import RemoteProtocolError

FIRST_PORT = 8000
#: Enough for a demonstration that is started many times; then any free port will do.
PORTS = 100
#: A request is in memory twice while it goes on; Trac's own limit for attachments is far below.
MAX_BODY = 256 << 20
#: As long as nginx waits for a FastCGI server, five times over: a debugger may be at work.
ANSWER_TIMEOUT = 300.0
OUR_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))
#: Headers about this one connection (RFC 9110, 7.6.1), and those that CGI has other names for.
#: A Proxy header would become HTTP_PROXY, which libraries take for a setting ("httpoxy").
NOT_PASSED_ON = frozenset(
    "connection content-length content-type keep-alive proxy proxy-connection te trailer "
    "transfer-encoding upgrade".split()
)
NOT_PASSED_BACK = frozenset(
    "connection content-length date keep-alive trailer transfer-encoding upgrade".split()
)


class Refused(Exception):
    """The request is answered here, with this status and explanation."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def bind(first_port: int = FIRST_PORT) -> socket.socket:
    """A listening socket on 127.0.0.1, on the first free port from ``first_port`` on."""
    for port in (*range(first_port, min(first_port + PORTS, 65536)), 0):
        try:
            return socket.create_server(("127.0.0.1", port), backlog=128)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES) or port == 0:
                raise
    raise AssertionError("unreachable: port 0 is bound or raises")


def wait_ready(pool: client.Address) -> None:
    """Return once a worker of the pool answers. Waits for as long as that takes."""
    while True:
        try:
            with client.connect(pool, ANSWER_TIMEOUT) as connection:
                connection.sendall(client.ClientConnection().get_values(["FCGI_MAX_CONNS"]))
                if connection.recv(1):
                    return
        except OSError:
            pass  # not there yet
        # A socket that is about to appear sends no event that could be waited for portably.
        time.sleep(0.05)


class Preview(ThreadingHTTPServer):
    """Serves an already listening socket from the pool at another address."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, pool: client.Address) -> None:
        super().__init__(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_address = listener.getsockname()
        self.server_name = "localhost"
        self.server_port = listener.getsockname()[1]
        self.pool = pool
        self.answer_timeout = ANSWER_TIMEOUT


class Handler(BaseHTTPRequestHandler):
    """One connection of a browser."""

    server: Preview
    protocol_version = "HTTP/1.1"
    #: An idle browser connection costs a thread.
    timeout = 60.0

    def forward(self) -> None:
        """Answer the request from the pool."""
        try:
            try:
                self._check_host()
                params = make_params(self)
                body = self._read_body()
                if body is None:
                    return
                response = self._ask(params, body)
            except Refused as refusal:
                self._explain(refusal)
            else:
                self._send(response)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True  # the browser went away

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = forward

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal shows the pool's log."""

    def _check_host(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) > 1:
            raise Refused(HTTPStatus.BAD_REQUEST, "More than one Host header.")
        if hosts and host_name(hosts[0]) not in OUR_NAMES:
            reason = "This preview answers only to the names localhost and 127.0.0.1."
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, reason)

    def _read_body(self) -> Optional[bytes]:
        """The request's body; None when the browser did not send all of it."""
        if self.headers.get("Transfer-Encoding"):
            reason = "This preview takes bodies with a Content-Length only."
            raise Refused(HTTPStatus.LENGTH_REQUIRED, reason)
        lengths = set(self.headers.get_all("Content-Length") or ["0"])
        text = lengths.pop()
        if lengths or not (text.isascii() and text.isdigit()):
            raise Refused(HTTPStatus.BAD_REQUEST, "The Content-Length is not a number.")
        if int(text) > MAX_BODY:
            reason = f"This preview takes no more than {MAX_BODY >> 20} MiB."
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
        body = self.rfile.read(int(text))
        if len(body) < int(text):
            self.close_connection = True
            return None
        return body

    def _ask(self, params: dict[str, str], body: bytes) -> client.Response:
        pool, timeout = self.server.pool, self.server.answer_timeout
        try:
            response = client.request(pool, params, body, timeout=timeout)
        except TimeoutError:
            reason = f"The pool at {pool} gave no answer within {timeout:g} seconds."
            raise Refused(HTTPStatus.GATEWAY_TIMEOUT, reason) from None
        except (OSError, RemoteProtocolError) as error:
            reason = f"The pool at {pool} gave no usable answer: {error}. Its log says more."
            raise Refused(HTTPStatus.BAD_GATEWAY, reason) from None
        if response.status == 0:
            reason = f"The pool at {pool} ended the request without an answer. Its log says more."
            raise Refused(HTTPStatus.BAD_GATEWAY, reason)
        return response

    def _send(self, response: client.Response) -> None:
        self.send_response_only(response.status, response.reason)
        self.send_header("Date", self.date_time_string())
        for name, value in response.headers:
            if name.lower() not in NOT_PASSED_BACK:
                self.send_header(name, value)
        length = response.header("Content-Length")
        bodiless = response.status in (204, 304) or response.status < 200
        if self.command != "HEAD" and not bodiless:
            length = str(len(response.body))
        if length is not None and response.status != 204:
            self.send_header("Content-Length", length)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD" and not bodiless:
            self.wfile.write(response.body)

    def _explain(self, refusal: Refused) -> None:
        """An error page of our own. The rest of the request may be unread, so it is the last."""
        status = refusal.status
        title = f"{status.value} {status.phrase}"
        page = (
            f"<!DOCTYPE html>\n<title>{title}</title>\n<h1>{title}</h1>\n"
            f"<p>{html.escape(refusal.reason)}</p>\n<p><small>trac-spawn preview</small></p>\n"
        ).encode()
        self.close_connection = True
        self.send_response_only(status)
        self.send_header("Date", self.date_time_string())
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)


def host_name(header: str) -> str:
    """The name in a Host header, without port, brackets and case; "" for nonsense."""
    try:
        return (urlsplit("//" + header.strip()).hostname or "").rstrip(".")
    except ValueError:
        return ""


def make_params(handler: Handler) -> dict[str, str]:
    """The request's CGI variables (RFC 3875). Raises Refused for a target that is no path."""
    target = handler.path
    if target.lower().startswith("http://"):
        # The absolute form, which every server must accept (RFC 9112, 3.2.2).
        target = "/" + target[7:].partition("/")[2]
    if not target.startswith("/"):
        raise Refused(HTTPStatus.BAD_REQUEST, "The request's target is not a path.")
    path, _, query = target.partition("?")
    host, port = handler.server.server_address[:2]
    params = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": "trac-spawn-preview",
        "SERVER_PROTOCOL": handler.request_version,
        "SERVER_NAME": host_name(handler.headers.get("Host") or "") or str(host),
        "SERVER_PORT": str(port),
        "REMOTE_ADDR": handler.client_address[0],
        "REMOTE_PORT": str(handler.client_address[1]),
        "REQUEST_SCHEME": "http",
        "REQUEST_METHOD": handler.command,
        "REQUEST_URI": target,
        "SCRIPT_NAME": "",
        # Latin-1 stands for the bytes themselves, on the wire and in PEP 3333.
        "PATH_INFO": unquote_to_bytes(path.encode("latin-1")).decode("latin-1"),
        "QUERY_STRING": query,
        "CONTENT_TYPE": handler.headers.get("Content-Type") or "",
        "CONTENT_LENGTH": handler.headers.get("Content-Length") or "",
    }
    for name, value in handler.headers.items():
        # X_Y and X-Y would become the same variable: whoever sets X-Y must not be overruled.
        if name.lower() in NOT_PASSED_ON or "_" in name:
            continue
        key = "HTTP_" + name.upper().replace("-", "_")
        joint = "; " if key == "HTTP_COOKIE" else ", "
        params[key] = params[key] + joint + value if key in params else value
    return params


def serve(listener: socket.socket, pool: client.Address, announce: Callable[[], None]) -> None:
    """Call ``announce`` once the pool answers, then serve for ever."""
    wait_ready(pool)
    announce()
    Preview(listener, pool).serve_forever()

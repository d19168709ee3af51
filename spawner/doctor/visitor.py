"""A visitor of the site: keeps cookies, follows no redirect, and believes no certificate blindly."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from dataclasses import dataclass, field
from email.message import Message
from typing import Dict, Mapping, Optional
from urllib.parse import SplitResult, urlsplit, urlunsplit

AGENT = "trac-spawnctl doctor"
_SMALL_SEGMENT = 536
#: So small that the web server cannot get rid of a large answer at once...
_SMALL_BUFFER = 8 << 10
#: ...and so long that it has to put the rest somewhere.
_HESITATION = 0.3
_LARGEST = 16 << 20


class NoAnswer(Exception):
    """There was no answer that could be understood, and this is why."""


@dataclass(frozen=True)
class Reply:
    """``cut``: the connection ended before the end of the body."""

    status: int
    headers: Message
    body: bytes
    cut: bool = False

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def kind(self) -> str:
        return self.header("Content-Type").partition(";")[0].strip().lower()

    def header(self, name: str) -> str:
        return self.headers[name] or ""


@dataclass
class Visitor:
    """``origin`` has the scheme and the host; the paths of requests stand as they go over the wire."""

    origin: SplitResult
    timeout: float
    cookies: Dict[str, str] = field(default_factory=dict)
    #: Why the certificate cannot be believed; the visit goes on without.
    distrust: str = ""

    @classmethod
    def of(cls, url: str, timeout: float) -> Visitor:
        return cls(urlsplit(url), timeout)

    def url(self, path: str) -> str:
        return urlunsplit((self.origin.scheme, self.origin.netloc, path, "", ""))

    def request(
        self,
        method: str,
        path: str,
        headers: Optional[Mapping[str, str]] = None,
        body: Optional[bytes] = None,
        slow: bool = False,
    ) -> Reply:
        """``slow``: hesitate before reading the body. Raises NoAnswer."""
        try:
            reply = self._exchange(method, path, headers or {}, body, slow)
        except ssl.SSLCertVerificationError as error:
            if self.distrust:
                raise NoAnswer(str(error)) from error
            self.distrust = error.verify_message
            return self.request(method, path, headers, body, slow)
        except http.client.HTTPException as error:
            raise NoAnswer(f"the answer is no HTTP: {error!r}") from error
        except OSError as error:
            raise NoAnswer(error.strerror or str(error)) from error
        for line in reply.headers.get_all("Set-Cookie") or []:
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name.strip()] = value.strip()
        return reply

    def get(self, path: str, **headers: str) -> Reply:
        """Header names are given with underscores. Raises NoAnswer."""
        return self.request("GET", path, {name.replace("_", "-"): text for name, text in headers.items()})

    def _exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: Optional[bytes], slow: bool
    ) -> Reply:
        connection = self._connection(slow)
        try:
            try:
                connection.request(method, path, body, {**self._usual_headers(), **headers})
            except (BrokenPipeError, ConnectionResetError):
                # It does not want all of the body. It may have said why.
                if connection.sock is None:
                    raise
                response = http.client.HTTPResponse(connection.sock, method=method)
                response.begin()
            else:
                response = connection.getresponse()
            if slow:
                time.sleep(_HESITATION)
            return _read(response)
        finally:
            connection.close()

    def _connection(self, slow: bool) -> http.client.HTTPConnection:
        host, port = self.origin.hostname or "", self.origin.port
        context = self._context()
        if context is None:
            connection = http.client.HTTPConnection(host, port, timeout=self.timeout)
        else:
            connection = http.client.HTTPSConnection(host, port, timeout=self.timeout, context=context)
        if slow:
            # One that has a socket does not connect by itself.
            sock = _narrow_connection((host, connection.port), self.timeout)
            connection.sock = sock if context is None else context.wrap_socket(sock, server_hostname=host)
        return connection

    def _context(self) -> Optional[ssl.SSLContext]:
        if self.origin.scheme != "https":
            return None
        context = ssl.create_default_context()
        if self.distrust:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _usual_headers(self) -> Dict[str, str]:
        headers = {
            "Host": self.origin.netloc.rpartition("@")[2],
            "User-Agent": AGENT,
            # The doctor knows Trac's messages in English.
            "Accept-Language": "en",
            "Connection": "close",
        }
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return headers


def _narrow_connection(address: tuple[str, int], timeout: float) -> socket.socket:
    """As socket.create_connection(), with a receive buffer that is small from the start: the window
    is agreed upon with the first packet."""
    problem: OSError = OSError("the host has no address")
    for family, kind, protocol, _, where in socket.getaddrinfo(*address, 0, socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
            # Of this the kernel at the other end makes the size of its buffer; that of the loopback
            # interface is so large that any answer would fit.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SMALL_SEGMENT)
            sock.settimeout(timeout)
            sock.connect(where)
            return sock
        except OSError as error:
            sock.close()
            problem = error
    raise problem


def _read(response: http.client.HTTPResponse) -> Reply:
    cut = False
    try:
        body = response.read(_LARGEST) if response.length is None else response.read()
    except http.client.IncompleteRead as error:
        body, cut = error.partial, True
    except ConnectionResetError:
        body, cut = b"", True
    return Reply(response.status, response.headers, body, cut)

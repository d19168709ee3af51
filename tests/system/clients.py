"""What visitors do: a browser with cookies and forms, and a load whose every answer is checked."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
import uuid
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Callable, Optional, Union
from urllib.parse import urlencode, urlsplit

from .processes import PATIENCE, wait_until


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def location(self) -> str:
        return self.headers["Location"] or ""


@dataclass(frozen=True)
class Upload:
    filename: str
    data: bytes
    content_type: str = "application/octet-stream"


Fields = dict[str, Union[str, Upload]]


def multipart(fields: Fields) -> tuple[bytes, str]:
    """A form's body and its Content-Type."""
    boundary = uuid.uuid4().hex
    parts = []
    for name, value in fields.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
        if isinstance(value, Upload):
            head += f'; filename="{value.filename}"\r\nContent-Type: {value.content_type}'
        data = value.data if isinstance(value, Upload) else value.encode()
        parts.append(head.encode() + b"\r\n\r\n" + data + b"\r\n")
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


class Browser:
    """Keeps cookies, sends forms with Trac's token; one connection a request, no redirects."""

    def __init__(self, base: str, timeout: float = PATIENCE) -> None:
        """``base`` is http://HOST:PORT/PREFIX; the paths of requests are appended to it."""
        parts = urlsplit(base)
        assert parts.hostname and parts.port
        self.host, self.port = parts.hostname, parts.port
        self.prefix = parts.path.rstrip("/")
        self.timeout = timeout
        self.cookies: dict[str, str] = {}
        #: The address that it comes from; empty for what the kernel chooses.
        self.source = ""

    def request(
        self,
        method: str,
        path: str,
        body: Optional[bytes] = None,
        headers: Optional[dict[str, str]] = None,
    ) -> Answer:
        sent = {"Connection": "close", **(headers or {})}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{n}={v}" for n, v in self.cookies.items())
        source = (self.source, 0) if self.source else None
        connection = http.client.HTTPConnection(self.host, self.port, self.timeout, source)
        try:
            connection.request(method, self.prefix + path, body, sent)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        finally:
            connection.close()
        for line in answer.headers.get_all("Set-Cookie") or []:
            name, _, rest = line.partition("=")
            self.cookies[name.strip()] = rest.partition(";")[0]
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        """GET; header names are given with underscores: ``If_None_Match="..."``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("GET", path, headers=named)

    def follow(self, answer: Answer) -> Answer:
        """GET where a redirect points to, which must be on this server."""
        parts = urlsplit(answer.location)
        assert (parts.hostname, parts.port) == (self.host, self.port), answer.location
        assert parts.path.startswith(self.prefix), answer.location
        path = parts.path[len(self.prefix) :]
        return self.get(f"{path}?{parts.query}" if parts.query else path)

    def post(self, path: str, fields: dict[str, str]) -> Answer:
        """Send a form, with Trac's token when a page has been fetched before."""
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.request("POST", path, urlencode({**self._token(), **fields}).encode(), kind)

    def upload(self, path: str, fields: Fields) -> Answer:
        """Send a form with files."""
        body, kind = multipart({**self._token(), **fields})
        return self.request("POST", path, body, {"Content-Type": kind})

    def _token(self) -> dict[str, str]:
        token = self.cookies.get("trac_form_token")
        return {"__FORM_TOKEN": token} if token else {}


@dataclass(frozen=True)
class Failure:
    id: str
    #: Seconds since the load began.
    at: float
    reason: str


@dataclass
class Load:
    """Steady, checked requests from several threads, until stopped or for ``limit`` seconds.

    ``fetch`` is given an id that is never used twice and returns the status and the body, which
    must be 200 and contain the id. As a context manager it stops at the end of the block.
    """

    fetch: Callable[[str], tuple[int, bytes]]
    threads: int = 4
    #: Seconds that each thread waits between two requests.
    pause: float = 0.0
    limit: float = 120.0
    #: Set this before stopping a pool: who finds its socket gone has not been promised anything.
    may_refuse: bool = False
    refused: int = 0
    requests: int = 0
    failures: list[Failure] = field(default_factory=list)
    slowest: float = 0.0

    def __enter__(self) -> Load:
        self._begun = time.monotonic()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._ids = (f"load{number}x" for number in itertools.count(1))
        self._running = [threading.Thread(target=self._go_on) for _ in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Finish the requests in flight and stop."""
        self._stop.set()
        for thread in self._running:
            thread.join()

    def wait_for(self, more: int, timeout: float = PATIENCE) -> None:
        """Wait until so many more requests have been answered."""
        goal = self.requests + more
        wait_until(lambda: self.requests >= goal, timeout, f"{more} more answers")

    def check(self, at_least: int = 1) -> None:
        """Fail unless every request was answered rightly, and there were enough to tell."""
        shown = "\n".join(f"  {f.at:.3f} s {f.id}: {f.reason}" for f in self.failures[:20])
        count = f"{len(self.failures)} of {self.requests} requests"
        assert not self.failures, f"{count} failed:\n{shown}"
        assert self.requests >= at_least, f"only {self.requests} requests were made"

    def _go_on(self) -> None:
        while not self._stop.is_set() and time.monotonic() - self._begun < self.limit:
            with self._lock:
                id = next(self._ids)
            begun = time.monotonic()
            reason = self._try(id)
            with self._lock:
                self.requests += 1
                self.slowest = max(self.slowest, time.monotonic() - begun)
                if reason:
                    self.failures.append(Failure(id, begun - self._begun, reason))
            if self.pause:
                self._stop.wait(self.pause)

    def _try(self, id: str) -> str:
        """What went wrong, or nothing."""
        try:
            status, body = self.fetch(id)
        except (ConnectionRefusedError, FileNotFoundError) as error:
            self.refused += 1
            return "" if self.may_refuse else f"{type(error).__name__}: {error}"
        # Whatever it is, it is a lost request, and the load must go on to count the others.
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        if status != 200:
            return f"status {status}: {body[:200]!r}"
        return "" if id.encode() in body else f"an answer to something else: {body[:200]!r}"


def http_load(base: str, path: str = "/echo?id={id}", threads: int = 4, pause: float = 0.0) -> Load:
    """Load through a web server. For Trac: ``path="/search?noquickjump=1&q={id}"``."""

    def fetch(id: str) -> tuple[int, bytes]:
        answer = Browser(base).get(path.format(id=id))
        return answer.status, answer.body

    return Load(fetch, threads, pause)


def params(path: str, method: str = "GET", **more: str) -> dict[str, str]:
    """The FastCGI parameters of a plain request for PATH?QUERY."""
    where, _, query = path.partition("?")
    return {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": method,
        "REQUEST_URI": path,
        "SCRIPT_NAME": "",
        "PATH_INFO": where,
        "QUERY_STRING": query,
        "CONTENT_TYPE": "",
        "CONTENT_LENGTH": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        **more,
    }


def fcgi_load(
    socket: Path, path: str = "/echo?id={id}", threads: int = 4, pause: float = 0.0
) -> Load:
    """The same straight to the pool's socket, with no web server between."""
    from workers.fastcgi import client

    def fetch(id: str) -> tuple[int, bytes]:
        response = client.request(str(socket), params(path.format(id=id)))
        return response.status, response.body

    return Load(fetch, threads, pause)

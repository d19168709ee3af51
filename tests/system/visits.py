"""Single requests straight to a pool's socket, one after another or in the background."""

from __future__ import annotations

import itertools
import socket
import threading
from pathlib import Path
from typing import Optional, Union

from workers.fastcgi import client
from workers.fastcgi.client import Response

from .clients import Browser, Load, params
from .pools import Pool
from .processes import PATIENCE, wait_until

Where = Union[Pool, str, tuple[str, int]]
APP = ("--app", "tests.system.apps:application")
#: Options for what page_of() shows.
METRICS = ("--metrics", "127.0.0.1:0")
_numbers = itertools.count(1)


def address_of(where: Where) -> Union[str, tuple[str, int]]:
    return str(where.socket) if isinstance(where, Pool) else where


def get(where: Where, path: str) -> str:
    """The body of an answer, which must be a 200."""
    response = client.request(address_of(where), params(path), timeout=PATIENCE)
    assert response.status == 200, (response.status, response.body)
    return response.body.decode()


def serving_pid(where: Where) -> int:
    """The worker that answers now."""
    return int(get(where, "/echo").split("pid=")[1])


def page_of(pool: Pool) -> Browser:
    """For its page for people and its metrics."""
    found = pool.wait_for_line(r"metrics: (127\.0\.0\.1:\d+)")
    return Browser(f"http://{found[1]}")


class Visit(threading.Thread):
    """One request in the background."""

    def __init__(self, where: Where, path: str) -> None:
        super().__init__()
        self._address = address_of(where)
        self._path = path
        self._response: Optional[Response] = None
        self._error: Optional[Exception] = None
        self.start()

    def run(self) -> None:
        try:
            self._response = client.request(self._address, params(self._path), timeout=PATIENCE)
        # Whatever it is, it is raised to whoever asks for the result.
        except Exception as error:
            self._error = error

    def body(self) -> str:
        """The answer's; raises what the request has raised."""
        self.join()
        if self._error is not None:
            raise self._error
        assert self._response is not None and self._response.status == 200, self._response
        return self._response.body.decode()

    def status(self) -> int:
        """The HTTP status of the answer."""
        self.join()
        assert self._response is not None, self._error
        return self._response.status

    def lost(self) -> bool:
        self.join()
        return self._error is not None


def busy_visit(pool: Pool, path: str) -> Visit:
    """A request that a worker has begun to answer, as its title says."""
    # A title of its own: that of the last request stays for a moment after the answer to it.
    mark = f"visit={next(_numbers)}"
    visit = Visit(pool, f"{path}{'&' if '?' in path else '?'}{mark}")
    wait_until(
        lambda: any(worker.title.endswith(mark) for worker in pool.workers("busy")),
        what="worker that is busy with the visit",
    )
    return visit


def kept_open_load(where: Path, path: str = "/echo?id={id}", threads: int = 4) -> Load:
    """Load over connections that stay open, one a thread, each used again and again.

    A server may close one while it is idle; then, as a web server does, a request of which nothing
    was answered is made again on a new connection. Closing in the middle of an answer is a loss.
    """
    kept = threading.local()

    def fetch(id: str) -> tuple[int, bytes]:
        for fresh in (False, True):
            sock: Optional[socket.socket] = getattr(kept, "sock", None)
            if fresh or sock is None:
                sock = kept.sock = client.connect(str(where), PATIENCE)
                fresh = True
            try:
                response = client.request(
                    sock, params(path.format(id=id)), keep_connection=True, timeout=PATIENCE
                )
                return response.status, response.body
            except client.IncompleteResponse as error:
                sock.close()
                kept.sock = None
                if fresh or error.stdout:
                    raise
            except (BrokenPipeError, ConnectionResetError):
                sock.close()
                kept.sock = None
                if fresh:
                    raise
        raise AssertionError("not reached")

    return Load(fetch, threads)

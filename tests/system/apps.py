"""A small WSGI application for tests that need no Trac: ``--app tests.system.apps:application``.

The path says what to do (see the functions), the query string gives the details.
"""

from __future__ import annotations

import gc
import hashlib
import os
import signal
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from .processes import PATIENCE, wait_until

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_hoard: list[bytearray] = []
_collected: list[list[object]] = []


def _echo(query: dict[str, str], environ: WSGIEnvironment) -> bytes:
    return f"id={query.get('id', '')} pid={os.getpid()}\n".encode()


def _sleep(query: dict[str, str], environ: WSGIEnvironment) -> bytes:
    time.sleep(float(query.get("seconds", "1")))
    return _echo(query, environ)


def _wait(query: dict[str, str], environ: WSGIEnvironment) -> bytes:
    """Until there is such a file."""
    wait_until(lambda: os.path.exists(query["file"]), 3 * PATIENCE, query["file"])
    return _echo(query, environ)


def _die(query: dict[str, str], environ: WSGIEnvironment) -> bytes:
    os.kill(os.getpid(), getattr(signal, query.get("signal", "SIGKILL")))
    return _echo(query, environ)


def _exit(query: dict[str, str], environ: WSGIEnvironment) -> bytes:
    os._exit(int(query.get("status", "1")))


def _raise(query: dict[str, str], environ: WSGIEnvironment) -> bytes:
    raise RuntimeError(query.get("message", "asked to"))


def _grow(query: dict[str, str], environ: WSGIEnvironment) -> bytes:
    """Keep so many MiB of private memory."""
    _hoard.append(bytearray(os.urandom(1 << 20) * int(query.get("mib", "1"))))
    return _echo(query, environ)


def _objects(query: dict[str, str], environ: WSGIEnvironment) -> bytes:
    """Keep so many more; how many objects a garbage collection looks at."""
    _collected.extend([] for _ in range(int(query.get("more", "0"))))
    return f"{len(gc.get_objects())}\n".encode()


def _large(query: dict[str, str], environ: WSGIEnvironment) -> bytes:
    return b"x" * int(query.get("bytes", "1048576"))


def _digest(query: dict[str, str], environ: WSGIEnvironment) -> bytes:
    """The request body's length and SHA-256."""
    body = environ["wsgi.input"].read()
    return f"{len(body)} {hashlib.sha256(body).hexdigest()}\n".encode()


def _record(query: dict[str, str], environ: WSGIEnvironment) -> bytes:
    """Add the id to the file that the variable RECORD names, then be slow enough to be killed."""
    with open(os.environ["RECORD"], "a") as file:
        file.write(f"{query['id']}\n")
    time.sleep(0.02)
    return _echo(query, environ)


def _variables(query: dict[str, str], environ: WSGIEnvironment) -> bytes:
    """Those of the process."""
    return "".join(f"{name}={os.environ[name]}\n" for name in sorted(os.environ)).encode()


def _identity(query: dict[str, str], environ: WSGIEnvironment) -> bytes:
    """Who serves: user, group, supplementary groups, umask, current directory."""
    mask = os.umask(0)
    os.umask(mask)
    groups = ",".join(map(str, sorted(os.getgroups())))
    where = f"umask={mask:o} cwd={os.getcwd()}"
    return f"uid={os.getuid()} gid={os.getgid()} groups={groups} {where}\n".encode()


PATHS = {
    "/": _echo,
    "/echo": _echo,
    "/sleep": _sleep,
    "/wait": _wait,
    "/die": _die,
    "/exit": _exit,
    "/raise": _raise,
    "/grow": _grow,
    "/large": _large,
    "/objects": _objects,
    "/digest": _digest,
    "/record": _record,
    "/variables": _variables,
    "/identity": _identity,
}


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    query = {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    action = PATHS.get(environ["PATH_INFO"])
    if action is None:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"no such action\n"]
    body = action(query, environ)
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]

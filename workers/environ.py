"""A request's parameters as a WSGI environ (PEP 3333, section "environ Variables")."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO, TextIO

# A CONTENT_LENGTH of more digits than this is beyond any disk, and Python refuses or takes
# quadratic time to convert very long numbers.
LENGTH_DIGITS = 18

# What PEP 3333 demands and a careless web server configuration leaves out. SERVER_PORT is absent
# here: its default follows from the scheme.
DEFAULTS: dict[str, object] = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "",
    "QUERY_STRING": "",
    "SERVER_NAME": "localhost",
    "SERVER_PROTOCOL": "HTTP/1.0",
    "SERVER_PORT": "",
}

# These may be absent but, unlike the paths and the query, never empty. nginx sends an empty
# SERVER_NAME for a server block without a name.
NEVER_EMPTY = ("REQUEST_METHOD", "SERVER_NAME", "SERVER_PROTOCOL")

# Keys that only we may set: what a visitor or a web server could put there would be believed.
RESERVED = ("wsgi.", "trac.")

# HTTP_PROXY is the header "Proxy", which HTTP libraries take for the proxy to use (httpoxy).
# nginx sends the other two beside CONTENT_TYPE and CONTENT_LENGTH, and PEP 3333 allows only those.
DROPPED = ("HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH")


class BadRequest(Exception):
    """The request cannot be given to the application; ``status`` as in ``400 Bad Request``.

    ``reason`` is for the visitor, ``detail`` for the log, where there is more to say.
    """

    def __init__(self, status: str, reason: str, detail: str = "") -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason
        self.detail = detail or reason

    @property
    def code(self) -> int:
        return int(self.status[:3])


class ErrorStream:
    """``wsgi.errors``: a text stream without a buffer in front of a function."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"wsgi.errors takes str, not {type(text).__name__}")
        self._report(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing is held back."""


def content_length(params: Mapping[str, str]) -> int | None:
    """The length of the body in bytes; None when the web server gave none.

    Stricter than int(), which takes signs, spaces, underscores and any script's digits: what two
    programs read differently is how one request is smuggled inside another.
    """
    text = params.get("CONTENT_LENGTH")
    if text is None:
        return None
    if text == "":
        return 0
    if not (text.isascii() and text.isdigit()):
        raise BadRequest("400 Bad Request", f"Content-Length is not a number: {text[:40]!r}")
    if len(text) > LENGTH_DIGITS:
        raise BadRequest("413 Content Too Large", f"Content-Length has {len(text)} digits")
    return int(text)


def make_environ(
    params: Mapping[str, str],
    body: BinaryIO,
    errors: TextIO | ErrorStream,
    base: Mapping[str, object],
) -> dict[str, object]:
    """A fresh environ. Where ``params`` and ``base`` (``wsgi.*``, ``trac.*``) differ, base wins."""
    environ = {**DEFAULTS, **params}
    # One search over the joined names is ten times cheaper than looking at each of them.
    if "." in "".join(params):
        for name in params:
            if name.startswith(RESERVED):
                del environ[name]
    for name in DROPPED:
        if name in environ:
            del environ[name]
    # nginx sends an empty one with each GET, and int(environ.get("CONTENT_LENGTH", 0)) fails on it.
    if environ.get("CONTENT_LENGTH") == "":
        del environ["CONTENT_LENGTH"]
    for name in NEVER_EMPTY:
        if not environ[name]:
            environ[name] = DEFAULTS[name]
    scheme = "https" if _is_https(params) else "http"
    if not environ["SERVER_PORT"]:
        environ["SERVER_PORT"] = "443" if scheme == "https" else "80"
    environ["wsgi.url_scheme"] = scheme
    environ.update(base)
    environ["wsgi.input"] = body
    environ["wsgi.errors"] = errors
    return environ


def _is_https(params: Mapping[str, str]) -> bool:
    """By what the web server itself says; a header such as X-Forwarded-Proto can be forged."""
    return (
        params.get("HTTPS", "").lower() in ("on", "1", "yes")
        or params.get("REQUEST_SCHEME", "").lower() == "https"
    )

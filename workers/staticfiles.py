"""The files of /chrome (styles, scripts, pictures), sent without the rest that Trac does for a request.
Imported only once Trac is.

For each of them Trac finds out who the visitor is, makes or reads a session and collects garbage, and needs
nothing of that.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from mimetypes import guess_type
from typing import TYPE_CHECKING, Any, Optional
from weakref import WeakKeyDictionary

from trac.env import env_cache, open_environment
from trac.mimeview.api import get_mimetype
from trac.util.datefmt import http_date, localtz
from trac.web.api import HTTP_STATUS, Request
from trac.web.chrome import Chrome
from trac.web.main import RequestDispatcher

from workers.wsgi import FILE_BLOCK, FileWrapper

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger("trac-spawn")

#: As in Trac's Chrome.match_request().
_ADDRESS = re.compile(r"/chrome/([^/]+)/+(.+)")


@dataclass(frozen=True)
class _Site:
    """What settings and plugins of an environment say about its files. Once they change, Trac makes
    another object of the environment."""

    #: What follows /chrome/, and the directory for it, in the order in which Trac looks.
    places: tuple[tuple[str, str], ...]
    #: trac.ini's [http-headers].
    headers: tuple[tuple[str, str], ...]

    def find(self, prefix: str, name: str) -> Optional[str]:
        """The file that Trac would send; None when there is none, or none that it may send."""
        for known, directory in self.places:
            if known == prefix:
                path = os.path.normpath(os.path.join(directory, name))
                if not path.startswith(os.path.join(directory, "")):
                    return None
                if os.path.isfile(path):
                    return path
        return None


class StaticFiles:
    """A WSGI application in front of Trac's, which gets whatever is not plainly a file to be sent:
    all errors, and everything of an environment where a plugin may have a say in it."""

    def __init__(self, trac: WSGIApplication) -> None:
        self._trac = trac
        self._sites: WeakKeyDictionary[Any, Optional[_Site]] = WeakKeyDictionary()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if "/chrome/" in environ["PATH_INFO"] and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            answer = self._answer(environ, start_response)
            if answer is not None:
                return answer
        return self._trac(environ, start_response)

    def _answer(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Optional[Iterable[bytes]]:
        query = environ["QUERY_STRING"]
        if "%" in query or not query.isascii():
            return None  # Trac refuses one that is not text
        env, path = _asked(environ)
        try:
            match = _ADDRESS.match(path.encode("latin-1").decode("utf-8"))
        except UnicodeDecodeError:
            return None
        site = self._site(env) if match else None
        file = site.find(match[1], match[2]) if match and site else None
        return _send(file, site.headers, environ, start_response) if file and site else None

    def _site(self, path: str) -> Optional[_Site]:
        """None for an environment whose files Trac itself has to send."""
        if path not in env_cache:
            return None  # nor does it have to exist
        try:
            env = open_environment(path, use_cache=True)  # looks whether trac.ini has changed
            if env not in self._sites:
                self._sites[env] = _examine(env)
            return self._sites[env]
        except Exception:  # also of plugins; Trac will meet it too, and show it
            log.debug("static files of %s are left to Trac", path, exc_info=True)
            return None


def _asked(environ: dict[str, Any]) -> tuple[str, str]:
    """The environment, as Trac's cache knows it, and the path in it."""
    path, parent = environ["PATH_INFO"], environ.get("trac.env_parent_dir")
    env = environ.get("trac.env_path")
    if env or not parent:
        return env or "", path
    name, _, rest = path.lstrip("/").partition("/")
    return os.path.join(parent, name), "/" + rest


def _examine(env: Any) -> Optional[_Site]:
    dispatcher, chrome = RequestDispatcher(env), Chrome(env)
    foreign = [component for component in _involved(dispatcher, chrome) if not _is_of_trac(component)]
    if foreign:
        names = ", ".join(sorted({type(component).__module__ for component in foreign}))
        log.info("%s: Trac itself sends static files, since plugins may want to know: %s", env.path, names)
    if foreign or dispatcher.use_xsendfile:
        return None
    places = [
        (prefix, os.path.normpath(directory))
        for provider in chrome.template_providers
        for prefix, directory in provider.get_htdocs_dirs() or ()
        if directory
    ]
    headers = [item for item in dispatcher.configurable_headers.options() if Request.is_valid_header(*item)]
    return _Site(tuple(places), tuple(headers))


def _involved(dispatcher: Any, chrome: Any) -> Iterator[Any]:
    """Who sees a request for a file: all filters, and the handlers that are asked before Chrome."""
    yield from dispatcher.filters
    # As Trac keeps them: of several with the same name, the last in the place of the first.
    for handler in {type(handler).__name__: handler for handler in dispatcher.handlers}.values():
        if handler is chrome:
            return
        yield handler


def _is_of_trac(component: Any) -> bool:
    return type(component).__module__.partition(".")[0] in ("trac", "tracopt")


def _send(
    path: str,
    more: tuple[tuple[str, str], ...],
    environ: dict[str, Any],
    start_response: Callable[..., Any],
) -> Optional[Iterable[bytes]]:
    """As Request.send_file() of Trac."""
    try:
        file = open(path, "rb")
    except OSError:
        return None
    status = os.fstat(file.fileno())
    changed = _date(status.st_mtime)
    if environ.get("HTTP_IF_MODIFIED_SINCE") == changed:
        file.close()
        start_response(f"304 {HTTP_STATUS[304]}", _completed([("Content-Length", "0")], more))
        return [b""]
    kind = get_mimetype(path) or guess_type(path)[0] or "application/octet-stream"
    headers = [
        ("Content-Type", kind),
        ("Content-Length", str(status.st_size)),
        ("Last-Modified", changed),
    ]
    start_response(f"200 {HTTP_STATUS[200]}", _completed(headers, more))
    if environ["REQUEST_METHOD"] == "GET" and status.st_size > FILE_BLOCK:
        return FileWrapper(file)
    with file:
        return [file.read() if environ["REQUEST_METHOD"] == "GET" else b""]


def _completed(
    headers: list[tuple[str, str]], more: tuple[tuple[str, str], ...]
) -> list[tuple[str, str]]:
    sent = [name.lower() for name, _ in headers]
    return headers + [item for item in more if item[0].lower() not in sent]


@lru_cache(maxsize=1024)
def _date(modified: float) -> str:
    text: str = http_date(datetime.fromtimestamp(modified, localtz))
    return text

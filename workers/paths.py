"""Which part of a URL is the application's own name and which the page in it: SCRIPT_NAME, PATH_INFO.

Web servers differ in how they split, and most of them hand on the path as they have resolved it:
slashes merged, "/A/../B" as "/B". REQUEST_URI has what the visitor asked for. Paths here are those
of PEP 3333: decoded once, a character a byte (latin-1).

To take REQUEST_URI at its word has a danger. A web server that protects /trac/secret does so by the
path as it has resolved it, and lets "/trac/secret/x/../../public" pass as "/trac/public", or by the
path that it has not decoded, and lets "/trac/secret%2Fx" pass. So where the two differ in the names
that such rules are made of, what the web server has decided on counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Optional
from urllib.parse import unquote

# RFC 9112, 3.2.2: a proxy is asked for "http://host/path", and some servers pass that on.
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_PATH_END = re.compile(r"[?#]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: What two may read differently.
_ODD = re.compile(r"[%#]|/[/.]")


def parse_script_name(given: str) -> str:
    """Where the application is, from "/trac" or, as in a URL, "/my%20trac"; "" from "/" and "".

    Raises ValueError.
    """
    try:
        name = unquote(given, errors="strict").rstrip("/")
        name.encode()  # what came as a byte by itself
    except UnicodeError:
        raise ValueError(f"{given!r} is not UTF-8") from None
    if _CONTROL.search(name):
        raise ValueError(f"{given!r} has a control character in it")
    if name and not name.startswith("/"):
        raise ValueError(f"{given!r} does not begin with '/'")
    if _PATH_END.search(given) or any(part in ("", ".", "..") for part in name.split("/")[1:]):
        raise ValueError(f"{given!r} is no plain path such as /trac or /projects/trac")
    return name


def requested_path(uri: str) -> Optional[str]:
    """The path in a REQUEST_URI as the visitor wrote it, without the query, decoded once.

    None for what has no path: "" and the "*" of OPTIONS.
    """
    path = _PATH_END.split(uri, 1)[0]
    origin = _ORIGIN.match(path)
    if origin:
        path = path[origin.end() :] or "/"
    return unquote(path, "latin-1") if path.startswith("/") else None


def split_at(params: Mapping[str, str], script_name: str, depth: int) -> Optional[tuple[str, str]]:
    """SCRIPT_NAME and PATH_INFO of a request to the application at ``script_name`` (latin-1).

    By REQUEST_URI; by what the web server has made of it where that is missing, is of another place
    (the web server has rewritten it) or must not be relied on. ``depth`` is how many names below
    ``script_name`` a web server may have rules for. None when the request is for another place.
    """
    path_info = params.get("PATH_INFO", "")
    whole = params.get("SCRIPT_NAME", "") + path_info
    uri = params.get("REQUEST_URI", "")
    if whole.startswith(f"{script_name}/") and uri.partition("?")[0] == whole and not _ODD.search(whole):
        return script_name, whole[len(script_name) :]  # nearly every request
    asked = _place(requested_path(uri), script_name, depth)
    decided = _place(whole, script_name, depth)
    if asked is None or decided is not None and _names(asked)[:depth] not in (
        _names(decided)[:depth],
        _names(path_info)[:depth],  # below a program that has a name of its own in the web server
    ):
        asked = decided
    if asked is None and (script_name or whole):
        return None
    return script_name, asked or ("" if script_name else "/")


def _place(path: Optional[str], script_name: str, depth: int) -> Optional[str]:
    """The part of ``path`` below ``script_name``; None when there is none to rely on."""
    if not path or _strays(path, script_name.count("/") + depth):
        return None
    return _below(path, script_name)


def spelled(params: Mapping[str, str], depth: int) -> Optional[str]:
    """PATH_INFO as the visitor wrote it; None to leave what the web server has made of it.

    Only the spelling may differ: another path is one that the web server has rewritten.
    """
    uri = params.get("REQUEST_URI", "")
    # Nothing else is ever lost: in all but a few requests this is the end of it.
    if not ("/." in uri or "//" in uri or "%2" in uri):
        return None
    script_name, path_info = params.get("SCRIPT_NAME", ""), params.get("PATH_INFO", "")
    path = requested_path(uri)
    if not path_info or path is None or _strays(path, script_name.count("/") + depth):
        return None
    below = _below(path, script_name)
    if below is None or _resolve(below) != _resolve(path_info):
        return None
    return below


def _below(path: str, script_name: str) -> Optional[str]:
    """What follows ``script_name`` in ``path``; None when it is not below it."""
    if script_name and path.startswith("//"):
        path = "/" + path.lstrip("/")  # as web servers do to find what a path belongs to
    if not path.startswith(script_name):
        return None
    below = path[len(script_name) :]
    return below if below[:1] in ("", "/") else None


def _strays(path: str, depth: int) -> bool:
    """Whether dot segments matter to the first ``depth`` names of a path."""
    if "/." not in path:
        return False
    return _names(path)[:depth] != _resolve(path)[0][:depth]


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


def _resolve(path: str) -> tuple[list[str], bool]:
    """The names in a path once its dot segments have been followed and its slashes merged, and
    whether a slash ends it (RFC 3986, 5.2.4)."""
    names: list[str] = []
    name = ""
    for name in path.split("/"):
        if name == "..":
            del names[-1:]
        elif name not in ("", "."):
            names.append(name)
    return names, name in ("", ".", "..")

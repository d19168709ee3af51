"""The parameters with which each web server asks for a page, as far as Trac looks at them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Dict
from urllib.parse import SplitResult, quote

Params = Dict[str, str]


def _common(site: SplitResult, path: str) -> Params:
    prefix = site.path.rstrip("/")
    https = site.scheme == "https"
    port = str(site.port or (443 if https else 80))
    return {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": site.hostname or "localhost",
        "SERVER_PORT": port,
        "SERVER_ADDR": "127.0.0.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "40000",
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": quote(prefix + path),
        "QUERY_STRING": "",
        "SCRIPT_NAME": prefix,
        "PATH_INFO": path,
        "HTTP_HOST": site.netloc.rpartition("@")[2],
        "HTTP_USER_AGENT": "trac-spawnctl doctor",
        "HTTP_ACCEPT": "*/*",
        **({"HTTPS": "on"} if https else {}),
    }


def lighttpd(site: SplitResult, path: str) -> Params:
    common = _common(site, path)
    return {
        **common,
        "REQUEST_SCHEME": site.scheme,
        "DOCUMENT_ROOT": "/var/www/html/",
        "SCRIPT_FILENAME": "/var/www/html" + common["SCRIPT_NAME"],
        "PATH_TRANSLATED": "/var/www/html" + path,
        "REDIRECT_STATUS": "200",
        "SERVER_SOFTWARE": "lighttpd",
    }


def nginx(site: SplitResult, path: str) -> Params:
    """With the fastcgi_split_path_info of its documentation."""
    return {
        **_common(site, path),
        "REQUEST_SCHEME": site.scheme,
        "CONTENT_TYPE": "",
        "CONTENT_LENGTH": "",
        "DOCUMENT_URI": site.path.rstrip("/") + path,
        "DOCUMENT_ROOT": "/usr/share/nginx/html",
        "REDIRECT_STATUS": "200",
        "SERVER_SOFTWARE": "nginx",
    }


def mod_fcgid(site: SplitResult, path: str) -> Params:
    return {
        **_common(site, path),
        "REQUEST_SCHEME": site.scheme,
        "CONTEXT_PREFIX": site.path.rstrip("/"),
        "SCRIPT_FILENAME": "/usr/lib/cgi-bin/trac.fcgi",
        "PATH_TRANSLATED": "/var/www/html" + path,
        "SERVER_SIGNATURE": "",
        "SERVER_SOFTWARE": "Apache",
    }


def mod_proxy_fcgi(site: SplitResult, path: str) -> Params:
    """With proxy-fcgi-pathinfo."""
    return {
        **mod_fcgid(site, path),
        "SCRIPT_FILENAME": "proxy:fcgi://localhost" + site.path.rstrip("/"),
    }


def haproxy(site: SplitResult, path: str) -> Params:
    """With a path-info expression that matches the prefix."""
    return {
        **_common(site, path),
        "DOCUMENT_ROOT": "/var/www/html",
        "SCRIPT_FILENAME": "/var/www/html" + site.path.rstrip("/"),
        "SERVER_SOFTWARE": "HAProxy",
    }


def caddy(site: SplitResult, path: str) -> Params:
    """With a split at the prefix."""
    return {
        **_common(site, path),
        "REQUEST_SCHEME": site.scheme,
        "AUTH_TYPE": "",
        "CONTENT_TYPE": "",
        "CONTENT_LENGTH": "0",
        "DOCUMENT_URI": site.path.rstrip("/"),
        "REMOTE_HOST": "127.0.0.1",
        "REMOTE_IDENT": "",
        "REMOTE_USER": "",
        "SERVER_SOFTWARE": "Caddy",
    }


GATEWAYS: Mapping[str, Callable[[SplitResult, str], Params]] = {
    "lighttpd": lighttpd,
    "nginx": nginx,
    "mod_fcgid": mod_fcgid,
    "mod_proxy_fcgi": mod_proxy_fcgi,
    "HAProxy": haproxy,
    "Caddy": caddy,
}

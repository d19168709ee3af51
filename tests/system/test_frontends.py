"""What each web server makes of awkward paths and of logins, and what trac-spawn makes of that.

Nothing here is typed in from a manual: each web server runs, gets each request byte by byte, and what
it hands on is recorded.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from workers.application import ApplicationSpec
from workers.environ import BadRequest

from .frontends import PASSWORD, USER, Frontends, ask
from .processes import Supervisor
from .webservers import WebServers

#: The path below /trac, and PATH_INFO as the visitor means it: decoded once, a character a byte.
PATHS = {
    "": "",
    "/": "/",
    "/wiki/WikiStart": "/wiki/WikiStart",
    "/wiki/A%2FB": "/wiki/A/B",
    "/wiki/A%252FB": "/wiki/A%2FB",
    "/wiki/A//B": "/wiki/A//B",
    "//wiki/A": "//wiki/A",
    "/wiki/A/": "/wiki/A/",
    "/wiki/A/../B": "/wiki/A/../B",
    "/wiki/A/./B": "/wiki/A/./B",
    "/wiki/A/%2e%2e/B": "/wiki/A/../B",
    "/wiki/A%2F..%2FB": "/wiki/A/../B",
    "/wiki/...": "/wiki/...",
    "/wiki/A+B": "/wiki/A+B",
    "/wiki/A%2BB": "/wiki/A+B",
    "/wiki/A%20B": "/wiki/A B",
    "/wiki/A%3Fb?c=%2F..//d": "/wiki/A?b",
    "/wiki/A%23b": "/wiki/A#b",
    "/wiki/A;b=c&d": "/wiki/A;b=c&d",
    "/wiki/100%25": "/wiki/100%",
    "/wiki/Caf%C3%A9": "/wiki/Caf\xc3\xa9",
    "/wiki/Caf\xc3\xa9": "/wiki/Caf\xc3\xa9",
    "/wiki/Caf%E9": "/wiki/Caf\xe9",
    "/%77iki/A": "/wiki/A",
    "/wiki/A?": "/wiki/A",
}
#: Targets that only one reading is safe of: that of the web server, if it has one.
EVASIVE = (
    "/trac/admin/../wiki/A", "/trac/admin%2F..%2Fwiki/A", "/trac/./wiki/A", "/x/../trac/wiki/A",
)  # fmt: skip
#: What Apache has by "AllowEncodedSlashes NoDecode": a page that there is not.
UNDECODED = ("/trac", "/admin%2F..%2Fwiki/A")
#: Web servers that resolve no dot segments: there is no safe reading.
LITERAL = ("haproxy", "caddy")
#: How the same place can be written otherwise; a web server may find nothing there.
PLACES = ("//trac/wiki/A", "/%74rac/wiki/A", "http://localhost/trac/wiki/A?q")
#: What web servers refuse by themselves, and with which status.
REFUSED = {
    ("haproxy", "/wiki/Caf\xc3\xa9"): 400,
    # Apache wants to be asked with AllowEncodedSlashes.
    ("apache_proxy", "/wiki/A%2FB"): 404,
    ("apache_proxy", "/wiki/A%2F..%2FB"): 404,
}
NAMES = (
    "lighttpd", "lighttpd_whole_site", "nginx", "nginx_split", "apache_proxy", "apache_proxy_path_info",
    "apache_fcgid", "haproxy", "caddy",
)  # fmt: skip
#: Those whose params are as the specification has them; the others need --script-name.
WELL_SPLIT = ("lighttpd", "nginx_split", "apache_fcgid", "haproxy", "caddy")


@pytest.fixture
def frontends(webservers: WebServers, supervisor: Supervisor, tmp_path: Path) -> Frontends:
    return Frontends(webservers, supervisor, tmp_path)


def place(params: dict[str, str], **spec: Any) -> tuple[str, str]:
    environ: dict[str, Any] = {"SCRIPT_NAME": "", "PATH_INFO": "", **params}
    ApplicationSpec(env="/srv/trac", **spec).rules().apply(environ)
    return environ["SCRIPT_NAME"], environ["PATH_INFO"]


@pytest.mark.parametrize("name", NAMES)
def test_paths(frontends: Frontends, name: str) -> None:
    server = getattr(frontends, name)()
    for path, page in PATHS.items():
        status, params = ask(server, f"/trac{path}".encode("latin-1"))
        if (name, path) in REFUSED:
            assert status == REFUSED[name, path]
            continue
        assert params, (path, status)
        assert place(params, script_name="/trac") == ("/trac", page), params
        if name in WELL_SPLIT:
            # mod_fcgid knows no request for the place itself.
            assert place(params) == ("/trac", page or params.get("PATH_INFO", "")), params
        if name == "lighttpd_whole_site":
            assert place(params, script_name="") == ("", "/trac" + page), params
    for target in PLACES:
        status, params = ask(server, target.encode())
        assert status >= 400 or place(params, script_name="/trac") == ("/trac", "/wiki/A"), params
    for target in EVASIVE:
        _, params = ask(server, target.encode())
        if name in LITERAL:
            with pytest.raises(BadRequest):
                place(params, script_name="/trac")
        elif params:
            assert place(params, script_name="/trac") in (("/trac", "/wiki/A"), UNDECODED), params


@dataclasses.dataclass(frozen=True)
class Login:
    """What a web server says of a visitor: REMOTE_USER where the password was checked, and where a
    visitor only claims a name; whether AUTH_TYPE is there, in both cases."""

    checked: str
    claimed: str
    type_when_checked: bool
    type_when_claimed: bool


UTF8 = USER.encode().decode("latin-1")
#: The reasons for the default of --trust-remote-user, in the manual.
LOGINS = {
    "lighttpd": Login(UTF8, "", True, False),
    "apache_proxy": Login(UTF8, "", True, False),
    "apache_fcgid": Login(UTF8, "", True, False),
    "caddy": Login(UTF8, "", False, False),
    "nginx": Login(UTF8, "admin", False, False),
    "haproxy": Login(UTF8, "admin", True, True),
}


@pytest.mark.parametrize("name", LOGINS)
def test_logins(frontends: Frontends, name: str) -> None:
    server = getattr(frontends, name)()
    assert ask(server, b"/trac/login")[0] == 401
    assert ask(server, b"/trac/login", f"{USER}:wrong")[0] == 401
    _, checked = ask(server, b"/trac/login", f"{USER}:{PASSWORD}")
    _, claimed = ask(server, b"/trac/wiki/A", "admin:wrong")
    assert checked and claimed
    assert LOGINS[name] == Login(
        checked["REMOTE_USER"],
        claimed.get("REMOTE_USER", ""),
        bool(checked.get("AUTH_TYPE")),
        bool(claimed.get("AUTH_TYPE")),
    )
    environ: dict[str, Any] = dict(checked)
    ApplicationSpec(env="/srv/trac").rules().apply(environ)
    assert environ["REMOTE_USER"] == USER

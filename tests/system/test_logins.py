"""Who is logged in: what web servers say of it, and what --trust-remote-user makes of that."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from .clients import Answer, Browser
from .pools import Spawner
from .processes import wait_until
from .webservers import WebServer, WebServers

#: As people have it: with Debian's fastcgi_params, which pass $remote_user on everywhere.
NGINX = """
include /etc/nginx/fastcgi_params;
fastcgi_param HTTP_HOST $host:$server_port;
location /trac {{
    fastcgi_pass unix:{socket};
}}
location = /trac/login {{
    auth_basic Trac;
    auth_basic_user_file {passwords};
    {more}
    fastcgi_pass unix:{socket};
}}
"""
#: nginx forgets all other parameters of the level above where there is one of this.
AUTH_TYPE = """
    include /etc/nginx/fastcgi_params;
    fastcgi_param HTTP_HOST $host:$server_port;
    fastcgi_param AUTH_TYPE Basic;
"""


def start(webservers: WebServers, socket: Path, more: str = "") -> WebServer:
    passwords = webservers.directory / "passwords"
    passwords.write_text("jo\xe9:{PLAIN}secret\n", encoding="utf-8")
    return webservers.nginx(NGINX.format(socket=socket, passwords=passwords, more=more))


def get(browser: Browser, page: str, credentials: str) -> Answer:
    word = base64.b64encode(credentials.encode()).decode()
    return browser.get(page, Authorization=f"Basic {word}")


def logged_in(answer: Answer) -> str:
    """The name that Trac shows of the visitor; nobody's is empty."""
    _, found, rest = answer.text.partition("logged in as <span class=\"trac-author-user\">")
    return rest.partition("<")[0] if found else ""


@pytest.mark.parametrize("options, more, works, is_open", [
    ((), "", True, True),
    (("--trust-remote-user", "auth-type"), "", False, False),
    (("--trust-remote-user", "auth-type"), AUTH_TYPE, True, False),
    (("--trust-remote-user", "never"), AUTH_TYPE, False, False),
], ids=["always", "auth-type", "auth-type said", "never"])  # fmt: skip
def test_nginx(
    spawn: Spawner,
    webservers: WebServers,
    own_env: Path,
    options: tuple[str, ...],
    more: str,
    works: bool,
    is_open: bool,
) -> None:
    log = own_env.parent / "access.log"
    more_options = ("--script-name", "/trac", "--access-log", log, "--access-format", "%u %r")
    pool = spawn("-n", 1, "--env", own_env, *more_options, *options)
    server = start(webservers, pool.socket, more)
    assert logged_in(get(server.browser("/trac"), "/about", "admin:wrong")) == ("admin" if is_open else "")
    wait_until(lambda: "/trac/about" in log.read_text(), what="line in the access log")
    assert ("admin" in log.read_text()) is is_open
    assert get(server.browser("/trac"), "/login", "jo\xe9:wrong").status == 401
    browser = server.browser("/trac")
    answer = get(browser, "/login", "jo\xe9:secret")
    if works:
        assert answer.status == 302
        # By the cookie from now on, without a password; and é is one letter.
        assert logged_in(browser.get("/about")) == "jo\xe9"
    else:
        assert "Authentication information not available" in answer.text

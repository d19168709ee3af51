"""Who can log in, and who need not."""

from __future__ import annotations

import base64
import ipaddress

from spawner.doctor import remedies
from spawner.doctor.finding import Findings, error, warning
from spawner.doctor.page import Page
from spawner.doctor.visit import MARK, Visit
from spawner.doctor.visitor import Reply, Visitor

#: What proxies and plugins call the name of a user who has been authenticated elsewhere.
FORGED_HEADERS = ("Remote-User", "X-Remote-User", "X-Forwarded-User")
#: A made-up name for each way in, to tell which of them was open.
BY_PASSWORD, BY_HEADER = f"{MARK}-basic", f"{MARK}-header"


def examine_logins(visit: Visit) -> Findings:
    """Nobody is logged in by it: the login is asked for without a name. Names are only tried on the
    first page, and without cookies: Trac would store a session that belongs to one."""
    yield from _bypass(visit)
    yield from _challenge(visit, visit.visitor.get(visit.path("/login")))


def _bypass(visit: Visit) -> Findings:
    stranger = Visitor(visit.origin, visit.visitor.timeout, distrust=visit.visitor.distrust)
    first = visit.path("") or "/"
    credentials = base64.b64encode(f"{BY_PASSWORD}:wrong".encode()).decode()
    if BY_PASSWORD in stranger.get(first, Authorization=f"Basic {credentials}").text:
        mend = visit.mend_all(remedies.BYPASS)
        mend += "\nor, where nobody logs in by the web server, trac-spawn with --trust-remote-user never"
        yield error(
            "login-bypass",
            f"{visit.url} lets in whoever says to be somebody: any name, with any password",
            "Trac believes REMOTE_USER, and the web server fills it from the header Authorization where "
            "it checks no password. Any visitor can be the administrator.",
            mend,
        )
    stranger.cookies.clear()
    if BY_HEADER in stranger.request("GET", first, {name: BY_HEADER for name in FORGED_HEADERS}).text:
        yield error(
            "login-forged",
            f"{visit.url} believes a header of the visitor ({', '.join(FORGED_HEADERS)}) who he is",
            "Any visitor can be the administrator.",
            "remove the header in the web server before it sets its own, or the plugin that reads it "
            "([trac] obey_remote_user_header in trac.ini)",
        )


def _challenge(visit: Visit, reply: Reply) -> Findings:
    if reply.status == 401 and reply.header("WWW-Authenticate"):
        if reply.header("WWW-Authenticate").lower().startswith("basic") and _in_the_clear(visit):
            yield warning(
                "login-in-the-clear",
                f"{visit.url}/login takes passwords without encryption",
                "Everybody on the way can read them.",
                "serve the site with https://, and send http:// there",
            )
        return
    page = Page(reply.text)
    if page.asks_password or 300 <= reply.status < 400 or reply.status == 404:
        return  # a form, another site that knows the users, or a Trac that nobody logs in to
    yield error(
        "login-no-challenge",
        f"{visit.url}/login does not ask for a password: status {reply.status}, {page.text[:120]}",
        "Nobody can log in.",
        visit.mend_all(remedies.LOGIN),
    )


def _in_the_clear(visit: Visit) -> bool:
    if visit.origin.scheme == "https":
        return False
    host = visit.origin.hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"

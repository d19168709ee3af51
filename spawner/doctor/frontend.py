"""The site as visitors see it, through the web server: the first page, then all that hangs on it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Optional, Union
from urllib.parse import urlsplit

from spawner.doctor import forms, logins, paths, remedies, transfers
from spawner.doctor.finding import Finding, Findings, advice, error, warning
from spawner.doctor.page import Page
from spawner.doctor.visit import Visit
from spawner.doctor.visitor import NoAnswer, Reply, Visitor

NOTHING = "Visitors do not see Trac at all."
#: When other pages come than are asked for, all else that goes wrong is a consequence.
LOST = frozenset(("front-not-passed", "front-path"))
CHECKS: Sequence[Callable[[Visit], Findings]] = (
    paths.examine_paths,
    forms.examine_forms,
    transfers.examine_transfers,
    logins.examine_logins,
)


def examine_frontend(url: str, timeout: float, places: Mapping[str, str]) -> Findings:
    """``url`` begins with http:// or https://. ``places`` are those of the site, for its remedies."""
    visitor = Visitor.of(url, timeout)
    arrived = _arrive(visitor, urlsplit(url).path.rstrip("/"), places)
    if visitor.distrust:
        yield _certificate(visitor)
    if isinstance(arrived, Finding):
        yield arrived
        return
    yield from _security(arrived)
    misled = _misled(arrived)
    if misled is not None:
        yield misled
        return
    for check in CHECKS:
        try:
            for finding in check(arrived):
                yield finding
                if finding.name in LOST:
                    return
        except NoAnswer as problem:
            yield error(
                "front-silent",
                f"{arrived.url}: a request was not answered: {problem}",
                "Visitors see an error of their browser.",
                "the error log of the web server says why it has given up",
            )


def _arrive(visitor: Visitor, prefix: str, places: Mapping[str, str]) -> Union[Visit, Finding]:
    """The first page of Trac, of the first project if it is a list of them; or why there is none."""
    url = visitor.url(prefix or "/")
    try:
        reply = visitor.get(prefix or "/")
        if reply.status in (301, 302, 303, 307, 308):
            target = urlsplit(reply.header("Location"))
            if target.netloc not in ("", visitor.origin.netloc) or target.scheme != visitor.origin.scheme:
                return _elsewhere(url, reply)
            reply = visitor.get(target.path + (f"?{target.query}" if target.query else ""))
    except NoAnswer as problem:
        return error(
            "front-unreachable",
            f"{url} cannot be reached: {problem}",
            NOTHING,
            "start the web server, and look at its port, its firewall and the host's name",
        )
    visit = Visit(visitor, prefix, reply, Page(reply.text), places)
    if reply.status >= 500 or reply.status == 404 and not visit.page.is_tracs:
        return _failed(visit, reply)
    if reply.status == 401:
        return advice(
            "front-closed",
            f"{url} asks for a password at once",
            "So the doctor has seen nothing of what lies behind.",
            "let it in from 127.0.0.1 without one for as long as it looks",
        )
    if visit.page.is_tracs:
        return visit
    return _first_project(visit) or error(
        "front-not-trac",
        f"{url} shows a page that is not of Trac",
        NOTHING,
        visit.mend_all(remedies.PASS_ON),
    )


def _elsewhere(url: str, reply: Reply) -> Finding:
    target = reply.header("Location")
    return advice(
        "front-moved",
        f"{url} sends its visitors to {target}",
        "The doctor looks at one site at a time, and that is another one.",
        f"trac-spawnctl doctor --url {target}",
    )


def _failed(visit: Visit, reply: Reply) -> Finding:
    what = f"{visit.url} is answered with status {reply.status}"
    if reply.status in (502, 503, 504):
        return error(
            "front-no-pool",
            f"{what}: the web server does not reach the pool",
            NOTHING,
            "the configuration of the web server must name the socket on which trac-spawn listens:\n"
            + visit.mend_all(remedies.SOCKET),
        )
    if reply.status == 404:
        return error(
            "front-not-passed",
            f"{what}, and it is not Trac's: the web server does not pass the request on",
            NOTHING,
            visit.mend_all(remedies.PASS_ON),
        )
    return error(
        "front-error",
        f"{what}: {visit.page.text[:200]}",
        NOTHING,
        "the logs of the web server and of trac-spawn, and log/trac.log in the environment, say why",
    )


def _first_project(visit: Visit) -> Optional[Visit]:
    """A directory of environments shows a list of links to them."""
    for link in visit.page.anchors:
        path = visit.on_site(link)
        if path is not None and re.fullmatch(re.escape(visit.prefix) + r"/[^/?]+", path):
            with contextlib.suppress(NoAnswer):
                project = visit.moved(path, visit.visitor.get(path))
                if project.page.is_tracs:
                    return project
    return None


def _misled(visit: Visit) -> Optional[Finding]:
    """Links that lead out of the site: the web server has told Trac another place."""
    wrong = [link for link in visit.page.own_links if not visit.below(urlsplit(link).path)]
    if not wrong:
        return None
    return error(
        "front-links",
        f"the links on {visit.url} lead to {wrong[0]}, and not below {visit.prefix or '/'}",
        "Every link is a page that is not found: SCRIPT_NAME is not what visitors see.",
        visit.mend_paths(),
    )


# -- HTTPS ---------------------------------------------------------------------------------------


def _certificate(visitor: Visitor) -> Finding:
    return warning(
        "front-certificate",
        f"the certificate of {visitor.origin.netloc} is not believed here: {visitor.distrust}",
        "Browsers warn their users, or refuse, unless they have been told of it.",
        f"certbot certonly -d {visitor.origin.hostname}, or the whole chain in the web server's file",
    )


def _security(visit: Visit) -> Findings:
    cookies = visit.first.headers.get_all("Set-Cookie") or []
    if visit.origin.scheme != "https" or not visit.page.is_tracs:
        return
    if any("secure" not in cookie.lower().replace(" ", "").split(";") for cookie in cookies):
        yield advice(
            "front-cookies",
            f"the cookies of {visit.url} may also be sent without encryption",
            "One click on an http:// link shows the login of a user to everybody on the way.",
            "in trac.ini:\n[trac]\nsecure_cookies = enabled",
        )

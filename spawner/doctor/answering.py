"""What a pool says to a web server: a sign of life, then a page, asked for as each of them does."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable
from typing import Any, Dict, List, Mapping, Optional
from urllib.parse import SplitResult, urlsplit

from spawner.addresses import Address
from spawner.asking import TIMEOUTS, fastcgi_address, knock, occupation
from spawner.doctor.account import current_account
from spawner.doctor.apart import Failed, apart
from spawner.doctor.finding import Finding, Findings, error
from spawner.doctor.gateways import GATEWAYS
from spawner.doctor.site import Site
from spawner.settings import Settings
from workers.fastcgi import client
from workers.fastcgi.records import RemoteProtocolError

#: What to do about a page that does not come.
SLOW = "; what a page waits for shows trac-spawn with --slow-after 5s, in its log"
#: With one of these found, no page comes.
SILENT = frozenset(("pool-silent", "pool-refuses", "pool-not-fastcgi", "pool-unreachable"))
#: How a connection ends that the pool has not let in.
CLOSED = frozenset(("RemoteProtocolError", "ConnectionResetError", "BrokenPipeError"))


def examine_answers(address: Address, pool: Settings, site: Site, url: Optional[str]) -> Findings:
    """``url``: as visitors know the site; without it no page is asked for, since Trac would take the
    first host name that it hears for its own."""
    silent = _sign_of_life(address, pool, site)
    if silent is not None:
        yield silent
    elif url is not None:
        yield from _pages(address, pool, site, urlsplit(url))


def _as_web_user(site: Site) -> Optional[Callable[[], None]]:
    """The pool may let in nobody but the web server (--allow-user): be it, when we can."""
    if os.geteuid() == 0 and site.web_user is not None:
        return site.web_user.become
    return None


def _sign_of_life(address: Address, pool: Settings, site: Site) -> Optional[Finding]:
    timeout = site.wish.timeout
    try:
        apart(lambda: knock(address, timeout), _as_web_user(site), timeout + 5)
    except Failed as failure:
        return _no_sign_of_life(address, pool, site, failure)
    return None


def _no_sign_of_life(
    address: Address, pool: Settings, site: Site, failure: Failed
) -> Optional[Finding]:
    running = site.running(pool)
    if failure.kind in [one.__name__ for one in TIMEOUTS]:
        busy = "" if running is None else f": {occupation(running)}"
        return error(
            "pool-silent",
            f"{address} takes connections and says nothing for {site.wish.timeout:g} seconds{busy}",
            "Visitors wait until the web server gives up: 504.",
            "trac-spawnctl status shows what each worker does; more workers are -n N, and "
            "--request-timeout 60s ends requests that hang",
        )
    if failure.kind in CLOSED and _admission(address, pool):
        return _refused(address, site)
    if failure.kind == RemoteProtocolError.__name__:
        return error(
            "pool-not-fastcgi",
            f"what listens on {address} does not speak FastCGI ({failure})",
            "The web server cannot understand it: every page is a 502 or 500.",
            f"see what it is with ss -lp | grep {address.path or address.port}; stop it, or choose "
            "another address for trac-spawn and the web server",
        )
    if failure.kind == "PermissionError":
        return None  # has been explained with the socket
    return error(
        "pool-unreachable",
        f"nobody answers at {address}: {failure}",
        "Every page is a 502 or 503.",
        "start trac-spawn there, or correct the address in the configuration of the web server",
    )


def _admission(address: Address, pool: Settings) -> bool:
    """Whether the pool picks those that it lets in."""
    return bool(pool.allow if address.port else pool.allow_user or pool.allow_group)


def _refused(address: Address, site: Site) -> Finding:
    user = current_account() if site.web_user is None else site.web_user
    if address.port:
        who, option, key = "this machine", f"--allow {address.host}", f"allow = {address.host}"
    else:
        who = f"the user {user.name}"
        option, key = f"--allow-user {user.name}", f"allow-user = {user.name}"
    return error(
        "pool-refuses",
        f"the pool on {address} does not let {who} in",
        "A web server there is disconnected at once: every page is a 502 or 503.",
        f"start trac-spawn with {option} as well ({key} in the file)",
    )


# -- pages ---------------------------------------------------------------------------------------


def _pages(address: Address, pool: Settings, site: Site, url: SplitResult) -> Findings:
    timeout = site.wish.timeout
    where = fastcgi_address(address)
    checked = None if pool.app is not None else url.path.rstrip("/")

    def ask() -> Dict[str, str]:
        return {
            name: outcome(where, params(url, "/"), checked, timeout) for name, params in GATEWAYS.items()
        }

    try:
        outcomes = apart(ask, _as_web_user(site), len(GATEWAYS) * timeout + 5)
    except Failed as failure:
        outcomes = {name: str(failure) for name in GATEWAYS}
    yield from judge(str(address), outcomes)


def outcome(where: client.Address, params: Mapping[str, str], prefix: Optional[str], timeout: float) -> str:
    """What is wrong with the answer, or "". ``prefix``: where the links of a page must lead."""
    try:
        response = client.request(where, params, timeout=timeout)
    except (OSError, RemoteProtocolError) as problem:
        return f"no answer: {problem}"
    if response.status == 0 or response.status >= 500:
        first = _first_words(response.body.decode("utf-8", "replace"))
        return f"status {response.status}: {first}" if first else f"status {response.status}"
    links = re.findall(rb'href="(/[^"]*)"', response.body)
    if prefix and links and not any(link.decode("latin-1").startswith(prefix + "/") for link in links):
        return f"links lead to {links[0].decode('latin-1')}, not below {prefix}"
    return ""


def _first_words(page: str) -> str:
    text = html.unescape(re.sub(r"(?s)<(script|style|head).*?</\1>|<[^>]*>", " ", page))
    return " ".join(text.split())[:200]


def judge(address: str, outcomes: Mapping[str, Any]) -> Findings:
    """One finding for each thing that went wrong, with those it went wrong for."""
    wrong: Dict[str, List[str]] = {}
    for name, what in outcomes.items():
        if what:
            wrong.setdefault(what, []).append(name)
    for what, names in wrong.items():
        who = "any web server" if len(names) == len(outcomes) else " and ".join(names)
        yield error(
            "pool-page",
            f"{address}: asked for a page in the way of {who}, the pool fails: {what}",
            "Visitors see an error, whatever the web server's configuration.",
            "the log of trac-spawn and of Trac (log/trac.log in the environment) have the traceback"
            + ("" if not what.startswith("no answer") else SLOW),
        )

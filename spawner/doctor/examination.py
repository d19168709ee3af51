"""The whole of it: from a command line to a diagnosis."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import List, Optional, Tuple
from urllib.parse import urlsplit

from spawner import asking, verbs
from spawner.addresses import Address
from spawner.controlpath import default_control_path
from spawner.doctor import answering, environment, frontend, interpreter, limits, sockets, wrapper
from spawner.doctor.account import account_of
from spawner.doctor.finding import Diagnosis, Finding, Findings, Severity, error, worst
from spawner.doctor.site import Site, Wish, environments, settings_of_master
from spawner.doctor.webservers import likely_user, running_web_servers
from spawner.settings import Settings
from spawner.snippets import source
from spawner.status import Status
from workers.errors import BootError

#: Each takes half a second; their mistakes are mostly the same.
MOST_ENVIRONMENTS = 16
#: With one of these found, the web server cannot have an answer.
OUT_OF_REACH = sockets.CLOSED | answering.SILENT | {"socket-private-tmp"}


@dataclass
class Examination:
    """Collects what the parts find; one that may not look is left out, with the reason."""

    findings: List[Finding] = field(default_factory=list)
    looked_at: List[str] = field(default_factory=list)
    left_out: List[str] = field(default_factory=list)

    def look_at(self, what: str, findings: Findings) -> Sequence[Finding]:
        """What is found, which is also kept."""
        found: List[Finding] = []
        try:
            found += findings
        except PermissionError as refused:
            self.left_out.append(f"{what}: {refused.strerror}: {refused.filename}; ask as root")
        except OSError as problem:
            # It has changed while we looked at it.
            self.left_out.append(f"{what}: {problem.strerror}: {problem.filename}")
        except BootError as problem:
            found.append(error("settings", str(problem), "The pool does not start.", "correct the option"))
        else:
            self.looked_at.append(what)
        self.findings += found
        return found

    def look_inside(self, pool: Settings, site: Site) -> None:
        """At what the pool serves."""
        what = f"{site.named(pool)}interpreter"
        found = self.look_at(what, interpreter.examine_interpreter(pool, site))
        if any(one.severity is Severity.ERROR for one in found):
            return  # without it no environment opens
        try:
            paths = environments(pool, MOST_ENVIRONMENTS + 1)
        except OSError as problem:
            why = f"{problem.filename}: {problem.strerror}"
            mend = "correct --env-parent-dir, or make the directory"
            self.findings.append(error("env-closed", why, "Visitors see no project.", mend))
            return
        if len(paths) > MOST_ENVIRONMENTS:
            self.left_out.append(f"all but the first {MOST_ENVIRONMENTS} environments")
        for path in paths[:MOST_ENVIRONMENTS]:
            self.look_at(path, environment.examine_environment(path, pool, site))

    def diagnosis(self) -> Diagnosis:
        # Two pools with the same mistake in common have one finding of it.
        ordered = sorted(dict.fromkeys(self.findings), key=lambda one: -one.severity)
        return {
            "findings": [
                {
                    "severity": str(one.severity),
                    "name": one.name,
                    "what": one.what,
                    "why": one.why,
                    "mend": one.mend,
                }
                for one in ordered
            ],
            "looked_at": self.looked_at,
            "left_out": self.left_out,
        }


def run(
    wish: Wish, control: Optional[str], file: Optional[str], options: Sequence[str]
) -> Tuple[Diagnosis, int]:
    """The diagnosis and the exit status. Raises BootError when there is nothing to examine."""
    if wish.url is not None:
        _check_url(wish.url)
    site = _site(wish, control, file, options)
    examination = examine(site)
    return examination.diagnosis(), worst(examination.findings)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no number for a port, or half an IPv6 address
        sound = False
    if not sound:
        raise BootError(f"--url: {url!r} is not of the form https://HOST[:PORT][/PLACE]", os.EX_USAGE)


# -- the site ------------------------------------------------------------------------------------


def _site(wish: Wish, control: Optional[str], file: Optional[str], options: Sequence[str]) -> Site:
    pools: Tuple[Settings, ...] = ()
    status: Optional[Status] = None
    told_by = "" if file is None else file
    if file is not None or options:
        configuration = source.read(file, options)
        pools = configuration.pools
        status = _status_of(control or _control_of(configuration.master), pools)
    else:
        try:
            path = asking.find_control(control)
            status = asking.ask(path, "status", {}, verbs.AT_ONCE)
            pools = settings_of_master(asking.ask(path, "config", {}, verbs.AT_ONCE)["settings"])
            told_by = f"the master at {path} (pid {status['master']['pid']})"
        except BootError as error:
            if wish.url is None and wish.wrapper is None:
                raise _nothing_known(error) from error
    servers = running_web_servers()
    given = wish.web_user
    return Site(
        wish,
        pools,
        status,
        likely_user(servers) if given is None else account_of(given),
        servers,
        told_by,
    )


def _control_of(master: Settings) -> Optional[str]:
    return os.environ.get("TRAC_SPAWN_CONTROL") or master.control or default_control_path(master)


def _status_of(path: Optional[str], pools: Iterable[Settings]) -> Optional[Status]:
    """Of the master whose settings these are, if it runs."""
    if path is None or not os.path.exists(path):
        return None
    try:
        status: Status = asking.ask(os.path.abspath(path), "status", {}, verbs.AT_ONCE)
    except BootError:
        return None
    told = {address["address"] for pool in status["pools"] for address in pool["addresses"]}
    wanted = {str(address) for pool in pools for address in pool.listeners()}
    return status if told & wanted else None


def _nothing_known(error: BootError) -> BootError:
    return BootError(
        f"{error}. Without a master, say what to look at: -f FILE, the options of trac-spawn behind "
        "--, --url URL or --wrapper FILE",
        error.exit_code,
    )


# -- looking -------------------------------------------------------------------------------------


def examine(site: Site) -> Examination:
    examination = Examination()
    if site.told_by:
        # Who has named neither may think of another master, or of options behind --.
        examination.looked_at.append(f"the settings of {site.told_by}")
    if site.web_user is None:
        examination.left_out.append("the rights of the web server: say its user with --web-user")
    for pool in site.pools:
        addresses = site.addresses(pool)
        if not addresses:
            examination.left_out.append(f"{site.named(pool)}the socket: the options name none")
        for address in addresses:
            _look_at_address(examination, address, pool, site)
        examination.look_at(f"{site.named(pool)}limits", limits.examine_limits(pool, site))
        if pool.app is None:
            examination.look_inside(pool, site)
    if site.wish.wrapper is not None:
        examination.look_at(site.wish.wrapper, wrapper.examine_wrapper(site.wish.wrapper, site))
    _look_through_the_front(examination, site)
    return examination


def _look_through_the_front(examination: Examination, site: Site) -> None:
    url = site.wish.url
    if url is None:
        examination.left_out.append("what visitors see: say the site's address with --url")
    elif site.pools and all(pool.app is not None for pool in site.pools):
        examination.left_out.append(f"{url}: only pages of Trac can be understood")
    else:
        found = frontend.examine_frontend(url, site.wish.timeout, site.places())
        examination.look_at(url, _with_cause(found, examination.findings))


def _with_cause(findings: Findings, known: Sequence[Finding]) -> Findings:
    """A web server that does not reach a pool may be right: then it is the pool that is to be mended."""
    cause = next((one for one in known if one.name in OUT_OF_REACH), None)
    for finding in findings:
        if finding.name == "front-no-pool" and cause is not None:
            mend = f"{cause.mend}\n({cause.name} above is the likely cause; then ask again)"
            finding = replace(finding, mend=mend)
        yield finding


def _look_at_address(examination: Examination, address: Address, pool: Settings, site: Site) -> None:
    if address.kind == "unix":
        found = examination.look_at(str(address), sockets.examine_socket(address.path, pool, site))
        if any(one.name in sockets.CLOSED for one in found):
            return
    elif address.kind == "abstract":
        examination.look_at(str(address), sockets.examine_abstract(address, pool, site))
    url = site.wish.url or pool.base_url
    if url is None and pool.app is None:
        examination.left_out.append(f"a page of {address}: say the site's address with --url")
    examination.look_at(f"answers of {address}", answering.examine_answers(address, pool, site, url))

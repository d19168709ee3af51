"""A pool's Unix sockets as files: there, of the right type, alive, and within the web server's reach."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from typing import Optional

from spawner.addresses import Address
from spawner.doctor.account import (
    READ,
    WRITE,
    Account,
    Obstacle,
    described,
    folders_above,
    obstacles,
)
from spawner.doctor.apart import Failed, apart
from spawner.doctor.finding import Finding, Findings, advice, error, warning
from spawner.doctor.site import Site
from spawner.doctor.webservers import cannot_see
from spawner.settings import Settings
from workers.fastcgi import client

UNREACHABLE = "Every page is a 502 or 503 while it is so."
#: With one of these found, there is no use in asking for an answer.
CLOSED = frozenset(
    ("socket-missing", "socket-no-socket", "socket-stale", "socket-denied", "socket-folder-closed")
)
FORGED = (
    "Whoever can connect to the socket can say to be any user: Trac believes the REMOTE_USER that "
    "it is told."
)


def examine_socket(path: str, pool: Settings, site: Site) -> Findings:
    """``path`` is absolute. Raises PermissionError when we ourselves may not look at it."""
    missing = _missing(path, site)
    if missing is not None:
        yield missing
        return
    found = os.stat(path)
    if not stat.S_ISSOCK(found.st_mode):
        yield error(
            "socket-no-socket",
            f"{path} is not a socket",
            f"A web server cannot connect to it. {UNREACHABLE}",
            f"move it away (mv {path} {path}.old), then start trac-spawn again",
        )
        return
    if _is_stale(path):
        yield error(
            "socket-stale",
            f"nobody listens on {path}: the socket was left behind by a process that is gone",
            UNREACHABLE,
            f"start trac-spawn with -s {path}; it replaces the socket by itself",
        )
        return
    yield from _reach(path, pool, site)
    yield from _exposure(path, found, pool, site)


def examine_abstract(address: Address, pool: Settings, site: Site) -> Findings:
    """It has neither owner nor mode."""
    if not (pool.allow_user or pool.allow_group):
        user = "www-data" if site.web_user is None else site.web_user.name
        yield warning(
            "socket-open",
            f"every user of this machine may connect to {address}",
            FORGED,
            f"start trac-spawn with --allow-user {user} (allow-user = {user} in the file)",
        )


def _missing(path: str, site: Site) -> Optional[Finding]:
    for folder in folders_above(path):
        if not _is_there(folder):
            mend = f"mkdir -p {folder}"
            if path.startswith("/run/"):
                mend = (
                    f"echo 'd {folder} 0755 root root' > /etc/tmpfiles.d/trac-spawn.conf && "
                    "systemd-tmpfiles --create (/run is empty after each start of the machine)"
                )
            what = f"there is no folder {folder}, in which the socket {path} should be"
            return error("socket-missing", what, UNREACHABLE, mend)
    if _is_there(path):
        return None
    told = [str(address) for pool in site.pools for address in site.addresses(pool)]
    listens = "" if site.status is None else f"; trac-spawn listens on {', '.join(told)}"
    return error(
        "socket-missing",
        f"there is no socket {path}{listens}",
        UNREACHABLE,
        f"start trac-spawn with -s {path}, or put the path on which it listens into the "
        "configuration of the web server",
    )


def _is_there(path: str) -> bool:
    """Raises PermissionError when we cannot know."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _is_stale(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a full queue is no reason to wait
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
    return False


# -- whom it lets in -----------------------------------------------------------------------------


def _reach(path: str, pool: Settings, site: Site) -> Findings:
    account = site.web_user
    if account is not None:
        yield from _denied(path, pool, site, account)
    server = cannot_see(path, site.web_servers)
    if server is not None:
        yield error(
            "socket-private-tmp",
            f"{server} does not see {path}: it lives with a {_first_folder(path)} of its own",
            f"systemd gives it one, with PrivateTmp=yes for example. {UNREACHABLE}",
            "listen outside of it: -s /run/trac/trac.sock, in a folder that "
            "/etc/tmpfiles.d/trac-spawn.conf makes with: d /run/trac 0755 root root",
        )


def _first_folder(path: str) -> str:
    return "/" + path.split("/")[1]


def _denied(path: str, pool: Settings, site: Site, account: Account) -> Iterator[Finding]:
    """As root it is tried, which knows of access lists and security modules too; the modes then only
    say why."""
    tried = os.geteuid() == 0
    if tried and _may_connect(path, account, site.wish.timeout):
        return
    blocked = obstacles(path, account, READ | WRITE)
    for obstacle in blocked:
        yield _explain(obstacle, path, pool, account)
    if tried and not blocked:
        yield error(
            "socket-denied",
            f"the user {account.name} cannot connect to {path}, though owner, group and mode allow it",
            f"Something else forbids it: SELinux, AppArmor or an access list. {UNREACHABLE}",
            f"look for the refusal with journalctl -k | grep -i denied, and at getfacl {path}",
        )


def _may_connect(path: str, account: Account, timeout: float) -> bool:
    try:
        apart(lambda: client.connect(path, timeout).close(), account.become, timeout + 5)
    except Failed as failure:
        return failure.kind != "PermissionError"
    return True


def _explain(obstacle: Obstacle, path: str, pool: Settings, account: Account) -> Finding:
    why = f"A web server that runs as {account.name} cannot connect. {UNREACHABLE}"
    if obstacle.is_folder:
        what = f"the user {account.name} may not enter {obstacle.path} ({described(obstacle.found)})"
        what += f", on the way to {path}"
        whose = account.part(obstacle.found)
        mend = f"chmod {whose}+x {obstacle.path}, or listen elsewhere, such as -s /run/trac/trac.sock"
        return error("socket-folder-closed", what, why, mend)
    mode = pool.socket_mode
    now = f"chmod ug+rw {path}"
    if obstacle.found.st_gid in account.groups:
        mend = f"-M {mode | 0o660:04o} (socket-mode = {mode | 0o660:04o} in the file)"
    else:
        now = f"chgrp {account.group} {path} && {now}"
        mend = f"-G {account.group} (socket-group = {account.group} in the file)"
        if mode & 0o060 != 0o060:
            mend += f" and -M {mode | 0o060:04o}"
    what = f"the user {account.name} may not connect to {path} ({described(obstacle.found)})"
    return error("socket-denied", what, why, f"{now}\nfor good, start trac-spawn with {mend}")


# -- whom else it lets in ------------------------------------------------------------------------


def _exposure(path: str, found: os.stat_result, pool: Settings, site: Site) -> Findings:
    group = "www-data" if site.web_user is None else site.web_user.group
    if stat.S_IMODE(found.st_mode) & 0o002 and not (pool.allow_user or pool.allow_group):
        yield warning(
            "socket-open",
            f"every user of this machine may connect to {path} ({described(found)})",
            FORGED,
            f"chgrp {group} {path} && chmod 0660 {path}\n"
            f"for good, start trac-spawn with -M 0660 and -G {group}",
        )
    for folder in folders_above(path):
        state = os.stat(folder)
        if not state.st_mode & 0o002:
            continue
        if not state.st_mode & stat.S_ISVTX:
            yield warning(
                "socket-folder-open",
                f"every user of this machine may replace what is in {folder} ({described(state)}), "
                f"and {path} with it",
                "A socket of somebody else's in its place is sent all requests, passwords among them.",
                f"chmod o-w {folder}",
            )
        elif folder == os.path.dirname(path):
            yield advice(
                "socket-in-tmp",
                f"{path} is in a folder where everybody may make files",
                "While trac-spawn does not run, any user can take the name and wait for requests; "
                "and a web server with PrivateTmp=yes has another such folder.",
                "listen in a folder of its own, such as -s /run/trac/trac.sock",
            )

"""A Trac environment: whether it opens, its plugins, database, log and address."""

from __future__ import annotations

import os
from typing import Optional
from urllib.parse import urlsplit

from spawner.doctor import filesystem, inside
from spawner.doctor.account import Account
from spawner.doctor.apart import Failed
from spawner.doctor.finding import Finding, Findings, advice, error, warning
from spawner.doctor.resident import as_worker
from spawner.doctor.site import Site, pool_user
from spawner.settings import Settings

BROKEN = "Trac does not start: visitors see an error on every page."


def examine_environment(path: str, pool: Settings, site: Site) -> Findings:
    """Raises PermissionError when we may not look as the user of the pool."""
    account = pool_user(pool)
    try:
        facts: inside.Facts = as_worker(pool, lambda: inside.facts(path))
    except Failed as failure:
        yield _unreadable(path, account, failure)
        return
    network = None if pool.chroot else filesystem.network_kind(facts["database_file"] or path)
    yield from judge_database(path, facts, network, account)
    yield from judge_log(path, facts, account)
    yield from judge_plugins(path, facts)
    url = site.wish.url
    if url is not None and pool.env_parent_dir is not None:
        url = None  # of the directory, or of one of its environments: nobody can tell
    yield from judge_base_url(path, pool.base_url or facts["base_url"], facts["sends_mail"], url)


def _unreadable(path: str, account: Account, failure: Failed) -> Finding:
    if failure.kind == "PermissionError" or "permission" in str(failure).lower():
        mend = f"chown -R {account.name}:{account.group} {path}"
    elif failure.kind == "FileNotFoundError":
        mend = f"correct the path in --env, or make one there: trac-admin {path} initenv"
    else:
        mend = f"mend what it says; trac-admin {path} permission list says the same until then"
    what = f"the user {account.name} cannot open the environment {path}: {failure}"
    return error("env-closed", what, BROKEN, mend)


# -- database ------------------------------------------------------------------------------------


def judge_database(path: str, facts: inside.Facts, network: Optional[str], account: Account) -> Findings:
    if facts["database_error"]:
        yield _database_fails(path, facts, account)
        return
    if facts["needs_upgrade"]:
        yield error(
            "env-upgrade",
            f"{path} is of an older Trac than {facts['trac']}, or of an older plugin",
            BROKEN,
            f"trac-admin {path} upgrade && trac-admin {path} wiki upgrade && trac-spawnctl reload",
        )
    mode = facts["journal_mode"]
    if mode is None:
        return
    if network is not None:
        fatal = mode == "wal"
        yield (error if fatal else warning)(
            "env-network",
            f"the SQLite database {facts['database_file']} is on a network file system ({network})",
            "Its journal (WAL) needs memory that all processes share, which there is not: it will be "
            "damaged." if fatal else "Locks are slow there, and with some servers they do not hold at all.",
            "move the environment to a local disk, or its database to PostgreSQL",
        )
    elif mode != "wal":
        yield advice(
            "env-journal",
            f"the SQLite database of {path} is in journal mode {mode}",
            "Readers wait for each writer; with WAL they do not.",
            _in_ini(path, f"database = {_with_wal(facts['database'])}"),
        )


def _database_fails(path: str, facts: inside.Facts, account: Account) -> Finding:
    problem, file = facts["database_error"], facts["database_file"]
    what = f"{path}: {problem}"
    if file is None:
        return error("env-database", what, BROKEN, f"correct [trac] database in {path}/conf/trac.ini")
    if "is locked" in problem:
        return error(
            "env-database",
            f"{what}: another process writes to {file}, and has not finished",
            "Whatever changes something waits, and then fails; with some locks every page does.",
            f"lslocks | grep {file}  # shows which: end it if it hangs",
        )
    folder = os.path.dirname(file)
    # A folder that is elsewhere may be one that others need as it is.
    if "permission" in problem and os.path.commonpath([path, folder]) == path != folder:
        mend = f"chown {account.name}:{account.group} {folder} {file} && chmod u+rwX {folder} {file}"
        return error("env-database", what, BROKEN, mend)
    mend = (
        f"[trac] database in {path}/conf/trac.ini must name a database that the user of the pool may "
        "write to, as well as the folder it is in"
    )
    return error("env-database", what, BROKEN, mend)


def _in_ini(path: str, line: str) -> str:
    return f"in {path}/conf/trac.ini:\n[trac]\n{line}"


def _with_wal(database: str) -> str:
    separator = "&" if "?" in database else "?"
    return f"{database}{separator}journal_mode=wal"


# -- log -----------------------------------------------------------------------------------------


def judge_log(path: str, facts: inside.Facts, account: Account) -> Findings:
    file = facts["log_file"]
    if file is None:
        return
    if not facts["log_writable"]:
        yield error(
            "env-log",
            f"the user {account.name} cannot write to {file}, the log of {path}",
            BROKEN,
            f"touch {file} && chown {account.name}:{account.group} {file} && chmod u+rw {file}",
        )
    elif not facts["log_makeable"]:
        yield advice(
            "env-log-folder",
            f"the user {account.name} can write to {file}, and not make it anew",
            "After logrotate has moved it, trac-spawn cannot open it again, unless logrotate makes it.",
            f"in the file for logrotate: create 0640 {account.name} {account.group}",
        )


# -- plugins and address -------------------------------------------------------------------------


def judge_plugins(path: str, facts: inside.Facts) -> Findings:
    for message in facts["plugins"]:
        yield warning(
            "plugin-broken",
            f"{path}: a plugin is not loaded: {message}",
            "Trac starts without it, and what it does is missing.",
            f"install what it lacks, mend it, or remove it from {path}/plugins; then trac-spawnctl reload",
        )


def judge_base_url(path: str, base_url: str, sends_mail: bool, url: Optional[str]) -> Findings:
    if not base_url:
        if sends_mail:
            yield warning(
                "base-url",
                f"{path} sends mail, and [trac] base_url is not set",
                "The links in its mails lead where the first visitor of a worker came in, be it an address "
                "that only works inside.",
                _in_ini(path, f"base_url = {url or 'https://example.org/trac'}"),
            )
        return
    if url is not None and not same_place(base_url, url):
        yield warning(
            "base-url",
            f"[trac] base_url of {path} is {base_url}, and visitors use {url}",
            "The links in mails and feeds lead to the former.",
            _in_ini(path, f"base_url = {url.rstrip('/')}"),
        )


def same_place(one: str, other: str) -> bool:
    """Whether two URLs differ in nothing but a slash at the end and a port that goes without saying."""

    def place(url: str) -> tuple[str, Optional[str], Optional[int], str]:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        return parts.scheme, parts.hostname, port, parts.path.rstrip("/")

    return place(one) == place(other)

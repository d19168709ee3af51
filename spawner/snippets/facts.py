"""What the templates are given: the settings of a pool and the wishes of whoever asks, as plain names."""

from __future__ import annotations

import grp
import os
import pwd
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple
from urllib.parse import urlsplit

from spawner import __version__
from spawner.addresses import Address
from spawner.setting import Scope
from spawner.settings import DEFAULT_POOL, SETTINGS, Settings
from spawner.snippets.kinds import Form, Kind
from spawner.snippets.plain import is_plain, refuse_unsafe
from spawner.snippets.programs import command
from spawner.snippets.services import service_facts
from spawner.snippets.source import Described
from workers.errors import BootError
from workers.rules import NEVER

#: They have the users in their own configuration.
_OWN_USERS = ("haproxy", "caddy")
#: Web servers give up after a minute or less where nothing else is said; a large report takes longer.
_ANSWER_TIME = 300
#: Where SuEXEC of Debian starts programs; forms that are about one there.
_WRAPPER = "/var/www/trac/trac.fcgi"
_WRAPPED = ("", "fcgid-suexec", "fastcgi-external")
#: To be sure that the worker, which says what was wrong, gives up before the web server does.
_MARGIN = 10


@dataclass(frozen=True)
class Wish:
    """The options of the command; the templates have their names."""

    form: str = ""
    mount: Optional[str] = None
    http: str = "80"
    server_name: Optional[str] = None
    login: Optional[str] = None
    deployed: Optional[str] = None
    xsendfile: bool = False
    wrapper: Optional[str] = None
    conf_dir: str = "/etc/trac-spawn"
    run_dir: str = "/run/trac-spawn"


def collect(kind: Kind, form: Form, wish: Wish, described: Described) -> Dict[str, Any]:
    """The names for the templates. Raises BootError (EX_USAGE) for what would not work."""
    _refuse_vain(kind, form, wish)
    pool = described.pool
    _refuse_contradictions(form, wish, pool)
    program = wish.wrapper or (_WRAPPER if form.name in _WRAPPED else command("trac.fcgi"))
    facts: Dict[str, Any] = {
        **vars(wish),
        **_of_the_pool(pool),
        **_of_the_site(kind, wish, pool),
        **_target(kind, form, described.addresses),
        "version": __version__,
        "form": form.name,
        "program": program,
        "folder": os.path.dirname(program),
        "command": command("trac.fcgi"),
    }
    _refuse_unsafe(facts)
    if kind.service:
        facts.update(service_facts(form, wish.conf_dir, wish.run_dir, described))
    return facts


def _of_the_pool(pool: Settings) -> Dict[str, Any]:
    return {
        "pool": pool.name,
        "id": _identifier(pool),
        "parent": pool.env_parent_dir is not None,
        "environment": pool.env or pool.env_parent_dir,
        "max_body": pool.max_body,
        "answer_time": _answer_time(pool),
        "workers": pool.workers,
        "user": pool.user,
        "group": pool.group or _group_of(pool.user),
        "variables": _variables(pool),
    }


def _of_the_site(kind: Kind, wish: Wish, pool: Settings) -> Dict[str, Any]:
    mount = _mount(wish, pool)
    status_path = _status_path(mount, pool)
    return {
        "mount": mount,
        "pattern": re.escape(mount),
        "where": mount or "/",
        "status_path": status_path,
        "status_pattern": re.escape(status_path or ""),
        "server_name": wish.server_name or _host(pool),
        "http_site": _site_address(wish, pool),
        "users": _users(kind, wish.login) if wish.login and kind.name in _OWN_USERS else [],
        "file_folders": _file_folders(pool) if wish.xsendfile else [],
    }


def _status_path(mount: str, pool: Settings) -> Optional[str]:
    """Where the pool shows what visitors request; None where they do not get to it."""
    path = pool.status_path
    return path if path is not None and path.startswith(mount + "/") else None


def _usage(message: str) -> BootError:
    return BootError(message, os.EX_USAGE)


def _refuse_vain(kind: Kind, form: Form, wish: Wish) -> None:
    """An option that changes nothing is a misunderstanding."""
    for name, value in vars(wish).items():
        if name != "form" and value != getattr(Wish, name) and name not in form.wishes:
            what = f"{kind.name}, form {form.name}," if form.name else kind.name
            raise _usage(f"--{name.replace('_', '-')} means nothing for {what}")


def _refuse_contradictions(form: Form, wish: Wish, pool: Settings) -> None:
    if wish.xsendfile and not wish.deployed:
        raise _usage(
            "--xsendfile is for attachments, and Trac sends its static files the same way: add --deployed"
        )
    if wish.login and pool.trust_remote_user == NEVER:
        raise _usage("--login: nobody is logged in by a pool with --trust-remote-user never")
    if form.name == "fcgid-suexec" and pool.user is None:
        raise _usage("SuEXEC needs to know the user of the pool: say it behind --, as in -- --user trac")


def _refuse_unsafe(facts: Dict[str, Any]) -> None:
    for name in ("environment", "login", "deployed"):
        refuse_unsafe(facts[name] or "")
    for value in facts["variables"].values():
        refuse_unsafe(value)
    # Not every place of every language takes quotes.
    for name in ("unix", "program", "user", "group", "server_name", "http", "status_path"):
        refuse_unsafe(facts[name] or "", quoted=False)


def _group_of(user: Optional[str]) -> Optional[str]:
    """The user's own group; where there is no such user yet, a group of the same name."""
    if user is None:
        return None
    try:
        account = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
        return grp.getgrgid(account.pw_gid).gr_name
    except KeyError:
        return user


def _identifier(pool: Settings) -> str:
    """A name for what is of this pool in the web server: several pools can share one."""
    name = re.sub("[^A-Za-z0-9]", "_", pool.name)
    return name if name == DEFAULT_POOL else f"{DEFAULT_POOL}_{name}"


# -- where the pool is ---------------------------------------------------------------------------


def _target(kind: Kind, form: Form, addresses: Iterable[Address]) -> Dict[str, Any]:
    """``unix`` is a path, or ``host`` and ``port`` are set; none of them for what is started."""
    known = [address for address in addresses if address.kind != "fd"]
    for address in known:
        if address.kind == "unix":
            return {"unix": address.path, "host": "", "port": 0, "shown": address.path}
    for address in known:
        if address.kind != "abstract" and address.port:
            host = _reachable(address)
            return {"unix": "", "host": host, "port": address.port, "shown": f"{host}:{address.port}"}
    if not form.elsewhere:
        what = "listens on an abstract socket, which web servers do not know" if known else "listens nowhere"
        raise _usage(
            f"the pool {what}: {kind.name} needs a path or a port, as in -- --socket /run/trac/trac.sock"
        )
    return {"unix": "", "host": "", "port": 0, "shown": ""}


def _reachable(address: Address) -> str:
    """What to connect to; an IPv6 address in brackets."""
    if address.kind == "inet6":
        return "[::1]" if address.host == "::" else f"[{address.host}]"
    return "127.0.0.1" if address.host == "0.0.0.0" else address.host


# -- where the site is ---------------------------------------------------------------------------


def _mount(wish: Wish, pool: Settings) -> str:
    """Where Trac is on its host: "/trac", or "" for the whole host."""
    given = wish.mount
    if given is None and pool.script_name is not None:
        given = pool.script_name
    elif given is None and pool.base_url:
        given = urlsplit(pool.base_url).path
    elif given is None:
        given = "/trac"
    mount = given.rstrip("/")
    if mount and not re.fullmatch("(/[A-Za-z0-9._~-]+)+", mount):
        raise _usage(f"--mount {given}: give a path of plain characters, such as /trac, or / for all of it")
    return mount


def _host(pool: Settings) -> str:
    return (urlsplit(pool.base_url or "").hostname or "") or socket.gethostname()


def _site_address(wish: Wish, pool: Settings) -> str:
    """As Caddy takes it. For a bare name it gets a certificate and serves HTTPS."""
    if wish.http == Wish.http:
        return wish.server_name or _host(pool)
    return f"http://{wish.server_name or ''}:{wish.http.rpartition(':')[2]}"


def _users(kind: Kind, file: str) -> List[Tuple[str, str]]:
    """Names and hashed passwords, for servers that have them in their own configuration."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise _usage(f"--login {file}: {getattr(error, 'strerror', error)}") from None
    pairs = [line.split(":")[:2] for line in lines if ":" in line and not line.startswith("#")]
    for name, password in pairs:
        if not is_plain(name) or not re.fullmatch(r"\$2[aby]\$[0-9A-Za-z./$]+", password):
            raise _usage(
                f"--login {file}: {kind.name} cannot check {name!r}: make it with htpasswd -B"
            )
    return [(name, password) for name, password in pairs]


def _file_folders(pool: Settings) -> List[str]:
    """Where the attachments are; * stands for the name of an environment."""
    if pool.env is not None:
        return [f"{os.path.abspath(pool.env)}/files/attachments"]
    if pool.env_parent_dir is not None:
        return [f"{os.path.abspath(pool.env_parent_dir)}/*/files/attachments"]
    return []


# -- what is started -----------------------------------------------------------------------------


def _variables(pool: Settings) -> Dict[str, str]:
    """The environment of a trac.fcgi that serves as this pool does."""
    found: Dict[str, str] = {}
    for setting in SETTINGS:
        value = getattr(pool, setting.name)
        given = setting.name in pool.sources and setting.scope in (Scope.POOL, Scope.SINGLE_POOL)
        if given and setting.is_set(value) and setting.name not in _OF_THE_WEB_SERVER:
            found[(setting.variables_of_trac or setting.variables)[0]] = setting.written(value)
    return {**found, **pool.environment}


#: Where to listen, as whom and with how many is said to the web server.
_OF_THE_WEB_SERVER = (
    "socket", "address", "port", "listen", "backlog", "socket_mode", "socket_user", "socket_group",
    "workers", "user", "group", "chroot", "chdir", "umask",
)  # fmt: skip


def _answer_time(pool: Settings) -> int:
    """How long the web server is to wait for an answer, in seconds."""
    if not pool.request_timeout:
        return _ANSWER_TIME
    return int(pool.request_timeout + pool.kill_after) + _MARGIN

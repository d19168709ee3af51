"""A program that Apache's suexec shall start, by the rules of suexec's "security model".

suexec refuses with no more than "Premature end of script headers" in Apache's log, and one line in
its own; so each rule is looked at here.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Iterator, Optional, Tuple

from spawner.doctor.account import (
    ENTER,
    READ,
    Account,
    account_of,
    described,
    group_name,
    obstacles,
    user_name,
)
from spawner.doctor.finding import Finding, Findings, error
from spawner.doctor.site import Site

#: Where Debian's apache2-suexec-custom has its first line, for each user of Apache's.
CUSTOM = "/etc/apache2/suexec"
#: As it is compiled in on Debian and Red Hat.
USUAL_DOCROOT = "/var/www"
#: Debian's AP_UID_MIN and AP_GID_MIN.
LEAST_ID = 100
WHY = "suexec does not start it, and visitors see status 500; /var/log/apache2/suexec.log has a line of it."
#: One of these must be in the wrapper's own text.
VARIABLES = ("TRAC_ENV", "TRAC_SPAWN_", "--env", "-f")


@dataclass(frozen=True)
class Wrapper:
    """``found`` and ``folder`` are the states of the file, not of what a link points to, and of the
    folder; ``text`` is empty when we may not read it, or it is no script."""

    path: str
    found: os.stat_result
    folder: os.stat_result
    docroot: str
    text: str = ""


def examine_wrapper(path: str, site: Site) -> Findings:
    """Raises PermissionError when we may not look, and BootError for a user that there is not."""
    path = os.path.abspath(path)
    if not os.path.lexists(path):
        mend = "put the wrapper there, or say with --wrapper where it is"
        yield error("wrapper-missing", f"there is no {path}", WHY, mend)
        return
    folder = os.stat(os.path.dirname(path))
    wrapper = Wrapper(path, os.lstat(path), folder, _docroot(site), _text(path))
    target = _target(site)
    if target is None:
        target = account_of(user_name(folder.st_uid), group_name(folder.st_gid))
    yield from judge_wrapper(wrapper, target)
    for obstacle in obstacles(path, target, READ | ENTER):
        if obstacle.is_folder:
            yield _denied(
                f"the user {target.name} may not enter {obstacle.path} ({described(obstacle.found)})",
                f"chmod {target.part(obstacle.found)}+x {obstacle.path}",
                "wrapper-closed",
            )


def _target(site: Site) -> Optional[Account]:
    """Whom SuexecUserGroup names, as far as anybody has said it here."""
    if site.wish.wrapper_user is not None:
        user, _, group = site.wish.wrapper_user.partition(":")
        return account_of(user, group or None)
    named = [pool for pool in site.pools if pool.user is not None]
    return account_of(str(named[0].user), named[0].group) if named else None


def _docroot(site: Site) -> str:
    if site.wish.docroot is not None:
        return site.wish.docroot
    user = site.web_user.name if site.web_user is not None else "www-data"
    try:
        with open(os.path.join(CUSTOM, user), encoding="utf-8") as file:
            return file.readline().strip() or USUAL_DOCROOT
    except OSError:
        return USUAL_DOCROOT


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            start = file.read(64 << 10)
    except OSError:
        return ""
    return start.decode("utf-8", "replace") if start.startswith(b"#!") else ""


def _denied(what: str, mend: str, name: str) -> Finding:
    return error(name, what, WHY, mend)


# -- the rules -----------------------------------------------------------------------------------


def judge_wrapper(wrapper: Wrapper, target: Account) -> Findings:
    path, folder = wrapper.path, os.path.dirname(wrapper.path)
    if not stat.S_ISREG(wrapper.found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(wrapper.found.st_mode) else "no ordinary file"
        mend = f"cp --remove-destination $(readlink -f {path}) {path}"
        yield _denied(f"{path} is {kind}", mend, "wrapper-kind")
        return
    if not f"{os.path.realpath(folder)}/".startswith(f"{os.path.realpath(wrapper.docroot).rstrip('/')}/"):
        yield _denied(
            f"{path} is not below {wrapper.docroot}, which is suexec's document root",
            f"move it below {wrapper.docroot}; with apache2-suexec-custom, the first line of "
            f"{CUSTOM}/www-data can name another one",
            "wrapper-docroot",
        )
    if target.uid < LEAST_ID or target.gid < LEAST_ID:
        yield _denied(
            f"suexec runs nothing as {target.name}:{target.group} ({target.uid}:{target.gid}), whose "
            f"number is below {LEAST_ID}",
            "SuexecUserGroup must name an ordinary user, made with: adduser --system --group trac",
            "wrapper-user",
        )
    yield from _owners(wrapper, target)
    yield from _modes(wrapper)
    yield from _contents(wrapper)


def _owners(wrapper: Wrapper, target: Account) -> Findings:
    owner = f"{target.name}:{target.group}"
    mends = {"folder": _own_folder(wrapper, target), "file": f"chown {owner} {wrapper.path}"}
    for kind, path, found in _both(wrapper):
        if (found.st_uid, found.st_gid) != (target.uid, target.gid):
            yield _denied(
                f"{path} belongs to {user_name(found.st_uid)}:{group_name(found.st_gid)}, and not to "
                f"{owner}, whom suexec starts it as",
                mends[kind],
                "wrapper-owner",
            )


def _both(wrapper: Wrapper) -> Iterator[Tuple[str, str, os.stat_result]]:
    yield "folder", os.path.dirname(wrapper.path), wrapper.folder
    yield "file", wrapper.path, wrapper.found


def _own_folder(wrapper: Wrapper, target: Account) -> str:
    """Not a chown of the folder that it is in: that may be one of the system."""
    folder = os.path.join(wrapper.docroot, target.name)
    return (
        f"install -d -o {target.name} -g {target.group} -m 755 {folder} && mv {wrapper.path} {folder}/, "
        "and the new place in Apache's configuration"
    )


def _modes(wrapper: Wrapper) -> Findings:
    for _, path, found in _both(wrapper):
        if found.st_mode & 0o022:
            yield _denied(
                f"others than its owner may write to {path} ({described(found)})",
                f"chmod go-w {path}",
                "wrapper-writable",
            )
    mode = wrapper.found.st_mode
    if mode & (stat.S_ISUID | stat.S_ISGID):
        yield _denied(
            f"{wrapper.path} is setuid or setgid ({described(wrapper.found)})",
            f"chmod ug-s {wrapper.path}",
            "wrapper-setuid",
        )
    if not mode & stat.S_IXUSR:
        yield _denied(
            f"{wrapper.path} is not executable for its owner ({described(wrapper.found)})",
            f"chmod u+x {wrapper.path}",
            "wrapper-mode",
        )


def _contents(wrapper: Wrapper) -> Findings:
    if not wrapper.text:
        return
    first = wrapper.text.split("\n", 1)[0]
    interpreter = first[2:].strip(" \t").split(" ")[0]
    if not os.path.exists(interpreter):
        yield _denied(
            f"{wrapper.path} begins with {first!r}, and there is no such program",
            "name one that there is; a line that ends as on Windows is mended by: "
            f"sed -i 's/\\r$//' {wrapper.path}",
            "wrapper-interpreter",
        )
    if not any(word in wrapper.text for word in VARIABLES):
        yield _denied(
            f"{wrapper.path} does not say which environment to serve, and suexec hands no variable of "
            "Apache's on",
            "#!/bin/sh\nTRAC_ENV=/srv/trac/project\nexport TRAC_ENV\nexec /path/to/venv/bin/trac.fcgi",
            "wrapper-environment",
        )

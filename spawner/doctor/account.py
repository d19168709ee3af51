"""A user as the kernel sees one: a number and groups. Who may pass a file's mode, and who not."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import List, Optional

from spawner import privileges

READ, WRITE, ENTER = 4, 2, 1
Stat = Callable[[str], os.stat_result]


@dataclass(frozen=True)
class Account:
    name: str
    uid: int
    gid: int
    groups: frozenset[int]

    @property
    def group(self) -> str:
        return group_name(self.gid)

    def may(self, wanted: int, found: os.stat_result) -> bool:
        """By owner, group and mode alone: a list of access (acl(5)) may say otherwise."""
        if self.uid == 0:
            return True
        mode = stat.S_IMODE(found.st_mode) >> {"u": 6, "g": 3, "o": 0}[self.part(found)]
        return mode & wanted == wanted

    def part(self, found: os.stat_result) -> str:
        """Whose rights count, as chmod(1) calls them: u, g or o."""
        if found.st_uid == self.uid:
            return "u"
        return "g" if found.st_gid in self.groups else "o"

    def become(self) -> None:
        """For good, in a child of root's. Raises BootError."""
        identity = privileges.Identity(
            self.uid, self.gid, tuple(sorted(self.groups)), self.name, "/"
        )
        privileges.drop(identity, None, None, None)


def account_of(user: str, group: Optional[str] = None) -> Account:
    """By name or number. Raises BootError EX_NOUSER."""
    found = privileges.resolve(user, group)
    assert found.uid is not None and found.gid is not None
    name = found.user or user
    return Account(name, found.uid, found.gid, frozenset(found.groups))


def current_account() -> Account:
    uid, gid = os.geteuid(), os.getegid()
    return Account(user_name(uid), uid, gid, frozenset((gid, *os.getgroups())))


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def described(found: os.stat_result) -> str:
    """As in "trac:trac, mode 0660"."""
    mode = stat.S_IMODE(found.st_mode)
    return f"{user_name(found.st_uid)}:{group_name(found.st_gid)}, mode {mode:04o}"


@dataclass(frozen=True)
class Obstacle:
    """Something on the way to ``path`` that keeps a user out."""

    path: str
    found: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.found.st_mode)


def folders_above(path: str) -> List[str]:
    """From "/" down to the folder that ``path``, absolute, is in."""
    above = [os.path.dirname(path)]
    while above[-1] != os.path.dirname(above[-1]):
        above.append(os.path.dirname(above[-1]))
    return above[::-1]


def obstacles(path: str, account: Account, wanted: int, look: Stat = os.stat) -> List[Obstacle]:
    """What keeps ``account`` from ``path``: folders that it may not enter, then the file itself.
    Raises OSError when it is not there, or may not be looked at by ourselves."""
    steps = [(folder, ENTER) for folder in folders_above(path)] + [(path, wanted)]
    return [
        Obstacle(step, found)
        for step, right in steps
        for found in [look(step)]
        if not account.may(right, found)
    ]

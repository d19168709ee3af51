"""Names and numbers to identities, and what needs root. The user data base is the real one."""

from __future__ import annotations

import grp
import os
import pwd

import pytest

from spawner.privileges import Identity, check_root_only, resolve
from workers.errors import BootError

#: No account has it: the highest number that is not (uid_t)-1.
NOBODYS = str(2**32 - 2)


def test_nothing_asked_is_no_change() -> None:
    assert resolve(None, None) == Identity()


@pytest.mark.parametrize("entry", [pwd.getpwuid(0), *pwd.getpwall()[1:4]], ids=lambda e: e.pw_name)
def test_a_user_by_name_or_number(entry: pwd.struct_passwd) -> None:
    groups = tuple(sorted(set(os.getgrouplist(entry.pw_name, entry.pw_gid))))
    identity = Identity(entry.pw_uid, entry.pw_gid, groups, entry.pw_name, entry.pw_dir)
    assert resolve(entry.pw_name, None) == identity
    assert resolve(str(entry.pw_uid), None) == identity


def test_a_group_replaces_the_main_group_of_the_user() -> None:
    group = grp.getgrall()[-1]
    identity = resolve("root", group.gr_name)
    assert identity.gid == group.gr_gid
    assert group.gr_gid in identity.groups
    assert resolve("root", str(group.gr_gid)) == identity


def test_a_group_alone() -> None:
    group = grp.getgrall()[-1]
    assert resolve(None, group.gr_name) == Identity(None, group.gr_gid, (group.gr_gid,))


def test_a_number_without_an_account_needs_a_group() -> None:
    assert resolve(NOBODYS, "12345") == Identity(int(NOBODYS), 12345, (12345,))
    with pytest.raises(BootError, match="--user: nobody has the number .*--group") as caught:
        resolve(NOBODYS, None)
    assert caught.value.exit_code == os.EX_NOUSER


@pytest.mark.parametrize("name", ["no-such-name", "", "-1", str(2**32 - 1), "٣"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(BootError, match="--user: there is no user") as caught:
        resolve(name, None)
    assert caught.value.exit_code == os.EX_NOUSER
    with pytest.raises(BootError, match="--group: there is no group") as caught:
        resolve(None, name)
    assert caught.value.exit_code == os.EX_NOUSER


def test_what_was_not_given_needs_no_root() -> None:
    check_root_only({"user": None, "group": None, "chroot": None, "socket_user": None})
    check_root_only({"user": str(os.geteuid()), "group": str(os.getegid())})

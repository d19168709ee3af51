"""Who a worker is and what it may do: user, groups, chroot, umask, resource limits."""

from __future__ import annotations

import grp
import os
import pwd
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn, Optional

from spawner.values import UNLIMITED
from workers import prctl
from workers.errors import BootError


@dataclass(frozen=True)
class Identity:
    """What to become; ``uid`` or ``gid`` None: stay what we are. ``groups`` includes ``gid``."""

    uid: Optional[int] = None
    gid: Optional[int] = None
    groups: tuple[int, ...] = ()
    user: Optional[str] = None
    home: Optional[str] = None


def resolve(user: str | None, group: str | None) -> Identity:
    """Names or numbers to an Identity; a name made of digits is tried as a name first, as chown
    does. Raises BootError EX_NOUSER. Call it before chroot, which hides the user data base."""
    gid = None if group is None else find_group(group, "--group")
    if user is None:
        return Identity(None, gid, () if gid is None else (gid,))
    entry = _passwd_entry(user)
    if entry is None:
        uid = _number(user)
        if uid is None:
            raise BootError(f"--user: there is no user {user!r}", os.EX_NOUSER)
        if gid is None:
            raise BootError(
                f"--user: nobody has the number {uid}, so its group is unknown; give --group too",
                os.EX_NOUSER,
            )
        return Identity(uid, gid, (gid,))
    main = entry.pw_gid if gid is None else gid
    groups = tuple(sorted(set(os.getgrouplist(entry.pw_name, main))))
    return Identity(entry.pw_uid, main, groups, entry.pw_name, entry.pw_dir)


def find_user(user: str, option: str) -> int:
    """Raises BootError EX_NOUSER, naming ``option``."""
    entry = _passwd_entry(user)
    uid = _number(user) if entry is None else entry.pw_uid
    if uid is None:
        raise BootError(f"{option}: there is no user {user!r}", os.EX_NOUSER)
    return uid


def find_group(group: str, option: str) -> int:
    """Raises BootError EX_NOUSER, naming ``option``."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        gid = _number(group)
    if gid is None:
        raise BootError(f"{option}: there is no group {group!r}", os.EX_NOUSER)
    return gid


def _passwd_entry(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        pass
    uid = _number(user)
    try:
        return None if uid is None else pwd.getpwuid(uid)
    except KeyError:
        return None


def _number(text: str) -> int | None:
    # 2**32 - 1 is (uid_t)-1, which the system calls read as "leave it".
    if text.isascii() and text.isdigit() and int(text) < 2**32 - 1:
        return int(text)
    return None


def check_root_only(options: Mapping[str, object]) -> None:
    """Refuse, as anybody but root, the options that need root; None means not given.

    Keys are option names, with dashes or underscores. What asks for no change is fine: our own
    user or group, and a --socket-group that we are a member of. Raises BootError EX_NOPERM.
    """
    if os.geteuid() == 0:
        return
    given = {
        name.replace("_", "-"): str(value)
        for name, value in options.items()
        if value is not None and value != ""
    }
    if "chroot" in given:
        _root_only("chroot")
    for name in ("user", "socket-user"):
        if name in given and find_user(given[name], f"--{name}") != os.geteuid():
            _root_only(name)
    if "group" in given and find_group(given["group"], "--group") != os.getegid():
        _root_only("group")
    if "socket-group" in given:
        if find_group(given["socket-group"], "--socket-group") not in _own_groups():
            _root_only("socket-group")


def _root_only(name: str) -> NoReturn:
    raise BootError(
        f"--{name}: only root may do this; start as root or leave the option out", os.EX_NOPERM
    )


def _own_groups() -> set[int]:
    return {os.getegid(), *os.getgroups()}


def set_rlimits(files: int | None, core: int | None) -> None:
    """``files``: open files; ``core``: bytes of a core file, UNLIMITED for no limit; None leaves a
    limit alone. The hard limit only ever rises, so a later, larger value is not shut out.
    Raises BootError."""
    if files is not None:
        _set_rlimit("--rlimit-files", resource.RLIMIT_NOFILE, files)
    if core is not None:
        size = resource.RLIM_INFINITY if core == UNLIMITED else core
        _set_rlimit("--rlimit-core", resource.RLIMIT_CORE, size)


def _set_rlimit(option: str, which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    try:
        resource.setrlimit(which, (value, _larger(value, hard)))
    except (OSError, ValueError, OverflowError) as error:
        # setrlimit() reports a missing right as ValueError, and an impossible number as any.
        ceiling = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
        wanted = "unlimited" if value == resource.RLIM_INFINITY else str(value)
        raise BootError(
            f"{option}: cannot set {wanted}: {error} (the hard limit here is {ceiling})",
            os.EX_NOPERM,
        ) from error


def _larger(one: int, other: int) -> int:
    if resource.RLIM_INFINITY in (one, other):
        return resource.RLIM_INFINITY
    return max(one, other)


def drop(
    identity: Identity,
    chroot: str | None,
    chdir: str | None,
    umask: int | None,
    *,
    core_dumps: bool = False,
) -> None:
    """Become ``identity`` for good, before any application code runs.

    ``chdir`` is taken inside the new root. With ``core_dumps`` the kernel may write core files
    (as far as the limit allows) in spite of the change of user. Clears PR_SET_PDEATHSIG. Raises
    BootError; the process is then between two identities and must end.
    """
    if chroot is not None:
        _enter_chroot(chroot)
    before = os.geteuid()
    _switch(identity)
    _verify(identity, was_root=before == 0)
    if chdir is not None:
        # As the new user: a directory that it may not enter would fail later, in the application.
        try:
            os.chdir(chdir)
        except OSError as error:
            raise BootError(
                f"--chdir: cannot enter {chdir}{_as_user(identity)}: {error.strerror}",
                os.EX_NOINPUT,
            ) from error
    if umask is not None:
        os.umask(umask)
    if os.geteuid() != before:
        _set_environment(identity)
    try:
        prctl.no_new_privileges()
        if core_dumps:
            prctl.allow_core_dumps()
    except OSError as error:
        raise BootError(f"prctl: {error.strerror}; Linux 4.5 or later is needed") from error


def _enter_chroot(path: str) -> None:
    try:
        os.chroot(path)
        # Without this the working directory stays outside, and "..", with it, leads out.
        os.chdir("/")
    except OSError as error:
        status = os.EX_NOPERM if isinstance(error, PermissionError) else os.EX_NOINPUT
        raise BootError(f"--chroot: cannot enter {path}: {error.strerror}", status) from error


def _switch(identity: Identity) -> None:
    try:
        # The user last: after it, the right to do the rest is gone. For anybody but root the ids
        # can only be our own, which needs no right; setgroups() would.
        if identity.gid is not None:
            if os.geteuid() == 0:
                os.setgroups(identity.groups)
            os.setresgid(identity.gid, identity.gid, identity.gid)
        if identity.uid is not None:
            os.setresuid(identity.uid, identity.uid, identity.uid)
    except OSError as error:
        raise BootError(
            f"cannot become {_describe(identity)}: {error.strerror}", os.EX_NOPERM
        ) from error


def _verify(identity: Identity, was_root: bool) -> None:
    """Look at the result, and try the way back: kept capabilities let every call above succeed
    and still leave the door open."""
    uid, gid = identity.uid, identity.gid
    if uid is not None and os.getresuid() != (uid, uid, uid):
        _insecure(f"the user ids are {os.getresuid()}")
    if gid is not None and os.getresgid() != (gid, gid, gid):
        _insecure(f"the group ids are {os.getresgid()}")
    if gid is not None and was_root and set(os.getgroups()) != set(identity.groups):
        _insecure(f"the supplementary groups are {os.getgroups()}")
    if not uid:
        return  # still root, or never asked to be another user: no way back to look for
    attempts: dict[str, Callable[[], None]] = {
        "setgroups": lambda: os.setgroups([0]),
        "setresgid": lambda: os.setresgid(0, 0, 0),
        "setresuid": lambda: os.setresuid(0, 0, 0),
    }
    if gid == 0:
        del attempts["setresgid"]  # the group root was asked for
    for name, attempt in attempts.items():
        try:
            attempt()
        except PermissionError:
            continue
        _insecure(f"{name}() leads back to root")


def _insecure(what: str) -> NoReturn:
    raise BootError(f"the privileges were not dropped for good: {what}", os.EX_NOPERM)


def _set_environment(identity: Identity) -> None:
    """What su(1) sets; root's HOME would send libraries to files the new user cannot read."""
    os.environ["HOME"] = identity.home or "/"
    for name in ("USER", "LOGNAME"):
        if identity.user is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = identity.user


def _describe(identity: Identity) -> str:
    if identity.uid is None:
        return f"group {identity.gid}"
    return f"user {identity.user or identity.uid}, group {identity.gid}"


def _as_user(identity: Identity) -> str:
    return "" if identity.uid is None else f" as user {identity.user or identity.uid}"

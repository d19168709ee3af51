"""The few process attributes of Linux that Python has no call for: prctl(2) through ctypes."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_SET_MEMORY_MERGE = 67
PR_GET_MEMORY_MERGE = 68


def no_new_privileges() -> None:
    """From now on no execve() gives this process or its children more rights (setuid, setgid,
    file capabilities). Cannot be undone. Raises OSError."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(death_signal: signal.Signals) -> None:
    """Be sent ``death_signal`` when the parent ends. Raises OSError.

    Order matters three times. Changing user or group clears the setting, so call this after
    privileges.drop(). It belongs to the parent at the time: a process that is forked twice
    calls this when its adoptive parent has it. And the parent may be gone already: compare
    os.getppid() afterwards.
    """
    _prctl(PR_SET_PDEATHSIG, int(death_signal))


def become_subreaper() -> None:
    """Adopt, instead of init, the orphans among this process's descendants. Raises OSError."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def allow_core_dumps() -> None:
    """Undo what a change of user does: the kernel then writes no core file, whatever the limit,
    until the next execve(). Raises OSError."""
    _prctl(PR_SET_DUMPABLE, 1)


def merge_equal_pages() -> None:
    """Let the kernel's KSM share the pages of this process, and of the children to come, that equal
    others; since Linux 6.4. Raises OSError."""
    _prctl(PR_SET_MEMORY_MERGE, 1)


def can_merge_pages() -> bool:
    """Whether the kernel knows merge_equal_pages()."""
    try:
        _prctl(PR_GET_MEMORY_MERGE, 0)
    except OSError:
        return False
    return True


def _prctl(option: int, value: int) -> None:
    # CDLL(None) is the libc that this process has; loading it anew for every call costs nothing.
    libc = ctypes.CDLL(None, use_errno=True)
    # prctl() is variadic and reads longs: a plain int would leave the upper half undefined, and
    # PR_SET_NO_NEW_PRIVS demands that the unused arguments are zero.
    arguments = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
    if libc.prctl(ctypes.c_int(option), *arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

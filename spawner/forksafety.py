"""What a process must not have when it forks workers that shall live on without it.

A thread is not copied by fork, a connection or a database handle is shared by it: both break in
ways that show only under load. So the template looks before its first fork.
"""

from __future__ import annotations

import os
import socket
import stat

import psutil

_MUST_BE_SHARED_NEVER = os.O_WRONLY | os.O_RDWR


def open_descriptors() -> set[int]:
    """The descriptors of this process."""
    return {int(name) for name in os.listdir("/proc/self/fd")}


def hazards(known: set[int]) -> list[str]:
    """What stands against forking now, in words; ``known`` are descriptors that may be shared."""
    found = []
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        found.append(f"{threads - 1} thread(s) are running: {_thread_names()}")
    for child in psutil.Process().children():
        found.append(f"a child process is running: {child.name()} (pid {child.pid})")
    for descriptor in sorted(open_descriptors() - known):
        found += _hazard_of(descriptor)
    return found


def _thread_names() -> str:
    import threading

    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    return ", ".join(names) or "not started by Python"


def _hazard_of(descriptor: int) -> list[str]:
    try:
        mode = os.fstat(descriptor).st_mode
        name = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return []  # closed since it was listed, as the listing's own is
    if stat.S_ISSOCK(mode) and _is_stream(descriptor):
        return [f"a connection is open: descriptor {descriptor}, {name}"]
    if stat.S_ISREG(mode) and _has_shared_offset(descriptor):
        return [f"a file is open for writing: {name}"]
    return []


def _is_stream(descriptor: int) -> bool:
    """Datagram sockets, as to syslog, may be shared: each message is one write."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        return sock.type == socket.SOCK_STREAM


def _has_shared_offset(descriptor: int) -> bool:
    """Log files are opened for appending, so writers cannot overwrite each other; databases are not."""
    with open(f"/proc/self/fdinfo/{descriptor}") as info:
        flags = next(int(line.split()[1], 8) for line in info if line.startswith("flags:"))
    return bool(flags & _MUST_BE_SHARED_NEVER) and not flags & os.O_APPEND

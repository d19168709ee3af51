"""What a process must not have when it forks workers that shall live on without it.

A thread is not copied by fork, a connection or a database handle is shared by it: both break in
ways that show only under load. So the template looks before its first fork.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Iterator

#: In seconds, for threads that are ending and those that another language has started.
_LAST_MOMENT = 0.25
_WRITABLE = os.O_WRONLY | os.O_RDWR


def open_descriptors() -> set[int]:
    """The descriptors of this process."""
    listed = [int(name) for name in os.listdir("/proc/self/fd")]
    # One of them was that of the listing itself, and is the number of the next file opened.
    return {descriptor for descriptor in listed if _is_open(descriptor)}


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def hazards(known: set[int]) -> list[str]:
    """What stands against forking now, in words; ``known`` are descriptors that may be shared."""
    if not os.path.isdir("/proc/self/fd"):
        return ["there is no /proc behind --chroot, which would tell: mount one"]
    found = []
    threads = _count_threads()
    if threads:
        found.append(f"{threads} thread(s) are running: {_thread_names()}")
    found += [f"a child process is running: {child}" for child in _children()]
    for descriptor in sorted(open_descriptors() - known):
        found += _hazard_of(descriptor)
    return found


def _count_threads() -> int:
    """Beside this one. Thread.join() returns while the kernel still has the thread for a moment."""
    deadline = time.monotonic() + _LAST_MOMENT
    while True:
        threads = len(os.listdir("/proc/self/task")) - 1
        if not threads or threading.active_count() > 1 or time.monotonic() > deadline:
            return threads
        time.sleep(0.001)


def _children() -> Iterator[str]:
    """Ours, by name and number; those that nobody has waited for, too."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return
    import psutil  # looks at all processes, and there hardly ever is a child

    for child in psutil.Process().children():
        yield f"{child.name()} (pid {child.pid})"


def _thread_names() -> str:
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    return ", ".join(names) or "not started by Python"


def _hazard_of(descriptor: int) -> list[str]:
    try:
        mode = os.fstat(descriptor).st_mode
        name = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return []  # closed since it was listed
    if stat.S_ISSOCK(mode) and _is_stream(descriptor):
        return [f"a connection is open: descriptor {descriptor}, {_peer(descriptor) or name}"]
    if stat.S_ISREG(mode) and _has_shared_offset(descriptor):
        return [f"a file is open for writing: {name}"]
    return []


def _is_stream(descriptor: int) -> bool:
    """Datagram sockets, as to syslog, may be shared: each message is one write."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        return sock.type == socket.SOCK_STREAM


def _peer(descriptor: int) -> str:
    """Where a connection leads to, as far as it has a name."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        try:
            peer = sock.getpeername()
        except OSError:
            return ""  # not connected: it listens, or is about to connect
    return f"to {peer[0]} port {peer[1]}" if isinstance(peer, tuple) else os.fsdecode(peer)


def _has_shared_offset(descriptor: int) -> bool:
    """Log files are opened to append, so writers cannot overwrite each other; databases are not."""
    with open(f"/proc/self/fdinfo/{descriptor}") as info:
        flags = next(int(line.split()[1], 8) for line in info if line.startswith("flags:"))
    return bool(flags & _WRITABLE) and not flags & os.O_APPEND

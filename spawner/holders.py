"""Who holds an address or a file that we want, and does it still live?"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from dataclasses import dataclass

# The type and role of this request: FastCGI 1.0, section 4.1. Written out, because it is all of
# FastCGI that the master ever speaks: version 1, type GET_VALUES, id 0, 17 bytes, no padding.
_GET_VALUES = b"\x01\x09\x00\x00\x00\x11\x00\x00" + b"\x0f\x00FCGI_MPXS_CONNS"

# Workers of a master that was killed leave within one second; twice that is the benefit of doubt.
ORPHAN_TIME = 2.0
# kill -9 returns before the process is gone; a start right behind it shall not meet the dying.
_DYING_TIME = 0.25
_POLL = 0.05


def runs_since(pid: int, since: float) -> bool:
    """Whether process ``pid`` runs, and did already at ``since`` (seconds of the wall clock); a
    zombie does not run, and a younger process merely got the number again."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name, in parentheses, may itself hold spaces and parentheses.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    if fields[0] in (b"Z", b"X"):
        return False
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot + int(fields[19]) / os.sysconf("SC_CLK_TCK") <= since


def describe(pid: int) -> str:
    import psutil  # the usual start has nobody to describe

    try:
        return f"process {pid} ({psutil.Process(pid).name()})"
    except (psutil.Error, ValueError):
        return f"process {pid}" if pid > 0 else "another process"


def describe_all(pids: set[int]) -> str:
    return ", ".join(describe(pid) for pid in sorted(pids)) or "another process"


def tcp_listeners(port: int) -> set[int]:
    """The processes that listen on ``port``, as far as we may know."""
    import psutil

    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return set()
    return {
        entry.pid
        for entry in connections
        if entry.pid and entry.status == psutil.CONN_LISTEN and tuple(entry.laddr)[1] == port
    }


def unix_listeners(name: str) -> set[int]:
    """The processes with a descriptor of the listening socket ``name`` ('@' first: abstract), as
    far as we may know."""
    names = {name} if name.startswith("@") else {name, os.path.realpath(name)}
    links = set()
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as file:
        next(file)
        for line in file:
            # Num RefCount Protocol Flags Type St Inode Path; flag 0x10000 is __SO_ACCEPTCON.
            fields = line.rstrip("\n").split(None, 7)
            if len(fields) == 8 and fields[7] in names and int(fields[3], 16) & 0x10000:
                links.add(f"socket:[{fields[6]}]")
    everybody = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return {pid for pid in everybody if links and _has_descriptor(pid, links)}


def _has_descriptor(pid: int, links: set[str]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(folder)
    except OSError:
        return False
    for descriptor in descriptors:
        try:
            if os.readlink(f"{folder}/{descriptor}") in links:
                return True
        except OSError:
            continue  # closed meanwhile
    return False


@dataclass(frozen=True)
class Verdict:
    """``live``: somebody serves there; ``why``: what was seen, for the message."""

    live: bool
    why: str = ""


_STALE = Verdict(False)


def examine(name: str, since: float) -> Verdict:
    """Whether anybody serves the Unix socket ``name`` ('@' first: abstract), which is there since
    ``since`` (wall clock).

    The process that called listen() decides when it lives. When it is gone, others may have
    inherited the socket: the children of spawn-fcgi, who serve, or the workers of a killed
    master, who leave within a second. Only time tells them apart, so this takes up to
    ORPHAN_TIME then. Raises PermissionError when we may not connect.
    """
    deadline = time.monotonic() + ORPHAN_TIME
    while True:
        probe = _Probe(name)
        try:
            if not probe.accepted:
                return _STALE
            if probe.listener and _stays(probe.listener, since):
                return Verdict(True, f"{describe(probe.listener)} listens there")
            answer = probe.ask(deadline)
        finally:
            probe.close()
        if time.monotonic() >= deadline:
            return Verdict(True, f"{describe_all(unix_listeners(name))} {answer}")
        time.sleep(_POLL)


def _stays(pid: int, since: float) -> bool:
    deadline = time.monotonic() + _DYING_TIME
    while runs_since(pid, since):
        if time.monotonic() >= deadline:
            return True
        time.sleep(_POLL)
    return False


class _Probe:
    """One connection to somebody else's socket."""

    def __init__(self, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.accepted = True
        self.listener = 0
        # Never wait for a place in a full queue.
        self._socket.setblocking(False)
        self._queued = False
        try:
            self._socket.connect("\0" + name[1:] if name.startswith("@") else name)
            self._queued = True
            self.listener = self._peer_pid()
        except (ConnectionRefusedError, FileNotFoundError):
            self.accepted = False
        except OSError as error:
            # A full queue, or a socket of another type: held all the same.
            if error.errno not in (errno.EAGAIN, errno.EPROTOTYPE):
                self.close()
                raise

    def _peer_pid(self) -> int:
        """The process that called listen(); 0 when it lives in another PID namespace."""
        credentials = self._socket.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
        return int(struct.unpack("3i", credentials)[0])

    def ask(self, deadline: float) -> str:
        """Say GET_VALUES and wait for what happens; the returned words describe it."""
        if not self._queued:
            return "has it open, with a full queue or as another type of socket"
        self._socket.settimeout(max(deadline - time.monotonic(), _DYING_TIME))
        try:
            self._socket.sendall(_GET_VALUES)
            return "answers there" if self._socket.recv(1) else "accepts connections there"
        except socket.timeout:
            return "holds it without answering"
        except OSError:
            return "accepts connections there"

    def close(self) -> None:
        self._socket.close()

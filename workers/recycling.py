"""When a worker has served long enough: by requests, by memory it would give back, by age."""

from __future__ import annotations

import os
import random
import resource
import time
from dataclasses import dataclass
from typing import Optional, TextIO

_PAGE = resource.getpagesize()


@dataclass(frozen=True)
class RecyclingLimits:
    """0 means never. ``jitter`` is a share of ``max_requests``: workers born together part."""

    max_requests: int = 0
    jitter: float = 0.10
    max_memory: int = 0  # bytes of private memory: what a recycled worker gives back
    max_age: float = 0.0  # seconds


class Recycling:
    """The limits of one worker, drawn at its birth."""

    def __init__(self, limits: RecyclingLimits) -> None:
        self._max_requests = jittered(limits.max_requests, limits.jitter)
        self._max_memory = limits.max_memory
        #: On the monotonic clock; None for no limit.
        self.expires = time.monotonic() + limits.max_age if limits.max_age else None

    def due(self, requests: int) -> Optional[str]:
        """After each request: why the worker should be replaced, or None."""
        if self._max_requests and requests >= self._max_requests:
            return f"max-requests ({requests})"
        if self._max_memory and resident_memory(os.getpid()) > self._max_memory:
            # RSS counts the pages shared with the template too, and is cheap where the exact
            # figure costs a walk over all mappings: so that is read only when RSS is over.
            private = private_memory(os.getpid())
            if private > self._max_memory:
                return f"max-memory ({private >> 20} MiB private)"
        return None

    def aged(self, now: float) -> bool:
        """Whether its time is over; ``now`` is on the monotonic clock."""
        return self.expires is not None and now >= self.expires


def jittered(limit: int, jitter: float) -> int:
    """``limit`` give or take up to ``jitter`` of it; 0 stays 0 and nothing falls below 1."""
    return max(1, round(limit * random.uniform(1 - jitter, 1 + jitter))) if limit else 0


def resident_memory(pid: int) -> int:
    """Bytes in memory, shared ones too. Cheap. Raises OSError once the process is gone."""
    # Workers look after many a request, and Python's files ask the kernel for much more than this.
    statm = os.open(f"/proc/{pid}/statm", os.O_RDONLY)
    try:
        return int(os.read(statm, 128).split()[1]) * _PAGE
    finally:
        os.close(statm)


def unshared_memory(pid: int) -> int:
    """Bytes in memory that are of no file: at least the private ones, and those that a template's
    children share with it on top. For where private_memory() is not permitted. Raises OSError."""
    with open(f"/proc/{pid}/statm") as statm:
        fields = statm.read().split()
    return (int(fields[1]) - int(fields[2])) * _PAGE


def private_memory(pid: int) -> int:
    """Bytes that only this process has: they are free again once it ends.

    Raises OSError; PermissionError for another user's process without CAP_SYS_PTRACE, which
    root in a container lacks as a rule.
    """
    private = 0
    with _open_maps(pid) as maps:
        for line in maps:
            if line.startswith(("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:")):
                private += int(line.split()[1]) * 1024
    return private


def shares_of_memory(pid: int) -> tuple[int, int]:
    """Bytes that this process has, those that it shares with n others divided by n + 1 (PSS); and
    those that it has alone. A walk over all mappings. Raises OSError, as private_memory() does."""
    proportional = private = 0
    with _open_maps(pid) as maps:
        for line in maps:
            if line.startswith("Pss:"):
                proportional += int(line.split()[1]) * 1024
            elif line.startswith("Private_"):
                private += int(line.split()[1]) * 1024
    return proportional, private


def _open_maps(pid: int) -> TextIO:
    try:
        return open(f"/proc/{pid}/smaps_rollup")
    except FileNotFoundError:
        return open(f"/proc/{pid}/smaps")  # before Linux 4.14; one paragraph a mapping, same words

"""What a worker has for itself of the memory that its template has left it, and what has been written there.

A page counts as the worker's own when no other process has it. Its bytes are compared with the template's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

PAGE = 4096
_WORDS = struct.Struct(f"{PAGE // 8}Q")
# Of an entry of /proc/PID/pagemap: proc_pid_pagemap(5).
_PRESENT, _EXCLUSIVE = 1 << 63, 1 << 56
#: No count of references is as large, and no address as small.
_LARGEST_COUNT, _LOWEST_ADDRESS = 1 << 24, 1 << 20

EQUAL = "equal to the template's again"
COUNTS = "other reference counts"
FEW = "and up to 8 other words"
MORE = "more of the page"
NEW = "not in the template"
KINDS = (EQUAL, COUNTS, FEW, MORE, NEW)


def pages(template: int, worker: int) -> dict[str, int]:
    """How many of each kind there are, given the pids. Raises OSError."""
    found = dict.fromkeys(KINDS, 0)
    before = {address for address, _ in _present(template)}
    with open(f"/proc/{template}/mem", "rb", 0) as old, open(f"/proc/{worker}/mem", "rb", 0) as new:
        for address, entry in _present(worker):
            if not entry & _EXCLUSIVE:
                continue
            if address not in before:
                found[NEW] += 1
                continue
            old.seek(address)
            new.seek(address)
            found[_kind(old.read(PAGE), new.read(PAGE))] += 1
    return found


def _present(pid: int) -> Iterator[tuple[int, int]]:
    """Address and entry of each page in memory that the process could write to and shares with nobody on
    purpose."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/pagemap", "rb") as pagemap:
        for line in maps:
            span, rights = line.split()[:2]
            if rights[1] != "w" or rights[3] != "p":
                continue
            start, end = (int(number, 16) for number in span.split("-"))
            pagemap.seek(start // PAGE * 8)
            entries = pagemap.read((end - start) // PAGE * 8)
            for number, (entry,) in enumerate(struct.iter_unpack("Q", entries)):
                if entry & _PRESENT:
                    yield start + number * PAGE, entry


def _kind(old: bytes, new: bytes) -> str:
    if old == new:
        return EQUAL
    before, after = _WORDS.unpack(old), _WORDS.unpack(new)
    others = sum(
        not _is_count(before, after, at) for at in range(len(before)) if before[at] != after[at]
    )
    return COUNTS if others == 0 else FEW if others <= 8 else MORE


def _is_count(before: tuple[int, ...], after: tuple[int, ...], at: int) -> bool:
    """CPython has the count of an object's references right before the address of its type."""
    small = before[at] < _LARGEST_COUNT and after[at] < _LARGEST_COUNT
    following = before[at + 1 : at + 2]
    return small and following == after[at + 1 : at + 2] and following > (_LOWEST_ADDRESS,)

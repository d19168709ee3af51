"""Keeps shared what a process has loaded and its children, once forked, only read.

A page of memory is shared until somebody writes to it. The children must write the reference counts of
what they use; here the writing is avoided that serves nothing.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator

#: Of a block that is taken, in bytes; glibc puts those of 128 KiB and more apart from the heap. A larger gap
#: takes several.
_LARGEST = 64 * 1024
_SMALLEST = 32


def freeze() -> None:
    """When all has been loaded.

    What is garbage now would be copied into every child; what is not will never be garbage. Frozen,
    it is skipped by every collection to come, which would write to each object: Trac runs a full one
    in each request.
    """
    gc.collect()
    gc.freeze()


def seal() -> None:
    """The same in a process that forks children, before the first of them."""
    gc.collect()
    _fill_gaps()
    gc.freeze()


def _fill_gaps() -> None:
    """Take what is free in the midst of the C library's heap, and keep it.

    Each child would put what it needs for a while there, among what it only reads, and so copy a
    page for every gap. Now its heap grows at the end, page beside page. Pages that are free as a
    whole go back to the kernel first, so what is taken is small and is there once, for all children.
    """
    libc = ctypes.CDLL(None)
    try:
        libc.malloc_trim(0)
    except AttributeError:
        return  # not glibc, whose heap has one end
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    heap = _heap()
    for size in _sizes():
        while (block := libc.malloc(size)) in heap:
            pass
        # Beyond the end that the heap had, or in the memory of another allocator.
        libc.free(block)


def _heap() -> range:
    """The addresses of the heap; none where they cannot be known."""
    try:
        with open("/proc/self/maps") as maps:
            # After a fork it goes on in a mapping of its own.
            parts = [line.split(maxsplit=1)[0] for line in maps if line.endswith("[heap]\n")]
    except OSError:
        return range(0)  # there is no /proc behind --chroot
    ends = [int(end, 16) for part in parts for end in part.split("-")]
    return range(min(ends), max(ends)) if ends else range(0)


def _sizes() -> Iterator[int]:
    """Large gaps first, so that few blocks fill them."""
    size = _LARGEST
    while size > 1024:
        yield size
        size = size * 7 // 8
    # From here on glibc has a list for each multiple of 16.
    yield from range(1016, _SMALLEST, -16)

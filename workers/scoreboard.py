"""What every worker does right now, in shared memory: a slot a worker, a writer a slot, no locks.

Each field is an aligned 64-bit word written through a ``memoryview``, which is one store of the
processor, so a reader never sees half a value. (``struct.pack_into`` clears a field before it
writes it, and a reader can see that.)
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

_REQUESTS, _REQUEST_STARTED = range(2)
_FIELDS = 8  # a cache line a slot: two workers never write the same one
_SLOT_BYTES = _FIELDS * 8


@dataclass(frozen=True)
class Snapshot:
    """A slot as it was at one moment: ``request_started`` is time.monotonic_ns(), 0 when idle."""

    busy: bool
    requests: int
    request_started: int


class Slot:
    """One worker's slot. Only that worker writes it; the master clears it between two workers."""

    def __init__(self, words: memoryview) -> None:
        self._words = words

    def begin(self, now: int) -> None:
        """A request starts; ``now`` is time.monotonic_ns()."""
        self._words[_REQUEST_STARTED] = now

    def end(self) -> None:
        """The request has been answered."""
        words = self._words
        words[_REQUESTS] += 1
        words[_REQUEST_STARTED] = 0

    def clear(self) -> None:
        for field in range(_FIELDS):
            self._words[field] = 0

    def snapshot(self) -> Snapshot:
        # One word says both whether and since when: of two, a reader could see the first of one
        # moment and the second of another.
        started = self._words[_REQUEST_STARTED]
        return Snapshot(started != 0, self._words[_REQUESTS], started)


class Scoreboard:
    """All slots, numbered from 1. Made by the master before it forks, so that all share it."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._words = memoryview(mmap.mmap(-1, slots * _SLOT_BYTES)).cast("Q")

    def slot(self, number: int) -> Slot:
        start = (number - 1) * _FIELDS
        return Slot(self._words[start : start + _FIELDS])

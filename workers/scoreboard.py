"""What every worker does right now, in shared memory: a slot a worker, a writer a slot, no locks.

Each field is an aligned 64-bit word written through a ``memoryview``, which is one store of the
processor, so a reader never sees half a value. (``struct.pack_into`` clears a field before it
writes it, and a reader can see that.)
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

_REQUESTS, _REQUEST_STARTED, _TEXT_LENGTH = range(3)
_FIELDS = 8  # a cache line: two workers never write the same one
#: After the fields, what the request is in words: method, URI, user.
TEXT_CEILING = 448
_SLOT_BYTES = _FIELDS * 8 + TEXT_CEILING


@dataclass(frozen=True)
class Snapshot:
    """A slot as it was at one moment: ``request_started`` is time.monotonic_ns(), 0 when idle.

    ``request`` is in words the one in progress, else the last one.
    """

    busy: bool
    requests: int
    request_started: int
    request: str = ""


class Slot:
    """One worker's slot. Only that worker writes it; the master clears it between two workers."""

    def __init__(self, memory: memoryview) -> None:
        self._words = memory[: _FIELDS * 8].cast("Q")
        self._text = memory[_FIELDS * 8 :]

    def begin(self, now: int, request: str) -> None:
        """A request starts; ``now`` is time.monotonic_ns()."""
        words = self._words
        text = request.encode("utf-8", "replace")[:TEXT_CEILING]
        # The start is written last: a reader that finds it finds the text whole.
        words[_REQUEST_STARTED] = 0
        self._text[: len(text)] = text
        words[_TEXT_LENGTH] = len(text)
        words[_REQUEST_STARTED] = now

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
        words = self._words
        started = words[_REQUEST_STARTED]
        text = bytes(self._text[: min(words[_TEXT_LENGTH], TEXT_CEILING)]).decode("utf-8", "replace")
        if started != words[_REQUEST_STARTED]:
            text = ""  # another request has begun meanwhile, and may have written half of its own
        return Snapshot(started != 0, words[_REQUESTS], started, text)


class Scoreboard:
    """All slots, numbered from 1. Made by the master before it forks, so that all share it."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._memory = memoryview(mmap.mmap(-1, slots * _SLOT_BYTES))

    def slot(self, number: int) -> Slot:
        start = (number - 1) * _SLOT_BYTES
        return Slot(self._memory[start : start + _SLOT_BYTES])

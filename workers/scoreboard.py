"""What every worker does and has done, in shared memory: a slot a worker, a writer a slot, no locks.

Each field is an aligned 64-bit word written through a ``memoryview``, which is one store of the
processor, so a reader never sees half a value. (``struct.pack_into`` clears a field before it
writes it, and a reader can see that.) Nothing here makes a system call. Before slot 1 comes a
slot of the same shape for the pool as a whole, which the master writes: the sums of what workers that
are gone had counted, so that no counter ever falls.

Readers copy, then look: see snapshot.py.
"""

from __future__ import annotations

import mmap
import re
import sys
import time
from bisect import bisect_left
from collections.abc import Mapping

from workers.snapshot import (
    ACCEPTED,
    ANSWERS,
    BOUNDS,
    BYTES_IN,
    BYTES_OUT,
    CLASSES,
    COUNTERS,
    CPU,
    DURATION_SUM,
    DURATIONS,
    GAUGES,
    METHODS,
    OTHER_METHOD,
    REFUSED,
    REQUESTS,
    SLOT_BYTES,
    TEXT_CEILINGS,
    URI_CEILING,
    WAIT_SUM,
    WAITS,
    WORDS,
    BoardSnapshot,
    Counters,
    Gauge,
    PoolGauge,
    Snapshot,
    Stage,
)

#: Upper bounds of the histograms' buckets in nanoseconds; the last bucket has none.
BOUNDS_NS = tuple(round(seconds * 1e9) for seconds in BOUNDS)
_METHOD_NUMBERS = {method: number for number, method in enumerate(METHODS)}
_CLASSES = len(CLASSES)
#: Of an answer that was cut short, or never came.
_CUT = _CLASSES - 1
#: What environ.content_length() takes; the rest never gets to the application.
_SIZE = re.compile("[0-9]{1,18}")
#: Seconds in which the master gets to the end of what it changes, however busy the machine is. One that
#: was killed right then never does.
PATIENCE = 1.0
#: Between two looks, so that it gets its turn.
PAUSE = 0.0005

# Plain integers: on the way of each request an attribute of an enum costs more than a store.
_SEQUENCE = int(Gauge.SEQUENCE)
_STARTED = int(Gauge.REQUEST_STARTED)
_TEXT_LENGTH = int(Gauge.TEXT_LENGTH)
_CONTENT_LENGTH = int(Gauge.CONTENT_LENGTH)
_SENT = int(Gauge.SENT)
_LAST_DURATION = int(Gauge.LAST_DURATION)
_LAST_CPU = int(Gauge.LAST_CPU)
_LAST_STATUS = int(Gauge.LAST_STATUS)
_IDLE_SINCE = int(Gauge.IDLE_SINCE)
_CONNECTIONS = int(Gauge.CONNECTIONS)


class Slot:
    """One worker's slot. Only that worker writes it; the master clears it between two workers."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._words = memory[: WORDS * 8].cast("Q")
        self._text = memory[WORDS * 8 :]

    # -- the worker ------------------------------------------------------------------------------

    def occupy(self, pid: int, generation: int, now: int) -> None:
        """A worker has come; ``now`` is time.time_ns()."""
        words = self._words
        words[Gauge.GENERATION] = generation
        words[Gauge.BORN] = now
        words[Gauge.STAGE] = Stage.SERVING
        words[Gauge.PID] = pid

    def leave(self) -> None:
        """It serves nobody new."""
        self._words[Gauge.STAGE] = Stage.LEAVING

    def begin(self, now: int, params: Mapping[str, str], request_id: str = "") -> None:
        """A request starts; ``now`` is time.monotonic_ns()."""
        words = self._words
        get = params.get
        texts = (
            get("REQUEST_METHOD", ""),
            get("REQUEST_URI") or get("PATH_INFO", ""),
            get("REMOTE_USER", ""),
            get("REMOTE_ADDR", ""),
            get("SCRIPT_NAME", ""),
            request_id,
        )
        joined = "\0".join(texts)
        if len(joined) > URI_CEILING or joined.count("\0") != len(texts) - 1:
            # A parameter can be of any length, and have a NUL in it.
            cut = (text[:ceiling].replace("\0", " ") for text, ceiling in zip(texts, TEXT_CEILINGS))
            joined = "\0".join(cut)
        text = joined.encode("latin-1", "replace")
        size = get("CONTENT_LENGTH") or ""
        # An odd number says that the text is being written: when this process is killed just then,
        # it stays odd, and nobody takes half of one request and half of another for one.
        words[_SEQUENCE] += 1
        self._text[: len(text)] = text
        words[_TEXT_LENGTH] = len(text)
        words[_CONTENT_LENGTH] = int(size) if size and _SIZE.fullmatch(size) else 0
        words[_SENT] = 0
        words[_STARTED] = now
        words[_SEQUENCE] += 1
        words[ACCEPTED] += 1

    def refuse(self) -> None:
        """A connection was closed because of who made it."""
        self._words[REFUSED] += 1

    def sent(self, size: int) -> None:
        """So many bytes of the answer have been sent by now."""
        self._words[_SENT] = size

    def waited(self, wait: int) -> None:
        """The request had waited for so many nanoseconds before it was taken up."""
        words = self._words
        words[WAITS + bisect_left(BOUNDS_NS, wait)] += 1
        words[WAIT_SUM] += wait

    def end(self, method: str, status: int, sent: int, took: int, cpu: int, whole: bool = True) -> None:
        """The request has been answered, in ``took`` nanoseconds of which ``cpu`` were of work."""
        words = self._words
        words[_LAST_STATUS] = status
        words[_LAST_DURATION] = took
        words[_LAST_CPU] = cpu
        words[_SENT] = sent
        words[BYTES_OUT] += sent
        words[BYTES_IN] += words[_CONTENT_LENGTH]
        words[CPU] += cpu
        words[DURATION_SUM] += took
        words[DURATIONS + bisect_left(BOUNDS_NS, took)] += 1
        kind = status // 100 - 2 if whole and 200 <= status < 600 else _CUT
        words[ANSWERS + _METHOD_NUMBERS.get(method, OTHER_METHOD) * _CLASSES + kind] += 1
        words[REQUESTS] += 1
        words[_IDLE_SINCE] = words[_STARTED] + took
        words[_STARTED] = 0

    def hold(self, connections: int) -> None:
        """So many wait: for the rest of a request, or for a peer that takes its answer slowly."""
        self._words[_CONNECTIONS] = connections

    def memory(self, resident: int, proportional: int, private: int) -> None:
        """What this process takes of memory now, in bytes; 0 for what is not known."""
        words = self._words
        words[Gauge.RESIDENT] = resident
        words[Gauge.PROPORTIONAL] = proportional
        words[Gauge.PRIVATE] = private
        words[Gauge.RESIDENT_PEAK] = max(resident, words[Gauge.RESIDENT_PEAK])

    def show_peak(self, active: int) -> None:
        """So many workers have been busy at once, as it tells who asks for the status."""
        self._words[Gauge.ACTIVE_SEEN] = active

    # -- readers ---------------------------------------------------------------------------------

    # One word each, for whoever looks often: a snapshot copies and reads it all.

    @property
    def busy(self) -> bool:
        return bool(self._words[_STARTED])

    @property
    def idle_since(self) -> int:
        """When the last request ended, in time.monotonic_ns(); 0 before the first one has."""
        return self._words[_IDLE_SINCE]

    @property
    def connections(self) -> int:
        return self._words[_CONNECTIONS]

    @property
    def requests(self) -> int:
        return self._words[REQUESTS]

    def snapshot(self) -> Snapshot:
        before = self._words[_SEQUENCE]
        data = bytes(self._memory)
        return Snapshot.parse(data, self._words[_SEQUENCE] == before)


class Scoreboard:
    """All slots, numbered from 1. Made by the master before it forks, so that all share it."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        # Memory that nobody writes to costs nothing.
        self._memory = memoryview(mmap.mmap(-1, (slots + 1) * SLOT_BYTES))
        self._pool = self._memory[: WORDS * 8].cast("Q")

    def slot(self, number: int) -> Slot:
        start = number * SLOT_BYTES
        return Slot(self._memory[start : start + SLOT_BYTES])

    # -- the master ------------------------------------------------------------------------------

    def assign(self, number: int) -> Slot:
        """An empty slot for a worker that is about to be born."""
        self.release(number)
        self._pool[PoolGauge.HIGHEST] = max(number, self._pool[PoolGauge.HIGHEST])
        return self.slot(number)

    def release(self, number: int) -> None:
        """The worker is gone: add what it has counted to the pool's sums, and clear its slot."""
        start = number * SLOT_BYTES
        words = self._memory[start : start + WORDS * 8].cast("Q")
        pool = self._pool
        pool[PoolGauge.SEQUENCE] += 1
        for field in range(GAUGES, COUNTERS):
            if words[field]:
                pool[field] += words[field]
        self.note_peak(PoolGauge.RESIDENT_PEAK, words[Gauge.RESIDENT_PEAK])
        self.note_peak(PoolGauge.ACTIVE_PEAK, words[Gauge.ACTIVE_SEEN])
        self._memory[start : start + WORDS * 8] = bytes(WORDS * 8)
        pool[PoolGauge.SEQUENCE] += 1

    def note(self, field: PoolGauge, value: int) -> None:
        """Write one of the pool's own values, which only the master knows."""
        self._pool[field] = value

    def noted(self, field: PoolGauge) -> int:
        return self._pool[field]

    def note_peak(self, field: PoolGauge, value: int) -> None:
        """The same of what only rises."""
        self.note(field, max(value, self.noted(field)))

    def add(self, counters: Counters) -> None:
        """Begin with what an earlier master's workers have counted."""
        pool = self._pool
        pool[PoolGauge.SEQUENCE] += 1
        for field, value in zip(range(GAUGES, COUNTERS), counters.words):
            pool[field] += value
        pool[PoolGauge.SEQUENCE] += 1

    # -- readers ---------------------------------------------------------------------------------

    def snapshot(self) -> BoardSnapshot:
        """The whole board, in which no worker that leaves is counted twice or not at all."""
        pool = self._pool
        deadline = time.monotonic() + PATIENCE
        while True:
            before = pool[PoolGauge.SEQUENCE]
            data = bytes(self._memory[: (pool[PoolGauge.HIGHEST] + 1) * SLOT_BYTES])
            still = _still(self._memory, data)
            quiet = before % 2 == 0 and pool[PoolGauge.SEQUENCE] == before
            if quiet or time.monotonic() > deadline:
                return BoardSnapshot.parse(data, still)
            time.sleep(PAUSE)


def _still(board: memoryview, data: bytes) -> list[bool]:
    """Of each slot in the copy ``data``, whether its texts were not written meanwhile."""
    words = board.cast("Q")
    stride = SLOT_BYTES // 8
    return [
        words[number * stride + _SEQUENCE].to_bytes(8, sys.byteorder)
        == data[number * SLOT_BYTES : number * SLOT_BYTES + 8]
        for number in range(len(data) // SLOT_BYTES)
    ]

"""The last hour of a pool, for graphs: a ring in shared memory. The master writes it, the status process
reads it, and what was written outlives the process and reloads."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass

from workers.snapshot import BOUNDS, BoardSnapshot

#: Seconds from one point to the next, and how many are kept: an hour.
STEP = 10
POINTS = 360
_BUCKETS = len(BOUNDS) + 1
_FIELDS = 6
_ROW = _FIELDS + _BUCKETS


@dataclass(frozen=True)
class Point:
    """One moment; what is counted is counted since the pool began."""

    at: float  # seconds since 1970
    requests: int
    memory: int  # bytes of all workers, what they share counted once; resident where that is unknown
    busy: int
    workers: int
    queue: int
    durations: tuple[int, ...]  # by workers.snapshot.BOUNDS


class History:
    """Made by the master before it forks who reads it. What is never written costs nothing."""

    def __init__(self) -> None:
        self._words = memoryview(mmap.mmap(-1, POINTS * _ROW * 8)).cast("d")

    def due(self, now: float) -> bool:
        """Whether the moment ``now`` (time.time()) has no point yet."""
        return self._words[self._place(now)] != now // STEP * STEP

    def note(self, now: float, board: BoardSnapshot, queue: int) -> None:
        words, place = self._words, self._place(now)
        totals = board.totals
        memory = sum(worker.proportional or worker.resident for worker in board.workers)
        told = (totals.requests, memory, board.active, len(board.workers), queue)
        # A point without a time is none: a reader never takes one that is being written.
        words[place] = 0.0
        for offset, value in enumerate((*told, *totals.durations.counts), 1):
            words[place + offset] = value
        words[place] = now // STEP * STEP

    def points(self, now: float) -> list[Point]:
        """Those of the last hour, the oldest first."""
        found = []
        for place in range(0, POINTS * _ROW, _ROW):
            at, *values = self._words[place : place + _ROW].tolist()
            if now - POINTS * STEP < at <= now and self._words[place] == at:
                requests, memory, busy, workers, queue, *durations = map(int, values)
                found.append(Point(at, requests, memory, busy, workers, queue, tuple(durations)))
        return sorted(found, key=lambda point: point.at)

    def rows(self, now: float) -> list[list[int]]:
        """All of it, for the History of another master to go on from."""
        return [
            [int(one.at), one.requests, one.memory, one.busy, one.workers, one.queue, *one.durations]
            for one in self.points(now)
        ]

    def take(self, rows: Sequence[Sequence[int]]) -> None:
        """What rows() has told; that of a version with other figures is left out. Raises TypeError or
        ValueError for what is none."""
        for row in rows:
            if len(row) == _ROW:
                place = self._place(row[0])
                for offset, value in enumerate(row):
                    self._words[place + offset] = value

    @staticmethod
    def _place(now: float) -> int:
        return int(now // STEP) % POINTS * _ROW


@dataclass(frozen=True)
class Interval:
    """What happened from one point to the next."""

    at: float
    rate: float  # requests a second
    median: float  # seconds
    slowest: float  # of 95 in 100, in seconds
    memory: int
    busy: int
    queue: int


def intervals(points: list[Point]) -> list[Interval]:
    found = []
    for before, after in zip(points, points[1:]):
        counts = [new - old for new, old in zip(after.durations, before.durations)]
        found.append(
            Interval(
                after.at,
                max(0, after.requests - before.requests) / (after.at - before.at),
                percentile(counts, 0.5),
                percentile(counts, 0.95),
                after.memory,
                after.busy,
                after.queue,
            )
        )
    return found


def percentile(counts: list[int], share: float) -> float:
    """In seconds: where the bucket of that request ends, as nearly as its neighbours tell; 0 of none."""
    wanted = sum(counts) * share
    lower = 0.0
    for count, bound in zip(counts, (*BOUNDS, BOUNDS[-1])):
        if count and wanted <= count:
            return lower + (bound - lower) * wanted / count
        wanted -= count
        lower = bound
    return 0.0

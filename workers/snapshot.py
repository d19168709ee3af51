"""The scoreboard as it was at one moment: its layout, and copies of it that nothing changes any more."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Any

from workers.text import escaped

# -- the layout ----------------------------------------------------------------------------------

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "other")
OTHER_METHOD = len(METHODS) - 1
#: Of answers, by status. "cut" are those that did not reach their end.
CLASSES = ("2xx", "3xx", "4xx", "5xx", "cut")
#: Upper bounds of the histograms' buckets in seconds; the last bucket has none.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BUCKETS = len(BOUNDS) + 1


class Stage(IntEnum):
    EMPTY = 0
    SERVING = 1
    LEAVING = 2


_STAGES = frozenset(Stage)


class Gauge(IntEnum):
    """What a worker is and does now: the first words of its slot."""

    SEQUENCE = 0  # odd while the request's text is being written
    STAGE = auto()
    PID = auto()
    GENERATION = auto()
    BORN = auto()  # time.time_ns()
    REQUEST_STARTED = auto()  # time.monotonic_ns(), 0 when idle
    TEXT_LENGTH = auto()
    CONTENT_LENGTH = auto()
    SENT = auto()
    LAST_DURATION = auto()  # nanoseconds, as the next
    LAST_CPU = auto()
    LAST_STATUS = auto()
    RESIDENT = auto()  # bytes, as the next three
    PROPORTIONAL = auto()
    PRIVATE = auto()
    RESIDENT_PEAK = auto()
    IDLE_SINCE = auto()  # time.monotonic_ns(), 0 before the first answer
    CONNECTIONS = auto()  # as in Slot.hold()
    ACTIVE_SEEN = auto()  # the most workers that it has shown to be busy at once


class PoolGauge(IntEnum):
    """The same words of the slot before the first worker's. Only the master writes them."""

    SEQUENCE = 0  # odd while counters move from a slot to the pool's sums
    HIGHEST = auto()  # number of a slot that was ever used
    STARTED = auto()  # time.time_ns()
    GENERATION = auto()
    TARGET = auto()
    QUEUE = auto()  # connections that wait to be accepted, all sockets together
    QUEUE_LIMIT = auto()
    QUEUE_PEAK = auto()
    ACTIVE_PEAK = auto()
    CEILING = auto()  # the most workers that there may be
    CEILING_REACHED = auto()  # how often more workers were wanted than may be
    SLOW = auto()  # requests that took longer than --slow-after
    SAMPLED = auto()  # time.time_ns() of the last look; 0 when nobody looks
    ACTIVE_SHOWN = auto()  # as a worker's ACTIVE_SEEN; the status process writes this one, and no other
    RESIDENT_PEAK = 15  # as of a worker


GAUGES = 19
assert len(Gauge) == GAUGES
#: Counters: numbers of words.
ACCEPTED, REQUESTS, BYTES_OUT, BYTES_IN, CPU, DURATION_SUM, WAIT_SUM, REFUSED = range(
    GAUGES, GAUGES + 8
)
ANSWERS = GAUGES + 8  # by method, then by class
DURATIONS = ANSWERS + len(METHODS) * len(CLASSES)
WAITS = DURATIONS + _BUCKETS
COUNTERS = WAITS + _BUCKETS
#: Whole cache lines: two workers never write the same one.
WORDS = (COUNTERS + 7) // 8 * 8
_TEXT_NAMES = ("method", "uri", "user", "address", "script", "request_id")
#: Bytes of each text.
URI_CEILING = 255
TEXT_CEILINGS = (16, URI_CEILING, 64, 46, 127, 64)
TEXT_BYTES = 640
assert TEXT_BYTES > sum(TEXT_CEILINGS) + len(_TEXT_NAMES)
SLOT_BYTES = WORDS * 8 + TEXT_BYTES
_WORDS = struct.Struct(f"={COUNTERS}Q")


# -- what readers get ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Histogram:
    """``counts`` has one number for each of BOUNDS, and one for what is above the last."""

    counts: tuple[int, ...]
    sum_ns: int

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulative(self) -> Iterator[tuple[str, int]]:
        """As Prometheus wants it: ("0.001", 3) ... ("+Inf", 17)."""
        total = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.counts):
            total += count
            yield bound, total


@dataclass(frozen=True)
class Counters:
    """What never falls, of one worker or of a whole pool."""

    words: tuple[int, ...]

    def __add__(self, other: Counters) -> Counters:
        return Counters(tuple(map(int.__add__, self.words, other.words)))

    def __sub__(self, other: Counters) -> Counters:
        return Counters(tuple(max(0, now - then) for now, then in zip(self.words, other.words)))

    @classmethod
    def none(cls) -> Counters:
        return cls((0,) * (COUNTERS - GAUGES))

    def _word(self, number: int) -> int:
        return self.words[number - GAUGES]

    @property
    def accepted(self) -> int:
        """Requests that were taken up."""
        return self._word(ACCEPTED)

    @property
    def requests(self) -> int:
        """Those that were answered, in whatever way."""
        return self._word(REQUESTS)

    @property
    def bytes_out(self) -> int:
        return self._word(BYTES_OUT)

    @property
    def bytes_in(self) -> int:
        return self._word(BYTES_IN)

    @property
    def cpu_ns(self) -> int:
        return self._word(CPU)

    @property
    def refused(self) -> int:
        """Connections that were closed because of who made them."""
        return self._word(REFUSED)

    @property
    def durations(self) -> Histogram:
        return Histogram(self._range(DURATIONS, _BUCKETS), self._word(DURATION_SUM))

    @property
    def waits(self) -> Histogram:
        """How long requests waited before they were taken up, of those that say since when."""
        return Histogram(self._range(WAITS, _BUCKETS), self._word(WAIT_SUM))

    def answers(self) -> Iterator[tuple[str, str, int]]:
        """Method, class of status, and how many."""
        for number, count in enumerate(self._range(ANSWERS, len(METHODS) * len(CLASSES))):
            yield METHODS[number // len(CLASSES)], CLASSES[number % len(CLASSES)], count

    def of_class(self, wanted: str) -> int:
        return sum(count for _, kind, count in self.answers() if kind == wanted)

    def _range(self, start: int, length: int) -> tuple[int, ...]:
        return self.words[start - GAUGES : start - GAUGES + length]

    # By name, not by place: another version may have other buckets or methods.

    def to_json(self) -> dict[str, Any]:
        """For another master to go on from, which may be of another version."""
        return {
            "accepted": self.accepted,
            "requests": self.requests,
            "bytes_out": self.bytes_out,
            "bytes_in": self.bytes_in,
            "cpu_ns": self.cpu_ns,
            "refused": self.refused,
            "answers": {f"{method} {kind}": n for method, kind, n in self.answers() if n},
            "durations": _histogram_to_json(self.durations),
            "waits": _histogram_to_json(self.waits),
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Counters:
        """What to_json() has made; what is not known here is left out."""
        words = [0] * (COUNTERS - GAUGES)
        for name, number in _NAMED.items():
            words[number - GAUGES] = as_count(told.get(name, 0))
        answers = told.get("answers", {})
        for number in range(len(METHODS) * len(CLASSES)):
            name = f"{METHODS[number // len(CLASSES)]} {CLASSES[number % len(CLASSES)]}"
            words[ANSWERS - GAUGES + number] = as_count(answers.get(name, 0))
        for key, sum_at, start in (("durations", DURATION_SUM, DURATIONS), ("waits", WAIT_SUM, WAITS)):
            histogram = told.get(key, {})
            words[sum_at - GAUGES] = as_count(histogram.get("sum_ns", 0))
            for number, bound in enumerate((*map(str, BOUNDS), "+Inf")):
                words[start - GAUGES + number] = as_count(histogram.get("counts", {}).get(bound, 0))
        return cls(tuple(words))


_NAMED = {
    "accepted": ACCEPTED, "requests": REQUESTS, "bytes_out": BYTES_OUT, "bytes_in": BYTES_IN, "cpu_ns": CPU,
    "refused": REFUSED,
}  # fmt: skip


def as_count(told: object) -> int:
    """What fits into a word with room for more. Raises TypeError for what is no number."""
    if not isinstance(told, int):
        raise TypeError(f"{told!r} is not a count")
    return max(0, min(told, 2**62))


def _histogram_to_json(histogram: Histogram) -> dict[str, Any]:
    counts = zip((*map(str, BOUNDS), "+Inf"), histogram.counts)
    return {"sum_ns": histogram.sum_ns, "counts": {bound: n for bound, n in counts if n}}


@dataclass(frozen=True)
class Snapshot:
    """One worker. The texts are of the request in progress, else of the last one; empty where they
    could not be read, because they were just being written."""

    number: int
    stage: Stage
    pid: int
    generation: int
    born: int
    request_started: int
    content_length: int
    sent: int
    last_duration: int
    last_cpu: int
    last_status: int
    resident: int
    proportional: int
    private: int
    resident_peak: int
    active_seen: int
    counters: Counters
    method: str = ""
    uri: str = ""
    user: str = ""
    address: str = ""
    script: str = ""
    request_id: str = ""

    @classmethod
    def parse(cls, data: bytes, still: bool = True, number: int = 0) -> Snapshot:
        """``still``: nothing was written while it was copied."""
        words = _WORDS.unpack_from(data)
        texts = [""]
        if still and words[Gauge.SEQUENCE] % 2 == 0:
            length = min(words[Gauge.TEXT_LENGTH], TEXT_BYTES)
            text = data[WORDS * 8 : WORDS * 8 + length].decode("utf-8", "backslashreplace")
            texts = text.split("\0")
        # Whatever a C extension that has gone wild may write here, it must not end the master.
        stage = words[Gauge.STAGE]
        return cls(
            number=number,
            stage=Stage(stage) if stage in _STAGES else Stage.SERVING,
            pid=words[Gauge.PID],
            generation=words[Gauge.GENERATION],
            born=words[Gauge.BORN],
            request_started=words[Gauge.REQUEST_STARTED],
            content_length=words[Gauge.CONTENT_LENGTH],
            sent=words[Gauge.SENT],
            last_duration=words[Gauge.LAST_DURATION],
            last_cpu=words[Gauge.LAST_CPU],
            last_status=words[Gauge.LAST_STATUS],
            resident=words[Gauge.RESIDENT],
            proportional=words[Gauge.PROPORTIONAL],
            private=words[Gauge.PRIVATE],
            resident_peak=words[Gauge.RESIDENT_PEAK],
            active_seen=words[Gauge.ACTIVE_SEEN],
            counters=Counters(words[GAUGES:]),
            **dict(zip(_TEXT_NAMES, texts)),
        )

    @property
    def busy(self) -> bool:
        return self.request_started != 0

    @property
    def requests(self) -> int:
        return self.counters.requests

    @property
    def request(self) -> str:
        """The request in words, in which nothing can forge a line of the log."""
        text = f"{self.method} {self.uri}" if self.method or self.uri else ""
        if self.user:
            text += f" user={self.user!r}"
        if self.request_id:
            text += f" id={self.request_id}"
        return escaped(text)

    @property
    def letter(self) -> str:
        """As in Apache's scoreboard: . none, _ waits, W answers, G leaves."""
        if self.stage is Stage.EMPTY:
            return "."
        if self.stage is Stage.LEAVING:
            return "G"
        return "W" if self.busy else "_"


@dataclass(frozen=True)
class BoardSnapshot:
    """One pool: its own values, its workers, and what all workers that it ever had have counted."""

    gauges: Mapping[PoolGauge, int]
    workers: Sequence[Snapshot]
    totals: Counters

    @classmethod
    def parse(cls, data: bytes, still: Sequence[bool]) -> BoardSnapshot:
        """``still`` as in Snapshot.parse(), of each slot."""
        words = _WORDS.unpack_from(data)
        slots = [
            Snapshot.parse(data[number * SLOT_BYTES : (number + 1) * SLOT_BYTES], still[number], number)
            for number in range(1, len(data) // SLOT_BYTES)
        ]
        totals = Counters(words[GAUGES:])
        for slot in slots:
            totals += slot.counters
        gauges = {gauge: words[gauge] for gauge in PoolGauge}
        return cls(gauges, [slot for slot in slots if slot.stage is not Stage.EMPTY], totals)

    @property
    def active(self) -> int:
        return sum(worker.busy for worker in self.workers)

    @property
    def active_peak(self) -> int:
        """The most workers that anybody has seen busy at once: the master looks once a second, and whoever
        shows the status whenever that is asked for."""
        seen = [worker.active_seen for worker in self.workers]
        shown = self.gauges[PoolGauge.ACTIVE_SHOWN]
        return max([self.active, self.gauges[PoolGauge.ACTIVE_PEAK], shown, *seen])

    @property
    def resident_peak(self) -> int:
        """Of the largest worker ever."""
        peaks = [worker.resident_peak for worker in self.workers]
        return max([self.gauges[PoolGauge.RESIDENT_PEAK], *peaks])

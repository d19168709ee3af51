"""What the pools are and have done, for Prometheus: the OpenMetrics text format 1.0.0, or the older one
(text/plain; version=0.0.4) for who does not ask for it.

Written by ourselves: all figures exist already, on the scoreboards and in the master's news, and
prometheus_client would want them in registries of its own. The tests read it with that library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Callable, Optional

from spawner.ceilings import BYTES, REQUESTS, SECONDS
from spawner.limits import TIMED_OUT
from spawner.status import PoolStatus, Status
from workers.snapshot import BoardSnapshot, Histogram, PoolGauge, Stage

#: Suffix of the name, labels, value.
Sample = tuple[str, Mapping[str, str], float]


@dataclass(frozen=True)
class Family:
    """One metric with its samples. ``name`` is without the suffix that its kind demands."""

    name: str
    kind: str  # counter, gauge, histogram or info
    help: str
    samples: list[Sample] = field(default_factory=list)

    def add(self, value: Optional[float], **labels: str) -> None:
        """``None`` is not known, and left out."""
        if value is not None:
            suffix = {"counter": "_total", "info": "_info"}.get(self.kind, "")
            self.samples.append((suffix, labels, value))

    def add_histogram(self, histogram: Histogram, **labels: str) -> None:
        for bound, count in histogram.cumulative():
            self.samples.append(("_bucket", {**labels, "le": _bound(bound)}, count))
        self.samples.append(("_count", labels, histogram.count))
        self.samples.append(("_sum", labels, histogram.sum_ns / 1e9))

    def lines(self, openmetrics: bool) -> Iterator[str]:
        name, kind = self.name, self.kind
        if not openmetrics:
            # The older format has the names of samples here, and no kind for mere labels.
            name += {"counter": "_total", "info": "_info"}.get(kind, "")
            kind = "gauge" if kind == "info" else kind
        yield f"# TYPE {name} {kind}"
        yield f"# HELP {name} {self.help}"
        for suffix, labels, value in self.samples:
            shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            yield f"{self.name}{suffix}{{{shown}}} {value}"


def _bound(bound: str) -> str:
    """OpenMetrics has bounds in the form of floating point numbers."""
    return bound if bound == "+Inf" else str(float(bound))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def media_type(openmetrics: bool) -> str:
    if openmetrics:
        return "application/openmetrics-text; version=1.0.0; charset=utf-8"
    return "text/plain; version=0.0.4; charset=utf-8"


def render(boards: Mapping[str, BoardSnapshot], status: Optional[Status], openmetrics: bool) -> str:
    """The whole page: ``boards`` by the pools' names, ``status`` as the master has told it last."""
    pools = [] if status is None else status["pools"]
    families = [*_of_boards(boards), _workers(boards, pools), *_of_pools(pools)]
    if status is not None:
        families += _of_master(status)
    lines = [line for family in families if family.samples for line in family.lines(openmetrics)]
    # To the older format it is a comment.
    return "\n".join([*lines, "# EOF"]) + "\n"


# -- from the scoreboards ------------------------------------------------------------------------


def _of_boards(boards: Mapping[str, BoardSnapshot]) -> Iterator[Family]:
    yield _requests(boards)
    yield _histogram(
        boards, "request_duration", "Time to answer a request.", lambda board: board.totals.durations
    )
    yield _histogram(
        boards,
        "request_queue",
        "Time a request waited before it was taken up, where that is known.",
        lambda board: board.totals.waits,
    )
    for name, help, value in _COUNTERS:
        yield _each(boards, Family(f"trac_spawn_{name}", "counter", help), value)
    for name, help, value in _GAUGES:
        yield _each(boards, Family(f"trac_spawn_{name}", "gauge", help), value)
    yield from _memory(boards)


Value = Callable[[BoardSnapshot], float]

_COUNTERS: tuple[tuple[str, str, Value], ...] = (
    ("request_cpu_seconds", "Processor time spent on requests.", lambda board: board.totals.cpu_ns / 1e9),
    ("received_bytes", "Of request bodies.", lambda board: board.totals.bytes_in),
    ("sent_bytes", "Of answers without their headers.", lambda board: board.totals.bytes_out),
    (
        "refused_connections",
        "Connections closed because of who made them.",
        lambda board: board.totals.refused,
    ),
    (
        "slow_requests",
        "Requests that took longer than --slow-after.",
        lambda board: board.gauges[PoolGauge.SLOW],
    ),
    (
        "max_children_reached",
        "How often more workers were wanted than a pool may have.",
        lambda board: board.gauges[PoolGauge.CEILING_REACHED],
    ),
)
_GAUGES: tuple[tuple[str, str, Value], ...] = (
    ("workers_wanted", "Workers wanted now.", lambda board: board.gauges[PoolGauge.TARGET]),
    ("workers_active_peak", "The most workers busy at once.", lambda board: board.active_peak),
    ("worker_resident_peak_bytes", "The most memory a worker ever had.", lambda board: board.resident_peak),
    (
        "listen_queue_peak",
        "The most connections that ever waited to be accepted.",
        lambda board: board.gauges[PoolGauge.QUEUE_PEAK],
    ),
)


def _each(boards: Mapping[str, BoardSnapshot], family: Family, value: Value) -> Family:
    for pool, board in boards.items():
        family.add(value(board), pool=pool)
    return family


def _requests(boards: Mapping[str, BoardSnapshot]) -> Family:
    family = Family("trac_spawn_requests", "counter", "Requests answered; cut: not to their end.")
    for pool, board in boards.items():
        for method, kind, count in board.totals.answers():
            # All of a GET, so that each class can be asked for before it first happens.
            if count or method == "GET":
                family.add(count, pool=pool, method=method, status=kind)
    return family


def _histogram(
    boards: Mapping[str, BoardSnapshot],
    name: str,
    help: str,
    value: Callable[[BoardSnapshot], Histogram],
) -> Family:
    family = Family(f"trac_spawn_{name}_seconds", "histogram", help)
    for pool, board in boards.items():
        family.add_histogram(value(board), pool=pool)
    return family


def _workers(boards: Mapping[str, BoardSnapshot], pools: Iterable[PoolStatus]) -> Family:
    family = Family("trac_spawn_workers", "gauge", "Workers by what they do.")
    for pool, board in boards.items():
        serving = [worker for worker in board.workers if worker.stage is Stage.SERVING]
        busy = sum(worker.busy for worker in serving)
        family.add(len(serving) - busy, pool=pool, state="idle")
        family.add(busy, pool=pool, state="busy")
        family.add(len(board.workers) - len(serving), pool=pool, state="leaving")
    for told in pools:
        starting = sum(worker["state"] == "starting" for worker in told["workers"])
        family.add(starting, pool=told["name"], state="starting")
    return family


def _memory(boards: Mapping[str, BoardSnapshot]) -> Iterator[Family]:
    """By slot and not by pid, or there would be ever more series. 0 is not known."""
    for name, help in (
        ("resident", "Memory of a worker that is in RAM (RSS)."),
        ("proportional", "The same, what is shared divided by who shares it (PSS)."),
        ("private", "Memory of a worker that nobody shares (USS)."),
    ):
        family = Family(f"trac_spawn_worker_{name}_bytes", "gauge", help)
        for pool, board in boards.items():
            for worker in board.workers:
                family.add(getattr(worker, name) or None, pool=pool, worker=str(worker.number))
        yield family


# -- from what the master tells ------------------------------------------------------------------


def _of_master(status: Status) -> Iterator[Family]:
    version = Family("trac_spawn", "info", "The running program.")
    version.add(1, version=status["master"]["version"])
    yield version
    started = Family("trac_spawn_start_time_seconds", "gauge", "When the master started, since 1970.")
    started.add(status["master"]["started"])
    yield started


def _of_pools(pools: Iterable[PoolStatus]) -> Iterator[Family]:
    queue = Family("trac_spawn_listen_queue", "gauge", "Connections that wait to be accepted.")
    limit = Family("trac_spawn_listen_queue_limit", "gauge", "How many may wait to be accepted.")
    most = Family("trac_spawn_workers_max", "gauge", "How many workers the pool may have.")
    serving = Family("trac_spawn_generation", "gauge", "The generation that serves.")
    age = Family("trac_spawn_template_age_seconds", "gauge", "Since the template was started.")
    limits = [
        (options, Family(f"trac_spawn_limit_{unit}", "gauge", "Limits of a pool, by option; 0 for none."))
        for unit, options in (("bytes", BYTES), ("seconds", SECONDS), ("requests", REQUESTS))
    ]
    reloads = Family("trac_spawn_reloads", "counter", "Reloads of a pool by result.")
    recycled = Family("trac_spawn_recycled_workers", "counter", "Workers replaced, by cause.")
    died = Family("trac_spawn_dead_workers", "counter", "Workers that died unasked, by cause.")
    overdue = Family("trac_spawn_request_timeouts", "counter", "Requests ended by --request-timeout.")
    for pool in pools:
        name = pool["name"]
        for place in pool["addresses"]:
            queue.add(place["listen_queue"]["waiting"], pool=name, address=place["address"])
            limit.add(place["listen_queue"]["limit"], pool=name, address=place["address"])
        most.add(pool["max_workers"], pool=name)
        serving.add(pool["generation"], pool=name)
        age.add(pool["template"]["age_s"] if pool["template"] else None, pool=name)
        for option, value in pool.get("limits", {}).items():
            for options, family in limits:
                family.add(value if option in options else None, pool=name, option=option)
        reloads.add(pool["reloads"]["ok"], pool=name, result="ok")
        reloads.add(pool["reloads"]["failed"], pool=name, result="failed")
        for cause, count in pool["recycles"].items():
            recycled.add(count, pool=name, cause=cause)
        for cause, count in pool["deaths"].items():
            died.add(count, pool=name, cause=cause)
        overdue.add(pool["recycles"].get(TIMED_OUT, 0), pool=name)
    yield from (queue, limit, most, serving, age, reloads, recycled, died, overdue)
    yield from (family for _, family in limits)

"""A pool's status as php-fpm has it, so that whatever monitors php-fpm monitors this too.

Names, order, spelling, types and media types are those of php-fpm's status page (8.x), in each of its
formats; rows of our own come after its rows. One function a format; each is pure.
"""

from __future__ import annotations

import html
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Union

from workers.snapshot import BoardSnapshot, PoolGauge, Snapshot, Stage
from workers.text import escaped

Value = Union[str, int, float]
Row = tuple[str, Value]

#: In place of a listen queue that the kernel does not show.
UNKNOWN = 2**64 - 1
_DATE = "%d/%b/%Y:%H:%M:%S %z"
_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
#: php-fpm's names, its help and its types in OpenMetrics.
_METRICS = {
    "accepted conn": ("accepted_connections", "counter", "The number of requests accepted by the pool."),
    "listen queue": ("listen_queue", "gauge", "The number of requests in the queue of pending connections."),
    "max listen queue": ("max_listen_queue", "counter", "The longest queue of pending connections so far."),
    "listen queue len": ("listen_queue_length", "gauge", "The size of the queue of pending connections."),
    "idle processes": ("idle_processes", "gauge", "The number of idle processes."),
    "active processes": ("active_processes", "gauge", "The number of active processes."),
    "total processes": ("total_processes", "gauge", "The number of idle and active processes."),
    "max active processes": ("max_active_processes", "counter", "The most active processes so far."),
    "max children reached": ("max_children_reached", "counter", "How often all processes were too few."),
    "slow requests": ("slow_requests", "counter", "How many requests took longer than --slow-after."),
    "memory peak": ("memory_peak", "gauge", "The most memory that a process ever had, in bytes."),
}  # fmt: skip


@dataclass(frozen=True)
class PoolStatus:
    """One pool at one moment. ``now`` is time.time_ns(), ``clock`` time.monotonic_ns(). ``limits`` are by
    option, in bytes, seconds or requests."""

    name: str
    pm: str
    board: BoardSnapshot
    now: int
    clock: int
    limits: Mapping[str, float] = field(default_factory=dict)

    def rows(self) -> list[Row]:
        """php-fpm's, in its order."""
        gauges = self.board.gauges
        total = len(self.board.workers)
        active = self.board.active
        return [
            ("pool", self.name),
            ("process manager", self.pm),
            ("start time", gauges[PoolGauge.STARTED] // 10**9),
            ("start since", max(0, self.now - gauges[PoolGauge.STARTED]) // 10**9),
            ("accepted conn", self.board.totals.accepted),
            ("listen queue", _known(gauges[PoolGauge.QUEUE])),
            ("max listen queue", gauges[PoolGauge.QUEUE_PEAK]),
            ("listen queue len", gauges[PoolGauge.QUEUE_LIMIT]),
            ("idle processes", total - active),
            ("active processes", active),
            ("total processes", total),
            ("max active processes", self.board.active_peak),
            ("max children reached", gauges[PoolGauge.CEILING_REACHED]),
            ("slow requests", gauges[PoolGauge.SLOW]),
            ("memory peak", self.board.resident_peak),
        ]

    def own_rows(self) -> list[Row]:
        totals = self.board.totals
        gauges = self.board.gauges
        return [
            ("generation", gauges[PoolGauge.GENERATION]),
            ("wanted processes", gauges[PoolGauge.TARGET]),
            ("max processes", gauges[PoolGauge.CEILING]),
            ("leaving processes", sum(one.stage is Stage.LEAVING for one in self.board.workers)),
            ("scoreboard", "".join(worker.letter for worker in self.board.workers)),
            ("bytes in", totals.bytes_in),
            ("bytes out", totals.bytes_out),
            *((f"answers {kind}", totals.of_class(kind)) for kind in ("2xx", "3xx", "4xx", "5xx", "cut")),
            *((name.replace("-", " "), value) for name, value in self.limits.items()),
        ]

    def process_rows(self, worker: Snapshot) -> list[Row]:
        """php-fpm's for one worker, in its order."""
        busy = worker.busy
        took = self.clock - worker.request_started if busy else worker.last_duration
        cpu = 0.0 if busy or not worker.last_duration else worker.last_cpu / worker.last_duration * 100
        return [
            ("pid", worker.pid),
            ("state", "Running" if busy else "Ending" if worker.stage is Stage.LEAVING else "Idle"),
            ("start time", worker.born // 10**9),
            ("start since", max(0, self.now - worker.born) // 10**9),
            ("requests", worker.counters.accepted),
            ("request duration", max(0, took) // 1000),
            ("request method", _text(worker.method)),
            ("request uri", _text(worker.uri)),
            ("content length", worker.content_length),
            ("user", _text(worker.user)),
            ("script", _text(worker.script)),
            ("last request cpu", round(cpu, 2)),
            ("last request memory", 0 if busy else worker.resident),
        ]

    def own_process_rows(self, worker: Snapshot) -> list[Row]:
        return [
            ("slot", worker.number),
            ("generation", worker.generation),
            ("remote address", _text(worker.address)),
            ("request id", _text(worker.request_id)),
            ("last status", worker.last_status),
            ("bytes sent", worker.sent),
            ("resident memory", worker.resident),
            ("proportional memory", worker.proportional),
            ("private memory", worker.private),
        ]

    def processes(self) -> list[list[Row]]:
        workers = self.board.workers
        return [self.process_rows(worker) + self.own_process_rows(worker) for worker in workers]


def _known(number: int) -> int:
    return -1 if number == UNKNOWN else number


def _text(text: str) -> str:
    """php-fpm's for nothing; and nothing in it can look like another line."""
    return escaped(text) or "-"


# -- formats -------------------------------------------------------------------------------------


def as_text(status: PoolStatus, full: bool) -> str:
    lines = _lines(_with_dates(status.rows() + status.own_rows()))
    for process in status.processes() if full else ():
        lines += ["", "*" * 24, *_lines(_with_dates(_renamed(process)))]
    return "\n".join(lines) + "\n"


def _lines(rows: Iterable[Row]) -> list[str]:
    return [f"{name + ':':<21} {_shown(value)}" for name, value in rows]


def _renamed(rows: Iterable[Row]) -> Iterable[Row]:
    """In text, and there alone, php-fpm writes URI in capitals."""
    return [("request URI" if name == "request uri" else name, value) for name, value in rows]


def as_json(status: PoolStatus, full: bool) -> str:
    processes = {"processes": [dict(rows) for rows in status.processes()]} if full else {}
    return json.dumps({**dict(status.rows()), **processes, **dict(status.own_rows())})


def as_xml(status: PoolStatus, full: bool) -> str:
    lines = ['<?xml version="1.0" ?>', "<status>"]
    lines += [_element(row) for row in status.rows() + status.own_rows()]
    if full:
        lines.append("<processes>")
        for process in status.processes():
            lines.append(f"<process>{''.join(map(_element, process))}</process>")
        lines.append("</processes>")
    return "\n".join([*lines, "</status>"])


def _element(row: Row) -> str:
    name = row[0].replace(" ", "-")
    return f"<{name}>{html.escape(_shown(row[1]))}</{name}>"


def as_html(status: PoolStatus, full: bool) -> str:
    title = "trac-spawn status"
    lines = ["<!DOCTYPE html>", f'<html lang="en"><head><title>{title}</title></head>', "<body>", "<table>"]
    for name, value in _with_dates(status.rows() + status.own_rows()):
        lines.append(f"<tr><th>{name}</th><td>{html.escape(_shown(value))}</td></tr>")
    lines.append("</table>")
    if full:
        lines += ['<table border="1">', *_html_processes(status.processes()), "</table>"]
    return "\n".join([*lines, "</body></html>"])


def _html_processes(processes: Sequence[Sequence[Row]]) -> Iterable[str]:
    for number, process in enumerate(processes):
        if number == 0:
            yield f"<tr>{''.join(f'<th>{name}</th>' for name, _ in process)}</tr>"
        cells = (html.escape(_shown(value)) for _, value in _with_dates(process))
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def as_openmetrics(status: PoolStatus, full: bool) -> str:
    """As php-fpm, which names counters without the suffix that the standard wants. Never of
    processes: a series for each pid would never end."""
    rows = dict(status.rows())
    about = f"Could pool {_label(status.name)} using a {status.pm} PM on PHP-FPM be reached?"
    lines = _metric("phpfpm_up", "gauge", about, 1)
    since = "The number of seconds since FPM has started."
    lines += _metric("phpfpm_start_since", "counter", since, rows["start since"])
    for name, (metric, kind, text) in _METRICS.items():
        lines += _metric(f"phpfpm_{metric}", kind, text, rows[name])
    for name, value in status.own_rows():
        if not isinstance(value, str):
            own = "trac_spawn_" + name.replace(" ", "_")
            lines += _metric(own, "gauge", f"{name[0].upper()}{name[1:]}.", value)
    return "\n".join([*lines, "# EOF"]) + "\n"


def _metric(name: str, kind: str, about: str, value: Value) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}", f"{name} {value}"]


def _label(text: str) -> str:
    return _text(text).replace("\\", "\\\\")


def _shown(value: Value) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _with_dates(rows: Iterable[Row]) -> list[Row]:
    """What is for people has a date; what is for programs, seconds since 1970."""
    return [
        (name, time.strftime(_DATE, time.localtime(int(value))) if name == "start time" else value)
        for name, value in rows
    ]


#: By what the query asks for, in php-fpm's order of preference: media type and function.
FORMATS: dict[str, tuple[str, Callable[[PoolStatus, bool], str]]] = {
    "html": ("text/html; charset=utf-8", as_html),
    "xml": ("text/xml; charset=utf-8", as_xml),
    "json": ("application/json", as_json),
    "openmetrics": (_OPENMETRICS, as_openmetrics),
    "": ("text/plain; charset=utf-8", as_text),
}


def render(status: PoolStatus, query: str) -> tuple[str, str]:
    """Media type and text, as the query asks for them: ``json&full``."""
    asked = {part.partition("=")[0] for part in query.split("&")}
    for name, (media_type, function) in FORMATS.items():
        if name in asked or not name:
            return media_type, function(status, "full" in asked)
    raise AssertionError("the last format is for everything")

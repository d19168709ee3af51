"""The page for people: what the pools are and have done, as one HTML page that needs nothing else.

All is in the HTML, for who looks without JavaScript; with it, the page fetches itself again every two
seconds. It says in its Content-Security-Policy what it has, so nothing else can run or load there.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Optional

import jinja2

from spawner.history import POINTS, STEP, Interval, Point, intervals, percentile
from spawner.news import News
from spawner.report import limits_in_words, moment, size, span
from spawner.status import PoolStatus
from workers.snapshot import BoardSnapshot, PoolGauge, Snapshot, Stage
from workers.text import escaped

#: Of a graph, in the units of its drawing.
WIDTH, HEIGHT = 360, 60
#: Two points further apart than this (seconds) have no line between them.
GAP = 3 * STEP
_LETTERS = {".": "none", "_": "idle", "W": "busy", "G": "leaving"}


@dataclass(frozen=True)
class PoolView:
    name: str
    pm: str
    board: BoardSnapshot
    points: Sequence[Point]


@dataclass(frozen=True)
class Graph:
    title: str
    #: In words, of the newest value and of the highest.
    now: str
    most: str
    #: Of each line: pieces, each "x,y x,y".
    lines: Sequence[Sequence[str]]


def prepare() -> None:
    """Read all that the page is made from."""
    headers()
    _template()


def headers() -> list[tuple[str, str]]:
    """Those that keep the page what it is, wherever it is shown."""
    policy = (
        "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'none'; style-src '{_hash('style.css')}'; script-src '{_hash('live.js')}'"
    )
    return [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ]


def render(pools: Sequence[PoolView], news: News, now: float, clock: int) -> str:
    """``now`` is time.time(), ``clock`` time.monotonic_ns()."""
    told = {pool["name"]: pool for pool in news.status["pools"]} if news.status else {}
    return _template().render(
        style=_piece("style.css"),
        script=_piece("live.js"),
        master=news.status["master"] if news.status else None,
        moment=moment,
        span=span,
        now=now,
        pools=[_pool(pool, told.get(pool.name), now, clock) for pool in pools],
        deaths=list(reversed(news.deaths)),
        slow=list(reversed(news.slow)),
        size=size,
    )


def _pool(pool: PoolView, told: Optional[PoolStatus], now: float, clock: int) -> dict[str, Any]:
    board = pool.board
    totals = board.totals
    past = intervals(list(pool.points))
    limits = told.get("limits", {}) if told else {}
    counts = list(totals.durations.counts)
    return {
        "name": pool.name,
        "pm": pool.pm,
        "told": told,
        "limits": limits_in_words(told) if told else [],
        "board": board,
        "active": board.active,
        "total": len(board.workers),
        "letters": "".join(worker.letter for worker in board.workers),
        "wanted": board.gauges[PoolGauge.TARGET],
        "slow": board.gauges[PoolGauge.SLOW],
        "classes": [(kind, totals.of_class(kind)) for kind in ("2xx", "3xx", "4xx", "5xx", "cut")],
        "percentiles": [(share, milliseconds(percentile(counts, share / 100))) for share in (50, 95, 99)],
        # As in top.py.
        "most_private": limits.get("max-memory") or max([one.private for one in board.workers], default=0),
        "workers": [_worker(worker, clock) for worker in board.workers],
        "graphs": _graphs(past, now),
    }


def _worker(worker: Snapshot, clock: int) -> dict[str, Any]:
    took = clock - worker.request_started if worker.busy else worker.last_duration
    request = " ".join(filter(None, (worker.method, worker.uri)))
    return {
        "slot": worker,
        "letter": worker.letter,
        "state": "leaving" if worker.stage is Stage.LEAVING else _LETTERS[worker.letter],
        "request": escaped(request),
        "took": milliseconds(took / 1e9) if request else "",
        "who": worker.user or worker.address,
    }


def milliseconds(seconds: float) -> str:
    """Short times in their own unit."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else span(seconds)


# -- graphs --------------------------------------------------------------------------------------


def _graphs(past: list[Interval], now: float) -> list[Graph]:
    return [
        _graph("Requests a second", past, now, [[one.rate for one in past]], lambda v: f"{v:.1f}"),
        _graph(
            "Time of an answer, half and 95 % of them",
            past,
            now,
            [[one.median for one in past], [one.slowest for one in past]],
            milliseconds,
        ),
        _graph("Memory of all workers", past, now, [[one.memory for one in past]], lambda v: size(int(v))),
        _graph("Busy workers", past, now, [[one.busy for one in past]], lambda v: f"{v:.0f}"),
        _graph("Waiting connections", past, now, [[one.queue for one in past]], lambda v: f"{v:.0f}"),
    ]


def _graph(title: str, past: list[Interval], now: float, lines: list[list[Any]], shown: Any) -> Graph:
    most = max((value for line in lines for value in line), default=0)
    latest = ", ".join(shown(line[-1]) for line in lines if line)
    times = [one.at for one in past]
    return Graph(title, latest, shown(most), [_pieces(times, line, most, now) for line in lines])


def _pieces(times: list[float], values: list[Any], most: float, now: float) -> list[str]:
    """The line as it is drawn: where nothing was noted, it has a gap."""
    pieces: list[list[str]] = []
    before = float("-inf")
    for at, value in zip(times, values):
        x = WIDTH - (now - at) / (POINTS * STEP) * WIDTH
        y = HEIGHT - 1 - (value / most if most else 0) * (HEIGHT - 2)
        if at - before > GAP:
            pieces.append([])
        pieces[-1].append(f"{x:.1f},{y:.1f}")
        before = at
    return [" ".join(piece) for piece in pieces]


# -- the files -----------------------------------------------------------------------------------


@lru_cache(maxsize=None)
def _piece(name: str) -> str:
    return (resources.files("spawner.page") / name).read_text(encoding="utf-8")


def _hash(name: str) -> str:
    digest = hashlib.sha256(_piece(name).encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


@lru_cache(maxsize=None)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_piece("page.html"))

"""trac-spawnctl top: the pools in a terminal, drawn anew every second; where there is none, once and as plain
text."""

from __future__ import annotations

import io
import os
import select
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, Optional

from rich.console import Console, Group, JustifyMethod
from rich.live import Live
from rich.table import Table
from rich.text import Text

from spawner.report import busy_for, known, size, span
from spawner.status import PoolStatus, Status, WorkerStatus
from workers.text import printable

#: Of the sparkline: how many steps it remembers.
REMEMBERED = 60
#: Where nobody can say how wide the output is: wide enough for each column, and for all of a request.
PLAIN_WIDTH = 500
_LEVELS = "▁▂▃▄▅▆▇█"
_BAR = 8
#: Of the table: titles, whether they are aligned to the right, and from which width of the terminal on
#: there is room for them. The last one gets what the others leave.
_COLUMNS = (
    ("SLOT", True, 0), ("GEN", True, 90), ("PID", True, 70), ("STATE", False, 0), ("REQUESTS", True, 60),
    ("AGE", True, 90), ("MEMORY", True, 50), ("PRIVATE", False, 100), ("FOR", True, 0), ("REQUEST", False, 0),
)  # fmt: skip


#: By its name: what comes first.
SORTS: dict[str, Callable[[WorkerStatus], float]] = {
    "slot": lambda worker: worker["slot"],
    "time": lambda worker: -busy_for(worker),
    "requests": lambda worker: -worker["requests"],
    "memory": lambda worker: -(worker["rss"] or 0),
    "age": lambda worker: -worker["age_s"],
}


# -- what has happened between two looks ---------------------------------------------------------


@dataclass
class Pace:
    """One pool's requests, look by look."""

    at: float = 0.0
    requests: int = 0
    spent_ns: int = 0
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    #: Seconds that an answer took since the last look; None without one.
    mean: Optional[float] = None

    def follow(self, pool: PoolStatus, now: float) -> None:
        totals = pool.get("totals", {})
        requests = totals.get("requests", 0)
        spent = totals.get("durations", {}).get("sum_ns", 0)
        answered = requests - self.requests
        if self.at:
            self.rates.append(max(0, answered) / max(now - self.at, 0.001))
            self.mean = (spent - self.spent_ns) / answered / 1e9 if answered > 0 else None
        self.at, self.requests, self.spent_ns = now, requests, spent


def sparkline(rates: list[float]) -> str:
    most = max(rates, default=0.0)
    return "".join(_LEVELS[round(rate / most * (len(_LEVELS) - 1)) if most else 0] for rate in rates)


def bar(value: float, most: float, blocks: str = "█·") -> str:
    filled = min(round(value / most * _BAR), _BAR) if most else 0
    return blocks[0] * filled + blocks[1] * (_BAR - filled)


# -- the picture ---------------------------------------------------------------------------------


class Screen:
    """What is shown of one answer, and of those before it. ``plain``: once, in ASCII, in the order given."""

    def __init__(self, sort: str = "slot", plain: bool = False) -> None:
        self.sort = sort
        self._plain = plain
        self._blocks = "#." if plain else "█·"
        self._paces: dict[str, Pace] = {}

    def follow(self, status: Status, now: float) -> None:
        for pool in status["pools"]:
            self._paces.setdefault(pool["name"], Pace()).follow(pool, now)

    def draw(self, status: Status, columns: int, rows: Optional[int] = None) -> Group:
        """``columns`` and ``rows`` of the terminal; None for any number of rows."""
        master = status["master"]
        told = f"{master['state']} for {span(master['age_s'])}"
        parts: list[Any] = [_line(f"trac-spawn {master['version']} (pid {master['pid']}): {told}")]
        rooms = _rooms(status["pools"], rows)
        for pool in status["pools"]:
            if rooms is None:
                parts.append(next(self._pool(pool)))
            else:
                parts += [Text(""), *self._pool(pool)]
                parts += self._workers(pool, columns, rooms[pool["name"]])
        return Group(*parts)

    def _pool(self, pool: PoolStatus) -> Iterator[Text]:
        workers = pool["workers"]
        busy = sum(worker["state"] == "busy" for worker in workers)
        line = _line(printable(f"{pool['name']} "), "bold")
        line.append(pool["state"], style="green" if pool["state"] == "running" else "red")
        line.append(f"  generation {pool['generation']}, {busy} of {len(workers)} workers busy  ")
        yield line.append(pool.get("scoreboard", ""), style="bold")
        pace = self._paces.get(pool["name"], Pace())
        rates = list(pace.rates)
        now = f"{rates[-1]:.1f}/s" if rates else "-"
        mean = f"{pace.mean * 1000:.1f} ms each" if pace.mean is not None else ""
        yield _line(f"  requests {pace.requests}, {now} {mean} ").append(sparkline(rates), style="cyan")
        for place in pool["addresses"]:
            queue = place["listen_queue"]
            waiting, limit = queue["waiting"], queue["limit"]
            text = _line(printable(f"  {place['address']}: {known(waiting)} of {known(limit)} waiting "))
            yield text.append(bar(waiting or 0, limit or 0, self._blocks), style="red" if waiting else "")

    def _workers(self, pool: PoolStatus, columns: int, room: int) -> Iterator[Any]:
        workers = pool["workers"] if self._plain else sorted(pool["workers"], key=SORTS[self.sort])
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="reverse", expand=True)
        shown = [columns >= least for _, _, least in _COLUMNS]
        for name, right, _ in compress(_COLUMNS, shown):
            justify: JustifyMethod = "right" if right else "left"
            table.add_column(name, justify=justify, no_wrap=True, ratio=1 if name == "REQUEST" else None)
        most = _most_private(pool)
        for worker in workers[:room]:
            row = _row(worker, bar(worker["private"] or 0, most, self._blocks))
            table.add_row(*compress(row, shown))
        yield table
        if len(workers) > room:
            yield Text(f"  and {len(workers) - room} more")


def _most_private(pool: PoolStatus) -> float:
    """What a bar of private memory is measured by: --max-memory, or the worker that has the most. All that
    workers share would make each bar as long as the other."""
    largest = max((worker["private"] or 0 for worker in pool["workers"]), default=0)
    return pool.get("limits", {}).get("max-memory") or largest


def _rooms(pools: list[PoolStatus], rows: Optional[int]) -> Optional[dict[str, int]]:
    """For how many workers of each pool there is a line; None where there is only one for each pool."""
    if rows is None:
        return {pool["name"]: len(pool["workers"]) for pool in pools}
    # Of each pool an empty line, two on its own and the head of the table; of all, the first and the last.
    left = rows - 2 - sum(4 + len(pool["addresses"]) for pool in pools)
    if left < 2 * len(pools):
        return None
    rooms: dict[str, int] = {}
    # Who needs little comes first: the others have what it leaves.
    for number, pool in enumerate(sorted(pools, key=lambda pool: len(pool["workers"]))):
        share, wanted = left // (len(pools) - number), len(pool["workers"])
        # The last line says how many more there are.
        rooms[pool["name"]] = wanted if wanted <= share else share - 1
        left -= min(wanted, share)
    return rooms


def _line(text: str, style: str = "") -> Text:
    """One that is cut where the terminal ends."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _row(worker: WorkerStatus, memory: str) -> list[Text]:
    request = worker["request"]
    shown = ""
    if request is not None:
        shown = f"{request.get('method', '')} {request.get('uri', '')} {request.get('user', '')}".strip()
    style = {"busy": "cyan", "leaving": "yellow", "starting": "yellow"}.get(worker["state"], "")
    return [
        Text(str(worker["slot"])),
        Text(str(worker["generation"])),
        Text(known(worker["pid"])),
        Text(worker["state"], style=style),
        Text(str(worker["requests"])),
        Text(span(worker["age_s"])),
        Text(size(worker["rss"])),
        Text(memory),
        Text("-" if request is None else span(request["started_s_ago"])),
        Text(printable(shown)),
    ]


def lines(status: Status) -> Iterator[str]:
    """As plain text."""
    screen = Screen(plain=True)
    screen.follow(status, time.monotonic())
    file = io.StringIO()
    console = Console(file=file, width=PLAIN_WIDTH, color_system=None, force_terminal=False)
    console.print(screen.draw(status, PLAIN_WIDTH))
    yield from (line.rstrip() for line in file.getvalue().splitlines())


# -- the terminal --------------------------------------------------------------------------------

_HELP = "order: s slot, t time, r requests, m memory, a age; q ends"
_KEYS = {name[0]: name for name in SORTS}


def watch(ask: Callable[[], Status], sort: str, interval: float) -> Status:
    """Show what ``ask`` answers, until q is pressed; the last answer. Raises what ``ask`` raises."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that does not know UTF-8
    console = Console()
    screen = Screen(sort)
    status = ask()
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                screen.follow(status, time.monotonic())
                until = time.monotonic() + interval
                while time.monotonic() < until:
                    help = _line(f"now by {screen.sort}; {_HELP}", "dim")
                    drawn = screen.draw(status, console.width, console.height)
                    live.update(Group(drawn, help), refresh=True)
                    key = _key(keyboard, until - time.monotonic())
                    if key in ("q", "\x04"):
                        return status
                    screen.sort = _KEYS.get(key, screen.sort)
                status = ask()
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _key(keyboard: int, timeout: float) -> str:
    """The one that is pressed within so many seconds, or nothing."""
    ready, _, _ = select.select([keyboard], [], [], max(0.0, timeout))
    if not ready:
        return ""
    # The end of the terminal is the end of looking at it.
    return os.read(keyboard, 1).decode("latin-1") or "q"

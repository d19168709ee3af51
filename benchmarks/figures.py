"""What a study found out, before anybody formats it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

Figure = Optional[float]
Best = Callable[[Sequence[float]], float]


@dataclass(frozen=True)
class Row:
    """``figures`` has the columns' keys; ``best`` (max or min) says which figure is the better."""

    title: str
    figures: Mapping[str, Figure]
    best: Best


@dataclass(frozen=True)
class Table:
    """``columns``: key to heading. ``ours`` is the column that the last one, their ratio, sets
    against the best of the others; without it there is no such column."""

    title: str
    columns: Mapping[str, str]
    rows: Sequence[Row]
    ours: str = ""

    def ratio(self, row: Row) -> Figure:
        others = [f for key, f in row.figures.items() if f is not None and key != self.ours]
        own, best = row.figures.get(self.ours), row.best(others) if others else 0
        return own / best if own is not None and best else None

    @property
    def compares(self) -> bool:
        return self.ours in self.columns and len(self.columns) > 1


@dataclass(frozen=True)
class Outcome:
    """``raw`` is for JSON; ``pictures`` are SVG by file name."""

    tables: Sequence[Table]
    raw: Any
    pictures: Mapping[str, str] = field(default_factory=dict)
    #: Requests that were not answered rightly, in words.
    failures: Sequence[str] = ()

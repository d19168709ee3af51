"""The README's table: ``python -m benchmarks.summary RESULTS.json...``, one run or several.

Where two files have the same study, the later one counts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.figures import Best, Figure, Row, Table
from benchmarks.pages import ALL, MADE, WIKI, Page
from benchmarks.peers import OURS, PEERS
from benchmarks.studies.memory import WITH_KSM

Studies = dict[str, Any]


def of(files: Iterable[Path]) -> str:
    """In reStructuredText."""
    studies: Studies = {}
    for file in files:
        studies.update(json.loads(file.read_text())["studies"])
    rows = [row for row in _rows(studies) if any(f is not None for f in row.figures.values())]
    measured = [peer for peer in PEERS if any(row.figures.get(peer.name) for row in rows)]
    return simple_table(Table("Summary", {peer.name: peer.name for peer in measured}, rows, OURS.name))


def _rows(studies: Studies) -> list[Row]:
    memory = studies.get("memory", {})
    usual = {name: sizes for name, sizes in memory.items() if not name.endswith(WITH_KSM)}
    merged = {name[: -len(WITH_KSM)]: memory[name] for name in memory if name.endswith(WITH_KSM)}
    rate, wait, cpu = "requests_per_second", "p99_ms", "cpu_ms"
    return [
        *(_of_page(studies, "pages", page, rate, f"{page.short}, req/s", max) for page in ALL),
        _of_page(studies, "pages", WIKI, wait, f"{WIKI.short}, p99 ms", min),
        *(_of_page(studies, "pages", page, cpu, f"{page.short}, CPU ms", min) for page in ALL),
        *(_of_page(studies, "large", page, rate, f"large: {page.short}, req/s", max) for page in MADE),
        *(_of_page(studies, "large", page, cpu, f"large: {page.short}, CPU ms", min) for page in MADE),
        _row("worker killed, ms", studies.get("respawn", {}), median, min),
        _row("8 workers, MB", usual, _eight, min),
        _row("8 with --ksm, MB", merged, _eight, min),
    ]


def _of_page(
    studies: Studies, study: str, page: Page, figure: str, title: str, best: Best
) -> Row:
    def read(pages: Any) -> Figure:
        found: Figure = pages.get(page.title, {}).get(figure)
        return found

    return _row(title, studies.get(study, {}), read, best)


def _row(title: str, by_peer: Any, read: Any, best: Best) -> Row:
    return Row(title, {name: read(figures) for name, figures in by_peer.items() if figures}, best)


def _eight(sizes: Any) -> Figure:
    return sizes["8"]["pss_bytes"] / 1e6 if "8" in sizes else None


def simple_table(table: Table) -> str:
    """Its first heading must not be empty."""
    head, *rows = [[cell.replace("**", "") for cell in line] for line in report.cells(table)]
    head[0] = "\\"
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    rule = "  ".join("=" * width for width in widths)

    def line(cells: Sequence[str]) -> str:
        aligned = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]
        return "  ".join([cells[0].ljust(widths[0]), *aligned])

    return "\n".join([rule, line(head), rule, *map(line, rows), rule, ""])


if __name__ == "__main__":
    print(of(map(Path, sys.argv[1:])), end="")

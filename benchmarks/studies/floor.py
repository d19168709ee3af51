"""Processor time of a page beside that of Trac itself, called in a process with a frozen heap, as it is and
with what workers change in it, and in which parts of Trac that goes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Outcome, Row, Table
from benchmarks.pages import Page
from benchmarks.peers import OURS
from benchmarks.processes import ROOT
from benchmarks.rounds import Rounds

#: Trac's own function, and what it is in the tables.
BARE = {
    "bare": "dispatch_request in-process",
    "accelerated": "dispatch_request in-process, accelerated",
}


def study(bench: Bench) -> Outcome:
    pages = bench.plan.made
    rounds = Rounds()
    bare: dict[str, dict[str, list[float]]] = {way: {p.title: [] for p in pages} for way in BARE}
    parts: dict[str, dict[str, Counter[str]]] = {way: {p.title: Counter() for p in pages} for way in BARE}
    with bench.stage([OURS]) as stage:
        stage.say("beside Trac called in-process")
        stage.start(pages, bench.plan.workers)
        for _ in range(bench.plan.rounds):
            for page, peer in stage.turns(pages):
                for way in BARE:
                    found = _in_process(bench, page, way)
                    bare[way][page.title].append(sum(one["ms"] for one in found) / len(found))
                    for one in found:
                        parts[way][page.title].update(one["parts"])
                rounds.measure_once(stage, page, peer, bench.plan.seconds)
    rows = [
        Row(
            f"{page.title}, CPU ms a request",
            {
                OURS.name: rounds.figure(OURS.name, page.title, "cpu_ms"),
                **{way: median(bare[way][page.title]) if bare[way][page.title] else None for way in BARE},
            },
            min,
        )
        for page in pages
    ]
    columns = {OURS.name: OURS.title, **BARE}
    raw: dict[str, Any] = {OURS.name: rounds.raw(), "in_process_cpu_ms": bare, "samples": parts}
    tables = [Table("Beside Trac alone", columns, rows, OURS.name)]
    tables += [_in_parts(pages, BARE[way], bare[way], parts[way]) for way in BARE]
    return Outcome(tables, raw, {}, rounds.failures())


def _in_parts(
    pages: Sequence[Page],
    title: str,
    bare: Mapping[str, Sequence[float]],
    parts: Mapping[str, Counter[str]],
) -> Table:
    spent: dict[str, dict[str, float]] = {}
    for page in pages:
        for part, number in parts[page.title].items():
            share = number / sum(parts[page.title].values())
            spent.setdefault(part, {})[page.title] = share * median(bare[page.title])
    largest = sorted(spent, key=lambda part: sum(spent[part].values()), reverse=True)
    rows = [Row(part, spent[part], min) for part in largest]
    return Table(f"{title}: its parts, CPU ms a request", {p.title: p.short for p in pages}, rows)


def _in_process(bench: Bench, page: Page, way: str) -> list[dict[str, Any]]:
    """What each has printed, with as many processes at a time as there are workers: who is alone on a
    processor is faster."""
    command = [
        sys.executable, "-m", "benchmarks.inprocess",
        str(bench.small_environment), page.path, str(bench.plan.seconds), way,
    ]  # fmt: skip
    running = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(bench.plan.workers)
    ]
    said = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise BenchmarkError("Trac cannot be called in-process: its words are above")
    return [json.loads(words) for words in said]

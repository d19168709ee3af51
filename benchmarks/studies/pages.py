"""Throughput, latency and processor time of every peer, on a Trac as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from benchmarks import pictures
from benchmarks.bench import Bench
from benchmarks.figures import Outcome, Row, Table
from benchmarks.pages import ALL, Page
from benchmarks.peers import OURS
from benchmarks.rounds import Rounds


def study(bench: Bench) -> Outcome:
    rounds = compare(bench, ALL)
    headings = {peer.name: bench.heading(peer) for peer in bench.peers}
    table = Table("Pages", headings, rows(bench, rounds, ALL), OURS.name)
    return Outcome(
        [table], rounds.raw(), pictures.of_pages(rounds, bench.peers), rounds.failures()
    )


def compare(bench: Bench, pages: Sequence[Page], env: Optional[Path] = None) -> Rounds:
    rounds = Rounds()
    with bench.stage(bench.peers) as stage:
        stage.say("starting " + ", ".join(peer.name for peer in stage.peers))
        stage.start(pages, bench.plan.workers, env)
        rounds.measure(stage, pages, bench.plan)
    return rounds


def rows(bench: Bench, rounds: Rounds, pages: Sequence[Page]) -> list[Row]:
    return [
        rounds.row(f"{page.title}, {unit}", bench.peers, page, figure, best)
        for unit, figure, best in (
            ("requests/s", "requests_per_second", max),
            ("p99, ms", "p99_ms", min),
            ("CPU ms a request", "cpu_ms", min),
        )
        for page in pages
    ]

"""Throughput of every peer by number of workers."""

from __future__ import annotations

from benchmarks import pictures
from benchmarks.bench import Bench
from benchmarks.figures import Outcome, Row, Table
from benchmarks.pages import WIKI
from benchmarks.peers import OURS
from benchmarks.rounds import Rounds


def study(bench: Bench) -> Outcome:
    peers = [peer for peer in bench.peers if peer.scales]
    by_size = {workers: _measure(bench, workers) for workers in bench.plan.sizes}
    unit = "requests_per_second"
    rows: list[Row] = []
    for workers, rounds in by_size.items():
        rows.append(rounds.row(f"{workers} workers, requests/s", peers, WIKI, unit, max))
    table = Table(
        f"Throughput of {WIKI.title} by number of workers",
        {peer.name: bench.heading(peer) for peer in peers},
        rows,
        OURS.name,
    )
    drawn = {
        peer.title: [
            (float(workers), rounds.figure(peer.name, WIKI.title, unit) or 0.0)
            for workers, rounds in by_size.items()
        ]
        for peer in peers
    }
    return Outcome(
        [table],
        {str(workers): rounds.raw() for workers, rounds in by_size.items()},
        {"scaling.svg": pictures.of_scaling(drawn)},
        [failure for rounds in by_size.values() for failure in rounds.failures()],
    )


def _measure(bench: Bench, workers: int) -> Rounds:
    rounds = Rounds()
    with bench.stage([peer for peer in bench.peers if peer.scales]) as stage:
        stage.say(f"{workers} workers each")
        stage.start([WIKI], workers)
        rounds.measure(stage, [WIKI], bench.plan)
    return rounds

"""Results as a Markdown table for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

from benchmarks.load import CONNECTIONS
from benchmarks.machine import BUSY
from benchmarks.pages import all_pages
from benchmarks.peers import OURS
from benchmarks.results import PeerResult, Results


def to_json(results: Results) -> str:
    plan = results.plan
    document = {
        "date": results.date,
        "command": results.command,
        "machine": dataclasses.asdict(results.machine),
        "versions": dict(results.versions),
        "load": {
            "connections": CONNECTIONS,
            "workers": plan.workers,
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "warm_up": plan.warm_up,
        },
        "peers": {result.peer.name: _peer(result) for result in results.peers},
    }
    return json.dumps(document, indent=2) + "\n"


def _peer(result: PeerResult) -> dict[str, Any]:
    return {
        "title": result.peer.title,
        "version": result.version,
        "pages": {
            page: {
                "requests_per_second": result.requests_per_second(page),
                "p50_ms": result.p50_ms(page),
                "p99_ms": result.p99_ms(page),
                "cpu_ms": result.cpu_ms(page),
                "rounds": [dataclasses.asdict(sample) for sample in samples],
            }
            for page, samples in result.samples.items()
        },
        "memory": dataclasses.asdict(result.memory) if result.memory else None,
        "respawn_ms": {"median": result.respawn(), "each": result.respawn_ms},
        "failed_requests": result.failed_requests(),
        "problems": result.problems,
    }


def to_markdown(results: Results) -> str:
    peers = results.peers
    compared = OURS in results.plan.peers and len(peers) > 1
    headings = ["", *(_heading(result) for result in peers), f"{OURS.title} ÷ best other"]
    rows = [
        headings,
        ["---", *("---:" for _ in headings[1:])],
        *_rows(peers, [page.title for page in all_pages()], results.plan.workers),
    ]
    if not compared:
        rows = [row[:-1] for row in rows]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{table}\n\n{_conditions(results)}\n{_complaints(results)}"


def _heading(result: PeerResult) -> str:
    return f"{result.peer.title} {result.version}".strip()


def _rows(peers: Sequence[PeerResult], pages: Sequence[str], workers: int) -> list[list[str]]:
    rows = []
    for measure, figure, best in (
        ("requests/s", PeerResult.requests_per_second, max),
        ("p99, ms", PeerResult.p99_ms, min),
        ("CPU ms a request", PeerResult.cpu_ms, min),
    ):
        for page in pages:
            figures = {result.peer.name: figure(result, page) for result in peers}
            rows.append(_row(f"{page}, {measure}", figures, best))
    sizes = {result.peer.name: _megabytes(result) for result in peers}
    rows.append(_row(f"memory, {workers} workers, sum of PSS, MB", sizes, min))
    waits = {result.peer.name: result.respawn() for result in peers}
    rows.append(_row("a killed worker's successor answers, ms", waits, min))
    return rows


def _megabytes(result: PeerResult) -> Optional[float]:
    return result.memory.pss_bytes / 1e6 if result.memory else None


def _row(
    title: str, figures: Mapping[str, Optional[float]], best: Callable[[list[float]], float]
) -> list[str]:
    others = [value for name, value in figures.items() if value and name != OURS.name]
    ours = figures.get(OURS.name)
    ratio = f"**{_plain(ours / best(others))}**" if ours and others else ""
    return [title, *(_plain(value) for value in figures.values()), ratio]


def _plain(value: Optional[float]) -> str:
    """Three digits that mean something; a dash where nothing was measured."""
    if value is None:
        return "–"
    for limit, places in ((1, 3), (10, 2), (100, 1)):
        if value < limit:
            return f"{value:.{places}f}"
    return f"{value:,.0f}"


def _conditions(results: Results) -> str:
    plan, machine = results.plan, results.machine
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return (
        f"{results.date}, `{results.command}`: medians of {plan.rounds} interleaved rounds of "
        f"{plan.seconds} s a page, {plan.workers} workers each, {CONNECTIONS} connections, one nginx "
        f"in front over Unix sockets. {machine.processor}, {machine.cpus} CPUs, "
        f"{machine.memory_bytes / 1e9:.1f} GB, {machine.system}, {machine.kernel}; {versions}.\n"
    )


def _complaints(results: Results) -> str:
    """Whatever makes the figures doubtful."""
    lines = []
    if results.machine.load_average > BUSY:
        load = results.machine.load_average
        lines.append(f"The machine was busy (load average {load}) before the run: provisional figures.")
    for result in results.peers:
        lines += [f"{result.peer.title}: {' '.join(words.split())}" for words in result.problems]
        for kind, count in result.failed_requests().items():
            lines.append(f"{result.peer.title}: {count:,} failed requests ({kind}).")
    return "".join(f"\n* {line}" for line in lines) + ("\n" if lines else "")

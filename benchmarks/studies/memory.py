"""What every peer's processes take together, by number of workers, each peer alone."""

from __future__ import annotations

from typing import Any

from benchmarks import memory, pictures
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Outcome, Row, Table
from benchmarks.memory import Memory
from benchmarks.pages import WIKI, mixed
from benchmarks.peers import OURS, Peer


def study(bench: Bench) -> Outcome:
    plan = bench.plan
    peers = [peer for peer in bench.peers if peer.scales]
    found: dict[str, dict[int, Memory]] = {peer.name: {} for peer in peers}
    failures: list[str] = []
    for peer in peers:
        bench.say(f"{peer.name}: memory of {', '.join(map(str, plan.sizes))} workers")
        for workers in plan.sizes:
            found[peer.name].update(_measure(bench, peer, workers, failures))

    def figures(workers: int) -> dict[str, Figure]:
        return {name: _megabytes(sizes.get(workers)) for name, sizes in found.items()}

    rows = [Row(f"{workers} workers, MB", figures(workers), min) for workers in plan.sizes]
    title = f"Memory: sum of PSS of all processes after {plan.visits} mixed pages for each worker"
    headings = {peer.name: bench.heading(peer) for peer in peers}
    table = Table(title, headings, rows, OURS.name)
    drawn = {peer.title: _points(found[peer.name]) for peer in peers}
    return Outcome([table], _raw(found), {"memory.svg": pictures.of_memory(drawn)}, failures)


def _measure(bench: Bench, peer: Peer, workers: int, failures: list[str]) -> dict[int, Memory]:
    # Alone: libraries that several peers have loaded would be shared among them.
    with bench.stage([peer]) as stage:
        stage.start([WIKI], workers)
        for left in stage.peers:
            service = stage.service(left, WIKI)
            complaints = service.visits(mixed(), bench.plan.visits * workers)
            failures += [f"{peer.name}: {complaint}" for complaint in complaints]
            return {workers: memory.measure(service.program)}
    return {}


def _megabytes(size: Memory | None) -> Figure:
    return size.pss_bytes / 1e6 if size else None


def _points(sizes: dict[int, Memory]) -> list[tuple[float, float]]:
    return [(workers, size.pss_bytes / 1e6) for workers, size in sizes.items()]


def _raw(found: dict[str, dict[int, Memory]]) -> dict[str, Any]:
    return {
        name: {
            str(workers): {"pss_bytes": size.pss_bytes, "processes": size.processes}
            for workers, size in sizes.items()
        }
        for name, sizes in found.items()
    }

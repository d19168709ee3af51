"""What every peer's processes take together, by number of workers, each peer alone."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

from benchmarks import ksm, memory, pictures
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Outcome, Row, Table
from benchmarks.memory import Memory
from benchmarks.pages import WIKI, mixed
from benchmarks.peers import OURS, Peer

Found = dict[str, dict[int, Memory]]

#: Those that let the kernel merge their pages when told to, with the same option.
MERGING = (OURS.name, "uwsgi")
#: After their names, in the raw figures.
WITH_KSM = " --ksm"


def study(bench: Bench) -> Outcome:
    plan = bench.plan
    peers = [peer for peer in bench.peers if peer.scales]
    failures: list[str] = []
    found: Found = {peer.name: {} for peer in peers}
    for peer in peers:
        bench.say(f"{peer.name}: memory of {', '.join(map(str, plan.sizes))} workers")
        for workers in plan.sizes:
            found[peer.name].update(_measure(bench, peer, workers, failures))
    title = f"Memory: sum of PSS of all processes after {plan.visits} mixed pages for each worker"
    headings = {peer.name: bench.heading(peer) for peer in peers}
    tables = [Table(title, headings, _rows(found, plan.sizes), OURS.name)]
    merged = _merged(bench, peers, failures) if plan.merging else {}
    if merged:
        title = "Memory: the same with --ksm, at rest, when the kernel has merged equal pages"
        columns = {name: headings[name] for name in merged}
        tables.append(Table(title, columns, _rows(merged, plan.sizes[-1:]), OURS.name))
    drawn = {peer.title: _points(found[peer.name]) for peer in peers}
    raw = {**_raw(found), **{name + WITH_KSM: sizes for name, sizes in _raw(merged).items()}}
    return Outcome(tables, raw, {"memory.svg": pictures.of_memory(drawn)}, failures)


def _merged(bench: Bench, peers: list[Peer], failures: list[str]) -> Found:
    why = ksm.obstacle()
    if why:
        bench.say(f"nothing is measured with --ksm: {why}")
        return {}
    found: Found = {}
    for peer in peers:
        if peer.name in MERGING:
            bench.say(f"{peer.name}: memory with --ksm")
            workers = bench.plan.sizes[-1]
            found[peer.name] = _measure(bench, _with_ksm(peer), workers, failures, merge=True)
    return found


def _with_ksm(peer: Peer) -> Peer:
    return dataclasses.replace(peer, command=lambda job: [*peer.command(job), "--ksm"])


def _measure(
    bench: Bench, peer: Peer, workers: int, failures: list[str], merge: bool = False
) -> dict[int, Memory]:
    # Alone: libraries that several peers have loaded would be shared among them.
    with bench.stage([peer]) as stage, ksm.running() if merge else contextlib.nullcontext():
        stage.start([WIKI], workers)
        for left in stage.peers:
            service = stage.service(left, WIKI)
            complaints = service.visits(mixed(), bench.plan.visits * workers)
            failures += [f"{peer.name}: {complaint}" for complaint in complaints]
            with stage.blaming(left):
                if merge:
                    ksm.wait_merged()
                return {workers: memory.measure(service.program)}
    return {}


def _rows(found: Found, sizes: tuple[int, ...]) -> list[Row]:
    def figures(workers: int) -> dict[str, Figure]:
        return {name: _megabytes(of_peer.get(workers)) for name, of_peer in found.items()}

    return [Row(f"{workers} workers, MB", figures(workers), min) for workers in sizes]


def _megabytes(size: Memory | None) -> Figure:
    return size.pss_bytes / 1e6 if size else None


def _points(sizes: dict[int, Memory]) -> list[tuple[float, float]]:
    return [(workers, size.pss_bytes / 1e6) for workers, size in sizes.items()]


def _raw(found: Found) -> dict[str, Any]:
    return {
        name: {
            str(workers): {"pss_bytes": size.pss_bytes, "processes": size.processes}
            for workers, size in sizes.items()
        }
        for name, sizes in found.items()
    }

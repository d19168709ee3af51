"""What the number of workers costs trac-spawn: its start, its master, and its throughput."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import psutil

from benchmarks import cpu, memory
from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Outcome, Row, Table
from benchmarks.notify import Listener
from benchmarks.pages import BARE, TRAC, WIKI
from benchmarks.peers import OURS, Peer, ours, titled_workers
from benchmarks.rounds import Rounds
from benchmarks.service import PATIENCE, Service
from benchmarks.stage import Stage

MEASURES = {
    "start_ms": "start until all are ready, ms",
    "master_rss_mb": "master, MB resident",
    "master_idle_ms": "master, CPU ms in a second without requests",
    "death_cpu_ms": "master, CPU ms for a worker that is killed",
    "pool_pss_mb": "all processes before the first request, sum of PSS, MB",
}


def study(bench: Bench) -> Outcome:
    found: dict[str, dict[str, float]] = {}
    for workers in bench.plan.pool_sizes:
        bench.say(f"start, master and deaths with {workers} workers")
        with bench.stage([OURS]) as stage, stage.blaming(OURS):
            found[str(workers)] = _measure(bench, stage, workers)
    rounds = _throughput(bench)
    rows = [
        Row(title, {size: figures[name] for size, figures in found.items()}, min)
        for name, title in MEASURES.items()
    ]
    rate = {
        str(workers): rounds.figure(_name(workers), BARE.title, "requests_per_second")
        for workers in bench.plan.pool_sizes
    }
    rows.append(Row(f"{BARE.title}, requests/s", rate, max))
    columns = {str(workers): f"{workers} workers" for workers in bench.plan.pool_sizes}
    raw: dict[str, Any] = {"by_workers": found, "throughput": rounds.raw()}
    return Outcome([Table("Cost of size", columns, rows)], raw, {}, rounds.failures())


def _measure(bench: Bench, stage: Stage, workers: int) -> dict[str, float]:
    with Listener(bench.new_directory("notify")) as listener:
        variables = {"NOTIFY_SOCKET": str(listener.path)}
        service = stage.start_one(OURS, TRAC, workers, variables=variables)
        if not listener.wait_ready(PATIENCE):
            raise service.program.failed("does not get ready")
    started = time.monotonic() - service.begun
    service.wait_ready(WIKI)
    master = service.program.roots[0]
    return {
        "start_ms": started * 1000,
        "pool_pss_mb": memory.measure(service.program).pss_bytes / 1e6,
        "master_idle_ms": _idle(master),
        "death_cpu_ms": _deaths(service, workers, bench.plan.deaths) * 1000,
        "master_rss_mb": master.memory_info().rss / 1e6,
    }


def _idle(master: psutil.Process) -> float:
    before = cpu.precisely(master)
    time.sleep(1)
    return (cpu.precisely(master) - before) * 1000


def _deaths(service: Service, workers: int, number: int) -> float:
    """Seconds of processor time that the master spends on each."""
    master = service.program.roots[0]
    before = cpu.precisely(master)
    for _ in range(number):
        victim = titled_workers(master)[0]
        victim.kill()
        _wait_replaced(service, victim, workers)
    return (cpu.precisely(master) - before) / number


def _wait_replaced(service: Service, victim: psutil.Process, workers: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(psutil.NoSuchProcess):
            living = titled_workers(service.program.roots[0])
            if victim not in living and len(living) == workers:
                return
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{service.peer.name} has not replaced a killed worker")
        time.sleep(0.01)


def _throughput(bench: Bench) -> Rounds:
    """Of pools of all sizes, in turns."""
    rounds = Rounds()
    pools = _pools(bench.plan.pool_sizes)
    with bench.stage(pools) as stage:
        stage.start([BARE], bench.plan.workers)
        rounds.measure(stage, [BARE], bench.plan)
    return rounds


def _pools(sizes: Sequence[int]) -> list[Peer]:
    """``-n`` is given twice: the last one counts. None of them is replaced after a start."""
    return [
        dataclasses.replace(OURS, name=_name(size), command=ours("-n", str(size)), settled=None)
        for size in sizes
    ]


def _name(workers: int) -> str:
    return f"{OURS.name}-{workers}"

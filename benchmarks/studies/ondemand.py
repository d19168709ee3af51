"""The price of a pool that has no worker: a request that has to wait for one, beside a static pool's."""

from __future__ import annotations

import dataclasses
import time
from statistics import median

from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Outcome, Row, Table
from benchmarks.pages import BARE, WIKI, Page
from benchmarks.peers import OURS, ours
from benchmarks.service import PATIENCE, Service

PAGES = (WIKI, BARE)


def study(bench: Bench) -> Outcome:
    """A static pool and an empty ondemand one in turns, both with their template loaded."""
    empty = dataclasses.replace(
        OURS,
        name=f"{OURS.name}-ondemand",
        title="--pm ondemand, no worker",
        command=ours("--pm", "ondemand", "--idle-timeout", "0.1"),
    )
    found: dict[str, dict[str, list[float]]] = {}
    with bench.stage([empty, OURS]) as stage:
        stage.say(f"{bench.plan.cold} requests to an empty pool, and to a static one")
        stage.start(PAGES, 1)
        for page in PAGES:
            times = found[page.title] = {empty.name: [], OURS.name: []}
            for _ in range(bench.plan.cold):
                for _, peer in stage.turns([page]):
                    with stage.blaming(peer):
                        service = stage.service(peer, page)
                        if peer is empty:
                            _wait_until_empty(service)
                        times[peer.name].append(_milliseconds(service, page))
    rows = [
        Row(f"{title}, ms", {name: median(each) if each else None for name, each in times.items()}, min)
        for title, times in found.items()
    ]
    columns = {empty.name: empty.title, OURS.name: "static"}
    return Outcome([Table("A pool without a worker: its first request", columns, rows, empty.name)], found)


def _wait_until_empty(service: Service) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(service.program.roots[0].children()) > 1:  # besides the template
        if time.monotonic() > deadline:
            raise BenchmarkError("an idle worker of the ondemand pool does not leave")
        time.sleep(0.01)


def _milliseconds(service: Service, page: Page) -> float:
    begun = time.monotonic()
    complaint = service.check(page)
    took = time.monotonic() - begun
    if complaint:
        raise service.program.failed(complaint)
    return took * 1000

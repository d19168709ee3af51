"""How long visitors wait when a worker is killed and there is no other."""

from __future__ import annotations

import time
from statistics import median

from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Outcome, Row, Table
from benchmarks.pages import WIKI
from benchmarks.peers import OURS, Peer
from benchmarks.service import PATIENCE, Service


def study(bench: Bench) -> Outcome:
    """Peers that replace nobody, such as those under spawn-fcgi, are not in it."""
    plan = bench.plan
    peers = [peer for peer in bench.peers if peer.respawning]
    found: dict[str, list[float]] = {}
    for peer in peers:
        bench.say(f"{peer.name}: killing its only worker {plan.kills} times")
        with bench.stage([peer]) as stage:
            stage.start([WIKI], 1)
            if not stage.peers:
                continue
            with stage.blaming(peer):
                service = stage.service(peer, WIKI)
                found[peer.name] = [_once(peer, service, plan.settle) for _ in range(plan.kills)]
    figures = {name: median(times) for name, times in found.items()}
    rows = [Row("after SIGKILL, ms", figures, min)]
    title = f"The only worker is killed: when its replacement has answered {WIKI.title}"
    headings = {peer.name: bench.heading(peer) for peer in peers}
    return Outcome([Table(title, headings, rows, OURS.name)], found)


def _once(peer: Peer, service: Service, settle: float) -> float:
    """Milliseconds from the SIGKILL to the first right answer.

    The request is made at once and waits in the queue of the listening socket.
    """
    time.sleep(settle)
    assert peer.respawning is not None
    found = peer.respawning(service.program.roots[0])
    if len(found) != 1:
        raise service.program.failed(f"has {len(found)} workers instead of one")
    begun = time.monotonic()
    found[0].kill()
    while service.check(WIKI):
        if time.monotonic() - begun > PATIENCE:
            raise BenchmarkError(f"{peer.name} has not replaced a killed worker")
        time.sleep(0.001)
    return (time.monotonic() - begun) * 1000

"""How long visitors wait when a worker is killed and there is no other."""

from __future__ import annotations

import time

from benchmarks.errors import BenchmarkError
from benchmarks.pages import WIKI
from benchmarks.service import PATIENCE, Service

#: A worker of this age has proven itself: uWSGI holds back the successor of a younger one.
SETTLED = 2.0


def measure(service: Service, kills: int) -> list[float]:
    """Milliseconds from each SIGKILL of the only worker to its replacement's first right answer.

    The request is made at once and waits in the queue of the listening socket.
    """
    return [_once(service) for _ in range(kills)]


def _once(service: Service) -> float:
    time.sleep(SETTLED)
    find = service.peer.respawning
    assert find is not None
    found = find(service.program.roots[0])
    if len(found) != 1:
        raise service.program.failed(f"has {len(found)} workers instead of one")
    begun = time.monotonic()
    found[0].kill()
    while service.check(WIKI):
        if time.monotonic() - begun > PATIENCE:
            raise BenchmarkError(f"{service.peer.name} has not replaced a killed worker")
        time.sleep(0.001)
    return (time.monotonic() - begun) * 1000

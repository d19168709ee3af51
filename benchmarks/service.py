"""One server of one peer: started, awaited, checked."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import venv, visits
from benchmarks.frontend import MOUNTS, Frontend
from benchmarks.job import Job
from benchmarks.pages import HELLO, TRAC, Page
from benchmarks.peers import Peer
from benchmarks.processes import Program

TARGETS = {
    TRAC: "trac.web.main:dispatch_request",
    HELLO: "benchmarks.hello:application",
}
#: Seconds until it must have answered for the first time.
PATIENCE = 60.0


class Service:
    """What a peer does for one application, TRAC or HELLO."""

    def __init__(
        self,
        peer: Peer,
        kind: str,
        workers: int,
        home: Path,
        env: Path,
        frontend: Frontend,
        variables: Mapping[str, str],
    ) -> None:
        """Start it. ``env`` is copied: nobody waits for another's database lock."""
        self.peer = peer
        self.kind = kind
        self._frontend = frontend
        own_env = None if kind == HELLO else home / "env"
        job = Job(
            target=TARGETS[kind],
            env=own_env,
            workers=workers,
            socket=frontend.socket(peer, kind),
            port=frontend.port(peer, kind),
            home=home,
            mount=MOUNTS[kind],
            python=venv.PYTHON,
        )
        if own_env is not None:
            shutil.copytree(env, own_env)
        own = {name: text.format(mount=job.mount) for name, text in peer.variables.items()}
        if own_env is not None:
            own["TRAC_ENV"] = str(own_env)
        #: On the monotonic clock.
        self.begun = time.monotonic()
        self.program = Program(peer.command(job), home, {**own, **variables})
        self._pidfile = job.pidfile
        self._workers = workers

    def wait_ready(self, page: Page) -> None:
        """Until it answers rightly, and goes on with the same workers. Raises BenchmarkError with its log."""
        if self.peer.detaches:
            self.program.follow_detached(self._pidfile)
        deadline = time.monotonic() + PATIENCE
        while True:
            complaint = self.check(page)
            if not complaint and self._is_settled():
                return
            if not self.program.processes():
                raise self.program.failed("ended")
            if time.monotonic() > deadline:
                why = complaint or "it goes on replacing its workers"
                raise self.program.failed(f"does not answer rightly ({why})")
            time.sleep(0.05)

    def _is_settled(self) -> bool:
        """Whether nobody is left whom it replaces after its start."""
        if self.peer.settled is None or self.peer.respawning is None:
            return True
        root = self.program.roots[0]
        return self.peer.settled(root) and len(self.peer.respawning(root)) <= self._workers

    def check(self, page: Page) -> str:
        """What is wrong with its answer, or nothing."""
        return page.complaint(*self._frontend.get(self.peer, self.kind, page.path))

    def visits(self, pages: Sequence[Page], number: int) -> list[str]:
        """Request so many pages in turn, on 8 connections at a time. What was wrong, or nothing."""
        return visits.make(self._frontend.address(self.peer), MOUNTS[self.kind], pages, number)

    def url(self, page: Page) -> str:
        return self._frontend.url(self.peer, self.kind, page.path)

"""One server of one peer: started, awaited, checked."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from benchmarks import venv
from benchmarks.frontend import MOUNTS, Frontend
from benchmarks.pages import HELLO, Page
from benchmarks.peers import Job, Peer
from benchmarks.processes import Program

TARGETS = {
    "trac": "trac.web.main:dispatch_request",
    "hello": "benchmarks.hello:application",
    "single": "trac.web.main:dispatch_request",
}
#: Seconds until it must have answered for the first time.
PATIENCE = 60.0


class Service:
    """``kind`` is trac, hello, or single: a Trac with one worker."""

    def __init__(
        self, peer: Peer, kind: str, workers: int, directory: Path, env: Path, frontend: Frontend
    ) -> None:
        """Start it. ``env`` is copied: nobody waits for another's database lock."""
        self.peer = peer
        self.kind = kind
        self._frontend = frontend
        home = directory / f"{peer.name}-{kind}"
        home.mkdir()
        own_env = None if kind == HELLO else home / "env"
        if own_env is not None:
            shutil.copytree(env, own_env)
        job = Job(
            target=TARGETS[kind],
            env=own_env,
            workers=workers,
            socket=frontend.socket(peer, kind),
            home=home,
            mount=MOUNTS[kind],
            python=venv.PYTHON,
        )
        variables = {name: text.format(mount=job.mount) for name, text in peer.variables.items()}
        if own_env is not None:
            variables["TRAC_ENV"] = str(own_env)
        self.program = Program(peer.command(job), home, variables)
        self._pidfile = job.pidfile

    def wait_ready(self, page: Page) -> None:
        """Until it answers rightly. Raises BenchmarkError with its log."""
        if self.peer.detaches:
            self.program.follow_detached(self._pidfile)
        deadline = time.monotonic() + PATIENCE
        while True:
            complaint = self.check(page)
            if not complaint:
                return
            if not self.program.processes():
                raise self.program.failed("ended")
            if time.monotonic() > deadline:
                raise self.program.failed(f"does not answer rightly ({complaint})")
            time.sleep(0.05)

    def check(self, page: Page) -> str:
        """What is wrong with its answer, or nothing."""
        return page.complaint(*self._frontend.get(self.peer, self.kind, page.path))

    def url(self, page: Page) -> str:
        return self._frontend.url(self.peer, self.kind, page.path)

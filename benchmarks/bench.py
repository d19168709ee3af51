"""What every study works with: the plan, places for files, and stages for the peers."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

from benchmarks import environment, processes, venv
from benchmarks.errors import BenchmarkError
from benchmarks.peers import Peer
from benchmarks.plan import Plan
from benchmarks.stage import Stage
from workers import prctl

Say = Callable[[str], None]

#: A visitor without a cookie who sees the timeline or a report gets a session, which Trac commits to the
#: database. On a disk that takes four fdatasync(2), 25 ms of waiting that are the same for everybody.
MEMORY = Path("/dev/shm")


class Bench:
    def __init__(self, plan: Plan, directory: Path, say: Say) -> None:
        self.plan = plan
        self.say = say
        #: Of peers that come from PyPI.
        self.versions: dict[str, str] = {}
        self.problems: dict[str, list[str]] = {peer.name: [] for peer in plan.peers}
        self._directory = directory
        self._directories = 0
        self._peers = list(plan.peers)

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Those that are installed."""
        return tuple(self._peers)

    def install(self) -> None:
        """What the peers need; one that cannot be had is left out."""
        for peer in self.peers:
            try:
                self._install(peer)
            except BenchmarkError as error:
                self.blame(peer, error)
                self._peers.remove(peer)

    def _install(self, peer: Peer) -> None:
        for program, package in peer.programs.items():
            processes.find(program, package)
        if peer.in_venv:
            venv.ensure()
        if peer.distribution:
            self.say(f"{peer.name}: in {venv.DIRECTORY.name}, installed if need be")
            venv.install(peer.distribution)
            self.versions[peer.name] = venv.versions([peer.distribution])[peer.distribution]

    def blame(self, peer: Peer, error: BenchmarkError) -> None:
        self.problems.setdefault(peer.name, []).append(str(error))
        self.say(f"{peer.name}: {error}")

    def heading(self, peer: Peer) -> str:
        return f"{peer.title} {self.versions.get(peer.name, '')}".strip()

    @functools.cached_property
    def small_environment(self) -> Path:
        self.say("creating a Trac environment")
        path = self._directory / "env"
        environment.create(path)
        return path

    def new_directory(self, name: str) -> Path:
        self._directories += 1
        path = self._directory / f"{name}-{self._directories}"
        path.mkdir()
        return path

    @contextlib.contextmanager
    def stage(self, peers: Sequence[Peer]) -> Iterator[Stage]:
        stage = Stage(self, peers)
        try:
            yield stage
        finally:
            stage.end()


@contextlib.contextmanager
def prepared(plan: Plan, say: Say) -> Iterator[Bench]:
    """Leaves nothing behind, whatever happens: no file, no process."""
    # Otherwise what spawn-fcgi leaves behind would be init's, and nobody could wait for its end.
    prctl.become_subreaper()
    before = {process.pid for process in processes.descendants()}
    asked = os.environ.get("TMPDIR")
    place = MEMORY if not asked and os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ts-bench-", dir=place) as directory:
        # Apache's workers, which do not run as root, look for their files here.
        os.chmod(directory, 0o711)
        try:
            yield Bench(plan, Path(directory), say)
        finally:
            # Bounded, and the one thing that an impatient second Ctrl-C must not cut short.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            processes.kill(p for p in processes.descendants() if p.pid not in before)

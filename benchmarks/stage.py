"""Where peers are measured side by side: one nginx, and behind it what each of them serves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from benchmarks import processes
from benchmarks.errors import BenchmarkError
from benchmarks.frontend import Frontend
from benchmarks.pages import Page
from benchmarks.peers import Peer
from benchmarks.service import Service

if TYPE_CHECKING:
    from benchmarks.bench import Bench


class Stage:
    """Made by ``Bench.stage()``, which also ends everything on it."""

    def __init__(self, bench: Bench, peers: Sequence[Peer]) -> None:
        self.say = bench.say
        self._bench = bench
        self._peers = list(peers)
        self._frontend = Frontend(bench.new_directory("nginx"), peers)
        self._services: dict[tuple[str, str], Service] = {}

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Those that have not failed."""
        return tuple(self._peers)

    def start(self, pages: Sequence[Page], workers: int, env: Optional[Path] = None) -> None:
        """Start what serves these pages, for every peer; return when each has answered all of its
        pages rightly. A peer that does not is left out from here on, with its reason noted."""
        for peer in self.peers:
            with self.blaming(peer):
                for kind in sorted({page.application for page in peer.served(pages)}):
                    self.start_one(peer, kind, workers, env)
        for page, peer in self.turns(pages):
            with self.blaming(peer):
                self.service(peer, page).wait_ready(page)

    def start_one(
        self,
        peer: Peer,
        kind: str,
        workers: int,
        env: Optional[Path] = None,
        variables: Optional[Mapping[str, str]] = None,
    ) -> Service:
        """``env``: the Trac environment of which it gets a copy, the small one if not given."""
        home = self._bench.new_directory(f"{peer.name}-{kind}")
        source = env or self._bench.small_environment
        service = Service(peer, kind, workers, home, source, self._frontend, variables or {})
        self._services[peer.name, kind] = service
        return service

    def turns(self, pages: Sequence[Page], back: bool = False) -> Iterator[tuple[Page, Peer]]:
        """Page by page, every peer that serves it and has not failed; ``back``: the last one first."""
        for page in pages:
            for peer in reversed(self.peers) if back else self.peers:
                # One may have failed in a turn before.
                if peer in self._peers and peer.served([page]):
                    yield page, peer

    def service(self, peer: Peer, page: Page) -> Service:
        return self._services[peer.name, page.application]

    @contextlib.contextmanager
    def blaming(self, peer: Peer) -> Iterator[None]:
        """A peer that fails is left out from here on, and the report says why."""
        try:
            yield
        except BenchmarkError as error:
            self._bench.blame(peer, error)
            if peer in self._peers:
                self._peers.remove(peer)

    def end(self) -> None:
        programs = [service.program for service in self._services.values()]
        processes.end([*programs, self._frontend.program])

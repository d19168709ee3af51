"""What was measured, before anybody formats it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Optional

from benchmarks.load import Sample
from benchmarks.machine import Machine
from benchmarks.memory import Memory
from benchmarks.peers import Peer


@dataclass(frozen=True)
class Plan:
    """How much is measured. ``warm_up`` and ``seconds`` are those of one page of one peer."""

    peers: tuple[Peer, ...]
    rounds: int = 5
    seconds: int = 3
    warm_up: int = 2
    kills: int = 5
    workers: int = 2


@dataclass
class PeerResult:
    """One peer's figures. A peer with problems may have few of them, or none."""

    peer: Peer
    version: str = ""
    #: By the page's title, a sample a round.
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    #: By the page's title, milliseconds of processor time for a request, one figure a round.
    cpu_samples: dict[str, list[float]] = field(default_factory=dict)
    memory: Optional[Memory] = None
    respawn_ms: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, page: str, sample: Sample, cpu_seconds: float) -> None:
        self.samples.setdefault(page, []).append(sample)
        cpu_ms = round(cpu_seconds * 1000 / max(1, sample.requests), 4)
        self.cpu_samples.setdefault(page, []).append(cpu_ms)

    def requests_per_second(self, page: str) -> Optional[float]:
        return _median([s.requests_per_second for s in self.samples.get(page, ())])

    def p50_ms(self, page: str) -> Optional[float]:
        return _median([s.p50_ms for s in self.samples.get(page, ())])

    def p99_ms(self, page: str) -> Optional[float]:
        return _median([s.p99_ms for s in self.samples.get(page, ())])

    def cpu_ms(self, page: str) -> Optional[float]:
        return _median(self.cpu_samples.get(page, []))

    def respawn(self) -> Optional[float]:
        return _median(self.respawn_ms)

    def failed_requests(self) -> dict[str, int]:
        """By page and kind, only those that happened."""
        counts: dict[str, int] = {}
        for page, samples in self.samples.items():
            for sample in samples:
                for kind, count in sample.errors.items():
                    counts[f"{page}: {kind}"] = counts.get(f"{page}: {kind}", 0) + count
        return counts


@dataclass(frozen=True)
class Results:
    #: ISO 8601, in UTC.
    date: str
    command: str
    machine: Machine
    versions: Mapping[str, str]
    plan: Plan
    peers: tuple[PeerResult, ...]

    @property
    def clean(self) -> bool:
        return not any(result.problems or result.failed_requests() for result in self.peers)


def _median(figures: list[float]) -> Optional[float]:
    return median(figures) if figures else None

"""Peers measured in turns, so that whatever slows the machine slows them all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks import cpu, load
from benchmarks.figures import Best, Figure, Row
from benchmarks.load import Sample
from benchmarks.pages import Page
from benchmarks.peers import Peer
from benchmarks.plan import Plan
from benchmarks.stage import Stage


class Rounds:
    """Samples by peer and page, one a round."""

    def __init__(self) -> None:
        self._samples: dict[str, dict[str, list[Sample]]] = {}
        self._complaints: list[str] = []

    def measure(self, stage: Stage, pages: Sequence[Page], plan: Plan) -> None:
        """Warm up, then all rounds. The services run and have been checked."""
        if plan.warm_up:
            stage.say("warming up")
            for page, peer in stage.turns(pages):
                load.apply(stage.service(peer, page).url(page), plan.warm_up)
        for number in range(1, plan.rounds + 1):
            stage.say(f"round {number} of {plan.rounds}")
            # There and back: whatever the one before leaves behind is not always left to the same one.
            for page, peer in stage.turns(pages, back=number % 2 == 0):
                self.measure_once(stage, page, peer, plan.seconds)

    def measure_once(self, stage: Stage, page: Page, peer: Peer, seconds: int) -> None:
        service = stage.service(peer, page)
        before = cpu.seconds(service.program)
        sample = load.apply(service.url(page), seconds)
        spent = cpu.seconds(service.program) - before
        cpu_ms = round(spent * 1000 / max(1, sample.requests), 4)
        samples = self._samples.setdefault(peer.name, {}).setdefault(page.title, [])
        samples.append(dataclasses.replace(sample, cpu_ms=cpu_ms))
        # wrk has seen to the status of every answer; is it still the right page?
        complaint = service.check(page)
        if complaint:
            self._complaints.append(f"{peer.name}: {page.title}: {complaint}")

    def figure(self, peer: str, page: str, name: str) -> Figure:
        """The median of a field of Sample. A round in which nobody was answered, on a machine with
        much else to do, tells the rate, which was 0, and nothing of how long an answer takes."""
        samples = self._samples.get(peer, {}).get(page, [])
        if name != "requests_per_second":
            samples = [sample for sample in samples if sample.requests]
        return median([getattr(sample, name) for sample in samples]) if samples else None

    def row(self, title: str, peers: Sequence[Peer], page: Page, name: str, best: Best) -> Row:
        figures = {peer.name: self.figure(peer.name, page.title, name) for peer in peers}
        return Row(title, figures, best)

    def failures(self) -> list[str]:
        failed = [
            f"{peer}: {count:,} failed requests ({page}: {kind})"
            for peer, pages in self._samples.items()
            for page, samples in pages.items()
            for sample in samples
            for kind, count in sample.errors.items()
        ]
        return [*failed, *self._complaints]

    def raw(self) -> dict[str, Any]:
        return {
            peer: {
                page: {
                    **{name: self.figure(peer, page, name) for name in load.FIGURES},
                    "rounds": [dataclasses.asdict(sample) for sample in samples],
                }
                for page, samples in pages.items()
            }
            for peer, pages in self._samples.items()
        }

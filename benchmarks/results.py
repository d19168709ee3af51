"""All that one run found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.figures import Outcome
from benchmarks.machine import Machine
from benchmarks.plan import Plan


@dataclass(frozen=True)
class Results:
    #: ISO 8601, in UTC.
    date: str
    command: str
    machine: Machine
    #: Of programs and of peers.
    versions: Mapping[str, str]
    plan: Plan
    #: By the study's name.
    outcomes: Mapping[str, Outcome]
    #: By the peer's name, why it was left out of a study.
    problems: Mapping[str, list[str]]

    @property
    def clean(self) -> bool:
        failed = any(outcome.failures for outcome in self.outcomes.values())
        return not failed and not any(self.problems.values())

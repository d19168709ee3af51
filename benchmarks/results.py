"""All that one run found out."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    versions: dict[str, str]
    plan: Plan
    #: By the study's name.
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    #: By the peer's name, why it was left out of a study.
    problems: dict[str, list[str]] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        failed = any(outcome.failures for outcome in self.outcomes.values())
        return not failed and not any(self.problems.values())

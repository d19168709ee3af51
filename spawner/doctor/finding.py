"""What is wrong with a site, why that matters and what mends it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import List, TypedDict


class Severity(enum.IntEnum):
    """The exit status that a finding causes: 0, 1 and 2 are those of monitoring plugins (the
    development guidelines of the Monitoring Plugins project, "Plugin Return Codes")."""

    ADVICE = 0  # it works, and could work better
    WARNING = 1  # some visitors, or the next change, will meet it
    ERROR = 2  # visitors or the administrator suffer now, or strangers are let in

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Finding:
    """``name`` is for programs and never changes; ``mend`` has the exact lines or commands."""

    severity: Severity
    name: str
    what: str
    why: str
    mend: str


Findings = Iterator[Finding]


class FindingReport(TypedDict):
    severity: str  # error, warning or advice
    name: str
    what: str
    why: str
    mend: str


class Diagnosis(TypedDict):
    """The answer of the verb, made by the command."""

    findings: List[FindingReport]  # the worst first
    looked_at: List[str]
    left_out: List[str]  # what could not be looked at, and why


def error(name: str, what: str, why: str, mend: str) -> Finding:
    return Finding(Severity.ERROR, name, what, why, mend)


def warning(name: str, what: str, why: str, mend: str) -> Finding:
    return Finding(Severity.WARNING, name, what, why, mend)


def advice(name: str, what: str, why: str, mend: str) -> Finding:
    return Finding(Severity.ADVICE, name, what, why, mend)


def worst(findings: Iterable[Finding]) -> int:
    """The exit status."""
    return max((int(finding.severity) for finding in findings), default=0)

"""What it costs to see: status pages, status process, metrics and access log on, against all off."""

from __future__ import annotations

import dataclasses

from benchmarks.bench import Bench
from benchmarks.figures import Outcome
from benchmarks.job import Job
from benchmarks.pages import BARE
from benchmarks.peers import OURS, ours
from benchmarks.studies import variant


def study(bench: Bench) -> Outcome:
    observed = dataclasses.replace(
        OURS,
        name=f"{OURS.name}-observed",
        title="status, metrics and access log on",
        command=_observed,
    )
    bench.say("status, metrics and access log on, and all off")
    return variant.compare(bench, "Cost of observing", observed, "all off", [BARE])


def _observed(job: Job) -> list[str]:
    seen = ("--status-path", "/status", "--status-listen", f"unix:{job.home}/status")
    metrics = ("--metrics", f"unix:{job.home}/metrics")
    return ours(*seen, *metrics, "--access-log", f"{job.home}/access")(job)

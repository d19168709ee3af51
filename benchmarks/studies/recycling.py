"""What it costs to replace workers often: --max-requests against none, in turns."""

from __future__ import annotations

import dataclasses

from benchmarks.bench import Bench
from benchmarks.figures import Outcome
from benchmarks.pages import WIKI
from benchmarks.peers import OURS, ours
from benchmarks.studies import variant


def study(bench: Bench) -> Outcome:
    limit = str(bench.plan.max_requests)
    recycled = dataclasses.replace(
        OURS,
        name=f"{OURS.name}-recycled",
        title=f"--max-requests {limit}",
        command=ours("--max-requests", limit),
    )
    bench.say(f"workers replaced after {limit} requests, and others never")
    return variant.compare(bench, "Cost of recycling", recycled, "never replaced", [WIKI])

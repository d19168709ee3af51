"""What it costs to replace workers often: --max-requests against none, in turns."""

from __future__ import annotations

import dataclasses

from benchmarks.bench import Bench
from benchmarks.figures import Outcome, Table
from benchmarks.pages import WIKI
from benchmarks.peers import OURS, ours
from benchmarks.rounds import Rounds


def study(bench: Bench) -> Outcome:
    limit = str(bench.plan.max_requests)
    recycled = dataclasses.replace(
        OURS,
        name=f"{OURS.name}-recycled",
        title=f"--max-requests {limit}",
        command=ours("--max-requests", limit),
    )
    rounds = Rounds()
    with bench.stage([OURS, recycled]) as stage:
        stage.say(f"workers replaced after {limit} requests, and others never")
        stage.start([WIKI], bench.plan.workers)
        rounds.measure(stage, [WIKI], bench.plan)
    row = rounds.row(
        f"{WIKI.title}, requests/s", (recycled, OURS), WIKI, "requests_per_second", max
    )
    columns = {recycled.name: recycled.title, OURS.name: "never replaced"}
    table = Table("Cost of recycling", columns, [row], recycled.name)
    return Outcome([table], rounds.raw(), failures=rounds.failures())

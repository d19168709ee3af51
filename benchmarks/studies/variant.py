"""trac-spawn used in another way, beside trac-spawn as it comes.

The two are so near to each other that what else goes on in the machine is more: they take turns of a second,
four times as long in all as whatever is compared with other programs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.figures import Best, Outcome, Table
from benchmarks.pages import Page
from benchmarks.peers import OURS, Peer
from benchmarks.rounds import Rounds

#: The second one is what other work on the machine disturbs least.
_FIGURES: tuple[tuple[str, str, Best], ...] = (
    ("requests/s", "requests_per_second", max),
    ("CPU ms a request", "cpu_ms", min),
)


def compare(
    bench: Bench, title: str, other: Peer, usual: str, pages: Sequence[Page]
) -> Outcome:
    """``usual``: what the ordinary way is called in the table."""
    rounds = Rounds()
    plan = dataclasses.replace(bench.plan, rounds=bench.plan.rounds * bench.plan.seconds * 4, seconds=1)
    with bench.stage([OURS, other]) as stage:
        stage.start(pages, bench.plan.workers)
        rounds.measure(stage, pages, plan)
    rows = [
        rounds.row(f"{page.title}, {what}", (other, OURS), page, name, best)
        for page in pages
        for what, name, best in _FIGURES
    ]
    columns = {other.name: other.title, OURS.name: usual}
    turns = f"{title}: {plan.rounds} turns of a second each"
    table = Table(turns, columns, rows, other.name)
    return Outcome([table], rounds.raw(), failures=rounds.failures())

"""The same on a Trac that has been in use for years: many plugins, tickets and pages."""

from __future__ import annotations

from benchmarks import largeenv
from benchmarks.bench import Bench
from benchmarks.figures import Outcome, Table
from benchmarks.peers import OURS
from benchmarks.studies.pages import compare, rows


def study(bench: Bench) -> Outcome:
    content = bench.plan.large
    bench.say(f"a Trac environment with {content.tickets:,} tickets, made unless it is there")
    pages = bench.plan.made
    rounds = compare(bench, pages, largeenv.ensure(content))
    title = (
        f"A large environment: {content.plugins} plugins, {content.tickets:,} tickets, "
        f"{content.pages} wiki pages"
    )
    headings = {peer.name: bench.heading(peer) for peer in bench.peers}
    table = Table(title, headings, rows(bench, rounds, pages), OURS.name)
    return Outcome([table], rounds.raw(), failures=rounds.failures())

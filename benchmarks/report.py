"""Results as Markdown for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import json

from benchmarks.figures import Figure, Table
from benchmarks.load import CONNECTIONS
from benchmarks.machine import BUSY
from benchmarks.peers import OURS
from benchmarks.results import Results
from benchmarks.svg import plain


def to_json(results: Results) -> str:
    peers = [peer.name for peer in results.plan.peers]
    plan = dataclasses.asdict(dataclasses.replace(results.plan, peers=(), made=()))
    plan.update(connections=CONNECTIONS, peers=peers, made=[page.title for page in results.plan.made])
    document = {
        "date": results.date,
        "command": results.command,
        "machine": dataclasses.asdict(results.machine),
        "versions": dict(results.versions),
        "plan": plan,
        "studies": {name: outcome.raw for name, outcome in results.outcomes.items()},
        "failed_requests": {
            name: list(outcome.failures) for name, outcome in results.outcomes.items()
        },
        "problems": dict(results.problems),
    }
    return json.dumps(document, indent=1) + "\n"


def to_markdown(results: Results) -> str:
    parts = [_conditions(results)]
    for outcome in results.outcomes.values():
        for table in outcome.tables:
            parts.append(f"## {table.title}\n\n{markdown_table(table)}")
        parts += [f"![{name}]({name})\n" for name in outcome.pictures]
    return "\n".join([*parts, _complaints(results)])


def markdown_table(table: Table) -> str:
    head, *rows = cells(table)
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def cells(table: Table) -> list[list[str]]:
    head = ["", *table.columns.values()]
    if table.compares:
        head.append("ratio")
    lines = [head]
    for row in table.rows:
        cells = [row.title, *(_cell(row.figures.get(key)) for key in table.columns)]
        if table.compares:
            cells.append(f"**{_cell(table.ratio(row))}**")
        lines.append(cells)
    return lines


def _cell(value: Figure) -> str:
    """A dash where nothing was measured."""
    return "–" if value is None else plain(value)


def _conditions(results: Results) -> str:
    plan, machine = results.plan, results.machine
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return (
        f"# {OURS.title} side by side with others\n\n"
        f"{results.date}, `{results.command}`: medians of {plan.rounds} interleaved rounds of "
        f"{plan.seconds} s a page unless a table says otherwise, {plan.workers} workers each unless it does, "
        f"{CONNECTIONS} connections, one nginx in front, over Unix sockets where the server has "
        f"them. The ratio is that of {OURS.title}, or of the first column, to the best of the others. "
        f"{machine.processor}, {machine.cpus} CPUs, {machine.memory_bytes / 1e9:.1f} GB, "
        f"{machine.system}, {machine.kernel}; {versions}.\n"
    )


def _complaints(results: Results) -> str:
    """Whatever makes the figures doubtful."""
    lines = []
    if results.machine.load_average > BUSY:
        load = results.machine.load_average
        lines.append(f"The machine was busy (load average {load}) before the run.")
    for name, problems in results.problems.items():
        lines += [f"{name}: {' '.join(words.split())}" for words in problems]
    for name, outcome in results.outcomes.items():
        lines += [f"{name}: {failure}" for failure in outcome.failures]
    return "".join(f"* {line}\n" for line in lines)

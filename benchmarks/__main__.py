"""``python -m benchmarks``: measure, print the table, write it and all figures to files."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from benchmarks import machine, report
from benchmarks.bench import Say, prepared
from benchmarks.errors import BenchmarkError
from benchmarks.peers import PEERS, named
from benchmarks.plan import Plan
from benchmarks.results import Results
from benchmarks.studies import STUDIES

OUTPUT = Path(__file__).with_name("output")


def _if_there(name: str) -> list[str]:
    """What Trac uses, but can do without."""
    return [name] if find_spec(name.lower()) else []


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Serve the same pages with trac-spawn and with its peers, all behind one nginx, "
        "and compare. Needs nginx, wrk, spawn-fcgi and apache2-dev from Debian; the peers go into "
        ".venv-benchmarks.",
        epilog="Exit status: 0; 1 when a peer could not be measured or requests failed; "
        "2 when nothing was measured.",
    )
    parser.add_argument(
        "--only", metavar="PEER", action="append", default=[], choices=[p.name for p in PEERS],
        help=f"measure this peer; may be repeated ({', '.join(p.name for p in PEERS)})",
    )  # fmt: skip
    parser.add_argument(
        "--study", metavar="NAME", action="append", default=[], choices=list(STUDIES),
        help=f"carry out this study; may be repeated ({', '.join(STUDIES)})",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", metavar="N", type=_at_least_one,
        help=f"default: {Plan.rounds}; --quick: 1",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", metavar="N", type=_at_least_one,
        help=f"for each page of each peer in a round; default: {Plan.seconds}; --quick: 1",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="see that it works: no warm-up, figures mean little"
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=OUTPUT,
        help="where results.md, results.json and the pictures go; default: benchmarks/output",
    )  # fmt: skip
    return parser.parse_args(arguments)


def plan(options: argparse.Namespace) -> Plan:
    studies = tuple(name for name in STUDIES if not options.study or name in options.study)
    whole = Plan(named(options.only), studies)
    if options.quick:
        whole = whole.quick()
    return dataclasses.replace(
        whole,
        rounds=options.rounds or whole.rounds,
        seconds=options.seconds or whole.seconds,
    )


def measure(chosen: Plan, command: str, say: Say) -> Iterator[Results]:
    """What has been found out so far, after every study."""
    # Before anything runs: the machine's load is looked at.
    results = Results(
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
        command=command,
        machine=machine.describe(),
        versions={name: version(name) for name in ("trac-spawn", "Trac", *_if_there("Babel"))},
        plan=chosen,
    )
    results.versions.update(machine.program_versions())
    with prepared(chosen, say) as bench:
        bench.install()
        if not bench.peers:
            raise BenchmarkError("there is nothing that could be measured")
        results.versions.update(bench.versions)
        for name in chosen.studies:
            say(f"study: {name}")
            results.outcomes[name] = STUDIES[name](bench)
            results.problems.update(bench.problems)
            yield results


def write(results: Results, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.md").write_text(report.to_markdown(results))
    (directory / "results.json").write_text(report.to_json(results))
    for outcome in results.outcomes.values():
        for name, picture in outcome.pictures.items():
            (directory / name).write_text(picture)


def main(arguments: list[str]) -> int:
    chosen = parse(arguments)
    # SystemExit unwinds: everything that was started is ended.
    signal.signal(signal.SIGTERM, _stop)
    begun = time.monotonic()

    def say(message: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {message}", file=sys.stderr, flush=True)

    command = shlex.join(["python", "-m", "benchmarks", *arguments])
    # An hour may be in it: what there is by now outlives whatever ends the run.
    for results in measure(plan(chosen), command, say):
        write(results, chosen.output)
    print((chosen.output / "results.md").read_text())
    return 0 if results.clean else 1


def _stop(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)

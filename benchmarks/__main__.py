"""``python -m benchmarks``: measure, print the table, write it and all figures to files."""

from __future__ import annotations

import argparse
import datetime
import shlex
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from benchmarks import machine, report
from benchmarks.errors import BenchmarkError
from benchmarks.peers import PEERS, named
from benchmarks.results import Plan, Results
from benchmarks.run import run

OUTPUT = Path(__file__).with_name("output")


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Serve the same pages with trac-spawn and with its peers, all behind one nginx, "
        "and compare. Needs nginx, wrk and spawn-fcgi; the peers go into .venv-benchmarks.",
        epilog="Exit status: 0; 1 when a peer could not be measured or requests failed; "
        "2 when nothing was measured.",
    )
    parser.add_argument(
        "--only", metavar="PEER", action="append", default=[], choices=[p.name for p in PEERS],
        help=f"measure this peer; may be repeated ({', '.join(p.name for p in PEERS)})",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", metavar="N", type=_at_least_one, help=f"default: {Plan.rounds}; --quick: 1"
    )
    parser.add_argument(
        "--seconds", metavar="N", type=_at_least_one,
        help=f"for each page of each peer in a round; default: {Plan.seconds}; --quick: 1",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="see that it works: no warm-up, figures mean little"
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=OUTPUT,
        help="where results.md and results.json go; default: benchmarks/output",
    )  # fmt: skip
    return parser.parse_args(arguments)


def plan(options: argparse.Namespace) -> Plan:
    peers = named(options.only)
    if options.quick:
        return Plan(peers, options.rounds or 1, options.seconds or 1, warm_up=0, kills=1)
    return Plan(peers, options.rounds or Plan.rounds, options.seconds or Plan.seconds)


def main(arguments: list[str]) -> int:
    chosen = parse(arguments)
    # SystemExit unwinds: everything that was started is ended.
    signal.signal(signal.SIGTERM, _stop)
    begun = time.monotonic()

    def say(message: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {message}", file=sys.stderr, flush=True)

    results = Results(
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
        command=shlex.join(["python", "-m", "benchmarks", *arguments]),
        machine=machine.describe(),
        versions={
            "trac-spawn": version("trac-spawn"),
            "Trac": version("Trac"),
            **machine.program_versions(),
        },
        plan=plan(chosen),
        peers=run(plan(chosen), say),
    )
    table = report.to_markdown(results)
    chosen.output.mkdir(parents=True, exist_ok=True)
    (chosen.output / "results.md").write_text(table)
    (chosen.output / "results.json").write_text(report.to_json(results))
    print(table)
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

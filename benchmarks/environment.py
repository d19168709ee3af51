"""The Trac environment that is served: ``python -m benchmarks.environment PATH`` creates it.

Trac's own default pages, and enough tickets and pages for a timeline and a report to be real.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from benchmarks.errors import BenchmarkError

#: Stands in the summary of every ticket, and so on the timeline and in the report.
SUMMARY = "Ticket of the benchmark"
#: Stands on Trac's own front page.
WELCOME = "Welcome to Trac"
TICKETS = 25
PAGES = 10

OPTIONS = [
    ("project", "name", "Benchmark"),
    ("trac", "database", "sqlite:db/trac.db"),
    ("trac", "debug_mode", "disabled"),
    ("logging", "log_type", "none"),
]
TEXT = """\
= Page {number} of the benchmark =

With a [wiki:WikiStart link], a '''list''' and a table:
 * one
 * two
|| a || b ||
|| 1 || 2 ||
"""


def create(path: Path) -> None:
    """Make a fresh one in a process of its own, so that this one never imports Trac."""
    command = [sys.executable, "-m", __name__, str(path)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchmarkError(f"cannot create a Trac environment:\n{done.stdout}{done.stderr}")


def _fill(path: str) -> None:
    from trac.env import Environment
    from trac.ticket.model import Ticket
    from trac.wiki.admin import WikiAdmin
    from trac.wiki.model import WikiPage

    env = Environment(path, create=True, options=OPTIONS)
    try:
        WikiAdmin(env).load_pages(str(files("trac.wiki") / "default-pages"))
        for number in range(1, PAGES + 1):
            page = WikiPage(env, f"BenchmarkPage{number}")
            page.text = TEXT.format(number=number)
            page.save("benchmark", "First version")
        for number in range(1, TICKETS + 1):
            ticket = Ticket(env)
            ticket["summary"] = f"{SUMMARY} {number}"
            ticket["reporter"] = "benchmark"
            ticket["type"] = "defect"
            ticket["priority"] = "major"
            ticket["status"] = "new"
            ticket["description"] = f"See wiki:BenchmarkPage{number % PAGES + 1}."
            ticket.insert()
    finally:
        env.shutdown()


if __name__ == "__main__":
    _fill(sys.argv[1])

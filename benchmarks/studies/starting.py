"""How long a start takes, beside what Python needs to import Trac and to open the environment."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Outcome, Row, Table
from benchmarks.notify import Listener
from benchmarks.pages import TRAC
from benchmarks.peers import OURS
from benchmarks.processes import ROOT
from benchmarks.service import PATIENCE

WORKERS = 2
OPEN = "import sys, trac.web.main, trac.env; trac.env.open_environment(sys.argv[1], use_cache=True)"
READY, VERSION = "a pool until ready, ms", "trac-spawn --version, ms"


def study(bench: Bench) -> Outcome:
    bench.say("starts, and the imports that they cannot do without")
    environment = str(bench.small_environment)
    found: dict[str, list[tuple[float, float]]] = {READY: [], VERSION: []}
    for _ in range(bench.plan.rounds):
        found[READY].append((_until_ready(bench), _run("-c", OPEN, environment)))
        found[VERSION].append((_run("-m", "spawner", "--version"), _run("-c", "import click")))
    rows = []
    for title, pairs in found.items():
        ours, bare = zip(*pairs)
        rows.append(Row(title, {OURS.name: median(ours), "bare": median(bare)}, min))
    columns = {OURS.name: OURS.title, "bare": "import and open, import click"}
    return Outcome([Table("Starting", columns, rows, OURS.name)], found)


def _until_ready(bench: Bench) -> float:
    """Milliseconds; ready is what a service manager is told once all workers are."""
    with bench.stage([OURS]) as stage, Listener(bench.new_directory("notify")) as listener:
        service = stage.start_one(OURS, TRAC, WORKERS, variables={"NOTIFY_SOCKET": str(listener.path)})
        if not listener.wait_ready(PATIENCE):
            raise service.program.failed("does not get ready")
        return (time.monotonic() - service.begun) * 1000


def _run(*command: str) -> float:
    """Milliseconds that Python takes for it."""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise BenchmarkError(f"python {' '.join(command)} has failed: its words are above")
    return (time.monotonic() - begun) * 1000

"""The load: wrk from Debian, one thread, connections that stay open, as fast as answers come."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.processes import find

SCRIPT = Path(__file__).with_name("wrk.lua")
CONNECTIONS = 8
#: Seconds without an answer that make a request a failed one.
TIMEOUT = 30


#: Fields of Sample that make sense as medians.
FIGURES = ("requests_per_second", "p50_ms", "p90_ms", "p99_ms", "cpu_ms")


@dataclass(frozen=True)
class Sample:
    """One run of wrk against one page of one peer."""

    requests: int
    requests_per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    #: Of the server's processes, for one request; 0 where nobody has looked.
    cpu_ms: float
    #: By kind (connect, read, write, status, timeout), only those that happened.
    errors: dict[str, int]


def apply(url: str, seconds: int) -> Sample:
    command = [
        find("wrk", "wrk"), "--threads", "1", "--connections", str(CONNECTIONS),
        "--duration", f"{seconds}s", "--timeout", f"{TIMEOUT}s", "--script", str(SCRIPT), url,
    ]  # fmt: skip
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds + 2 * TIMEOUT,
    )
    if done.returncode != 0:
        raise BenchmarkError(f"wrk failed:\n{done.stdout}{done.stderr}")
    seen = json.loads(done.stdout.splitlines()[-1])
    return Sample(
        requests=seen["requests"],
        requests_per_second=round(seen["requests"] * 1e6 / seen["duration"], 1),
        p50_ms=seen["p50"] / 1000,
        p90_ms=seen["p90"] / 1000,
        p99_ms=seen["p99"] / 1000,
        cpu_ms=0.0,
        errors={kind: count for kind, count in seen["errors"].items() if count},
    )

"""How much memory a server really takes: pages that processes share are counted once."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from benchmarks.processes import Program


@dataclass(frozen=True)
class Memory:
    #: Sum of PSS over all processes of the server, master and template included.
    pss_bytes: int
    processes: int


def measure(program: Program) -> Memory:
    sizes = []
    for process in program.processes():
        # One may end in between: a worker that is being replaced.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            sizes.append(proportional_set_size(process.pid))
    return Memory(sum(sizes), len(sizes))


def proportional_set_size(pid: int) -> int:
    """Bytes. Raises OSError once the process is gone."""
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        for line in rollup:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0

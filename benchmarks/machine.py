"""What the figures were measured on; nothing that tells whose machine it is."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass

import psutil

from benchmarks.processes import find

#: A one-minute load average above this means that others use the machine as well.
BUSY = 0.5


@dataclass(frozen=True)
class Machine:
    processor: str
    #: Those that this process may use.
    cpus: int
    memory_bytes: int
    kernel: str
    system: str
    #: Before the benchmark began.
    load_average: float


def describe() -> Machine:
    return Machine(
        processor=_field("/proc/cpuinfo", "model name", ":") or platform.machine(),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        kernel=f"{platform.system()} {platform.release()}",
        system=_field("/etc/os-release", "PRETTY_NAME", "=").strip('"'),
        load_average=round(os.getloadavg()[0], 2),
    )


def program_versions() -> dict[str, str]:
    """Of the programs around the peers."""
    # nginx answers on stderr, wrk with a status that says error.
    nginx = _first_line([find("nginx", "nginx"), "-v"]).rpartition("/")[2]
    wrk = _first_line([find("wrk", "wrk"), "-v"]).split()[1]
    return {"Python": platform.python_version(), "nginx": nginx, "wrk": wrk}


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout.partition("\n")[0]


def _field(path: str, name: str, separator: str) -> str:
    try:
        with open(path) as lines:
            for line in lines:
                key, _, value = line.partition(separator)
                if key.strip() == name:
                    return value.strip()
    except OSError:
        pass
    return ""

"""Processor time of a server: the figure that other programs on the machine disturb least."""

from __future__ import annotations

import contextlib

import psutil

from benchmarks.processes import Program


def seconds(program: Program) -> float:
    """What all its processes have used so far, user and system, those that have ended among them; the web
    server's not included."""
    total = 0.0
    for process in program.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def precisely(process: psutil.Process) -> float:
    """Seconds that its main thread has run, to the nanosecond, where the others count in hundredths."""
    with open(f"/proc/{process.pid}/schedstat") as figures:
        return int(figures.read().split()[0]) / 1e9

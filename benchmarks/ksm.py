"""The kernel's samepage merging (KSM), turned on for a while and then left as it was."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.errors import BenchmarkError
from workers import prctl

PLACE = Path("/sys/kernel/mm/ksm")
#: The kernel's own 100 pages each time need a minute to see what 8 workers have.
SETTINGS = {"pages_to_scan": "5000", "sleep_millisecs": "20", "run": "1"}
#: A page is merged once two looks at it in a row have seen the same; one that was not merged is left out of
#: up to 8 rounds that follow.
SCANS = 12
#: Seconds for them.
PATIENCE = 120.0


def obstacle() -> str:
    """Why it cannot be measured here, or nothing."""
    if not prctl.can_merge_pages():
        return "the kernel cannot merge pages"
    return "" if os.access(PLACE / "run", os.W_OK) else f"only root may turn it on ({PLACE}/run)"


@contextlib.contextmanager
def running() -> Iterator[None]:
    before = {name: (PLACE / name).read_text() for name in SETTINGS}
    try:
        for name, value in SETTINGS.items():
            (PLACE / name).write_text(value)
        yield
    finally:
        for name, value in before.items():
            (PLACE / name).write_text(value)


def wait_merged() -> None:
    """Until every page has been looked at often enough. Raises BenchmarkError."""
    deadline = time.monotonic() + PATIENCE
    enough = _scans() + SCANS
    while _scans() < enough:
        if time.monotonic() > deadline:
            raise BenchmarkError("the kernel's KSM does not get round")
        time.sleep(0.1)


def _scans() -> int:
    return int((PLACE / "full_scans").read_text())

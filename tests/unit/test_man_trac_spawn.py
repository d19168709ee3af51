"""man/trac-spawn.8 says what the code does: signals, exit status, variables that are no settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import spawner
from spawner import metrics, signals
from spawner.ceilings import ceilings
from spawner.settings import Settings
from workers.poolstatus import PoolStatus

from .test_man_trac_fcgi import items
from .test_metrics import a_board, a_status

ROOT = Path(spawner.__file__).resolve().parents[1]
TEXT = (ROOT / "man" / "trac-spawn.8").read_text()
#: What the program consists of, which is less than what is in the folders.
LOADED = """
import sys
import spawner.cli, spawner.master, spawner.demo
for name in sorted(sys.modules):
    if name.startswith(("spawner.", "workers.")):
        print(sys.modules[name].__file__)
"""


def code() -> str:
    listed = subprocess.run(
        [sys.executable, "-c", LOADED], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT
    )
    paths = [Path(path) for path in listed.stdout.split()]
    # What the master answers to garbage is the exit status of trac-spawnctl, and in its manual.
    return "".join(path.read_text() for path in paths if path.name != "wire.py")


def section(name: str) -> str:
    found = re.search(rf"^\.Sh {name}\n(.*?)(?=^\.Sh )", TEXT, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


def test_every_signal_is_there_and_no_other() -> None:
    assert items(section("SIGNALS"), "Dv") == {number.name for number in signals.EVENTS}


def test_every_exit_status_is_there() -> None:
    names = set(re.findall(r"\bos\.(EX_[A-Z]+)", code()))
    assert {"EX_USAGE", "EX_CONFIG"} < names
    # wire.py speaks for both ends of the control socket; this one is for trac-spawnctl.
    names -= {"EX_PROTOCOL"}
    described = {int(number) for number in re.findall(r"^\.It (\d+)$", section("EXIT STATUS"), re.M)}
    assert {getattr(os, name) for name in names} <= described


def test_every_variable_that_is_no_setting_is_there() -> None:
    """Those of settings are looked for in test_cli.py."""
    read = set(re.findall(r'\bos\.environ(?:\.get\(|\.pop\(|\[)"([A-Z_]+)"', code()))
    assert "XDG_RUNTIME_DIR" in read
    # HOME is set, for another user.
    assert read - {"HOME"} <= items(section("ENVIRONMENT"), "Ev")


def figures(start: str, end: str) -> set[str]:
    """The names of a part of FIGURES."""
    part = section("FIGURES").partition(start)[2].partition(end)[0]
    lines = re.findall(r"^\.It (.*)$", part, re.MULTILINE)
    return {name for line in lines for name in line.split(" , ")}


def test_every_figure_of_the_status_is_there_and_no_other() -> None:
    limits = ceilings(Settings(env="/e", socket="/s"))
    status = PoolStatus("trac", "static", a_board(), 1, 1, limits)
    assert figures(".Ss Status", ".Ss Metrics") == {
        *(name for name, _ in status.own_rows()),
        *(name for rows in map(status.own_process_rows, status.board.workers) for name, _ in rows),
    }


def test_every_metric_is_there_and_no_other() -> None:
    told = a_status()
    told["pools"][0]["limits"] = ceilings(Settings(env="/e", socket="/s"))
    shown = metrics.render({"trac": a_board()}, told, openmetrics=False)
    assert figures(".Ss Metrics", ".Sh ") == set(re.findall(r"^# TYPE (\S+)", shown, re.MULTILINE))

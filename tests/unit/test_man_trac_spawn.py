"""man/trac-spawn.8 says what the code does: signals, exit status, variables that are no settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import spawner
from spawner import signals

from .test_man_trac_fcgi import items

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

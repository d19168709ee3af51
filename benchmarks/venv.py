"""The peers' own venv, so that the project's stays clean. It takes Trac from the project's."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from benchmarks.errors import BenchmarkError

DIRECTORY = Path(__file__).resolve().parents[1] / ".venv-benchmarks"
PYTHON = DIRECTORY / "bin" / "python"
#: What makes the peers' venv stale when it changes.
MADE_FOR = f"{sys.version}\n{sysconfig.get_path('purelib')}\n"

_PRINT_VERSIONS = """\
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def ensure() -> None:
    """Make the venv unless it is there, made by this very Python for this very project venv."""
    stamp = DIRECTORY / "made-for"
    if stamp.exists() and stamp.read_text() == MADE_FOR:
        return
    _run([sys.executable, "-m", "venv", "--clear", str(DIRECTORY)])
    inside = _run([str(PYTHON), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    # Everyone serves the same Trac, Jinja2 and so on: those of the project.
    Path(inside.strip(), "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
    stamp.write_text(MADE_FOR)


def install(distribution: str) -> None:
    """Install the newest release unless there is one. Raises BenchmarkError with pip's words."""
    if distribution not in versions([distribution]):
        # uWSGI links the Python that it is built with: one that pip has kept may be of another.
        options = ["--quiet", "--no-input", "--no-cache-dir"]
        _run([str(PYTHON), "-m", "pip", "install", *options, distribution])


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Of those that are installed."""
    found: dict[str, str] = json.loads(_run([str(PYTHON), "-c", _PRINT_VERSIONS, *distributions]))
    return found


def _run(command: list[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()[-3000:]
        raise BenchmarkError(f"{' '.join(command[1:])} failed:\n{words}")
    return done.stdout

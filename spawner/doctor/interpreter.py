"""Python and the packages that Trac needs, as a worker of the pool finds them."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
from collections.abc import Mapping
from typing import Dict, List, Optional, Tuple, TypedDict

from spawner import __version__
from spawner.doctor.apart import Failed
from spawner.doctor.finding import Findings, error, warning
from spawner.doctor.resident import as_worker
from spawner.doctor.site import Site
from spawner.settings import Settings

#: The module, what to install for it, and what it is for.
MODULES: Mapping[str, Tuple[str, str]] = {
    "pkg_resources": ("'setuptools<81'", "Trac looks for its plugins and templates with it"),
    "cgi": ("legacy-cgi", "Trac reads forms with it, and Python has none since 3.13"),
    "trac": ("'Trac>=1.6'", "it is what is to be served"),
}
#: In this order: trac itself imports the others.
OLDEST_TRAC = (1, 6)
PYTHONS = ((3, 9), (3, 13))


class Facts(TypedDict):
    executable: str
    python: List[int]
    missing: Dict[str, str]  # modules, with what importing them said
    trac: Optional[str]


def examine_interpreter(pool: Settings, site: Site) -> Findings:
    """Raises PermissionError when we may not look as the user of the pool."""
    try:
        found = as_worker(pool, facts)
    except Failed as failure:
        yield error(
            "worker-start",
            f"nothing can be run as a worker of the pool: {failure}",
            "The pool does not start.",
            "trac-spawn --check, with the same options, says more",
        )
        return
    yield from judge_interpreter(found)
    yield from judge_master(None if site.status is None else site.status["master"]["version"])


def facts() -> Facts:
    """In a process of its own, since it imports what the application does."""
    missing: Dict[str, str] = {}
    for name in MODULES:
        try:
            importlib.import_module(name)
        # A module that is there and broken is of no more use.
        except Exception as problem:
            missing[name] = f"{type(problem).__name__}: {problem}"
    return {
        "executable": sys.executable,
        "python": list(sys.version_info[:2]),
        "missing": missing,
        "trac": _version("Trac"),
    }


def _version(package: str) -> Optional[str]:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def judge_interpreter(found: Facts) -> Findings:
    pip = f"{found['executable']} -m pip install"
    for name, (package, purpose) in MODULES.items():
        if name in found["missing"]:
            yield error(
                f"interpreter-{name.replace('_', '-')}",
                f"{found['executable']} cannot import {name}: {found['missing'][name]}",
                f"Without it Trac does not start: {purpose}.",
                f"{pip} {package}",
            )
            return  # what comes next imports this one
    version = tuple(int(part) for part in re.findall(r"\d+", found["trac"] or "")[:2])
    if version and version < OLDEST_TRAC:
        yield warning(
            "interpreter-trac-old",
            f"Trac {found['trac']} is older than what trac-spawn is made for",
            "Nobody has tried them together.",
            f"{pip} 'Trac>=1.6'; then ask again, for the environments that it has to upgrade",
        )
    if not PYTHONS[0] <= tuple(found["python"]) <= PYTHONS[1]:
        yield warning(
            "interpreter-python",
            f"nobody has tried trac-spawn with Python {'.'.join(map(str, found['python']))}",
            "Trac, or a plugin, may fail in places.",
            "a virtual environment of Python 3.9 to 3.13, with trac-spawn and Trac in it",
        )


def judge_master(version: Optional[str]) -> Findings:
    if version is not None and version != __version__:
        yield warning(
            "interpreter-master",
            f"trac-spawn {version} runs, and {__version__} is installed here",
            "What the manual says, and what this command expects, is of another version.",
            "stop trac-spawn and start it again: a reload replaces only its workers",
        )

"""Plugins of Trac that cannot be loaded. Trac says so in its own log, if at all, and goes on without them."""

from __future__ import annotations

import functools
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from workers.errors import BootError

#: Loads it once more, and raises what that raises.
Again = Callable[[], Any]


def broken() -> dict[str, Again]:
    """Those of the environments that are open, by name. A plugin that has been loaded is among the
    modules of this process; one that has failed is not."""
    main = sys.modules.get("trac.env")
    if main is None:
        return {}
    return {**dict(_files(main.env_cache.values())), **dict(_installed(sys.modules["trac.loader"]))}


def _files(environments: Any) -> Iterator[tuple[str, Again]]:
    for environment in environments:
        for folder in filter(None, (environment.plugins_dir, environment.shared_plugins_dir)):
            for path in Path(folder).glob("*.py"):
                if path.stem not in sys.modules:
                    yield str(path), functools.partial(_run, path)


def _installed(loader: Any) -> Iterator[tuple[str, Again]]:
    for entry in loader.working_set.iter_entry_points("trac.plugins"):
        if entry.module_name in sys.modules:
            continue
        try:
            entry.load()
        except loader.DistributionNotFound:
            continue  # an optional part, as those for MySQL and PostgreSQL, without what it needs
        except (Exception, SystemExit):
            pass  # whatever it is: who wants to know loads it again
        yield f"{entry.name} of {entry.dist}", entry.load


def refuse_new(found: dict[str, Again], known: frozenset[str]) -> None:
    """Raise BootError for one that was not ``known`` as broken before: whoever serves now has it."""
    for name in sorted(set(found) - known):
        try:
            found[name]()
        except (Exception, SystemExit) as error:  # a module runs code of its own
            raise BootError(
                f"the plugin {name} cannot be loaded: {type(error).__name__}: {error}",
                traceback=traceback.format_exc(),
                unexpected=True,
            ) from error


def _run(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))

"""Modules that an application imports and hardly ever uses: there, but not loaded until they are.

Imported only where one is loaded: this needs modules that the master does without.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from importlib import metadata
from types import ModuleType
from typing import Any


class Deferred(ModuleType):
    """Knows where it comes from and its version; asked for anything else, it becomes what it stands for.

    What Python's own LazyLoader makes is loaded by the next import of it.
    """

    def __getattr__(self, name: str) -> Any:
        # An import of a part of it asks for __path__, which leads here.
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec = self.__spec__
        assert spec is not None and spec.loader is not None
        if spec.submodule_search_locations is not None:
            self.__path__ = spec.submodule_search_locations
        spec.loader.exec_module(self)
        return getattr(self, name)


def defer(name: str) -> None:
    """Of a distribution of the same name. One that is loaded, or not installed, stays as it is."""
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    vars(module).pop("__path__", None)
    with contextlib.suppress(metadata.PackageNotFoundError):
        vars(module)["__version__"] = metadata.version(name)
    module.__class__ = Deferred
    sys.modules[name] = module

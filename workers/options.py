"""What options of trac.ini say, and which components there are, without finding it out each time. Imported
only once Trac is.

A page asks for options some hundred times, and for each permission sorts those who have a say in it. Trac
remembers the text of an option until it is changed, and so does it here: what is remembered besides is found
by that text, or by the components of an environment, and is another when they are others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from trac import config
from trac.core import ComponentManager, ComponentMeta, ExtensionPoint
from trac.util import as_bool

_MISSING = object()
#: Where the last order of an environment's components is kept: with the environment.
_KEPT = "_trac_spawn_ordered"

_truth = lru_cache(maxsize=256)(as_bool)


@lru_cache(maxsize=1024)
def _items(text: str, separator: str, keep_empty: bool) -> tuple[str, ...]:
    return tuple(config._getlist(text, separator, keep_empty))


def _list(option: Any, text: str) -> Any:
    if type(option.sep) is not str:
        return config._getlist(text, option.sep, option.keep_empty)
    return list(_items(text, option.sep, option.keep_empty))


def _text(option: Any, text: str) -> Any:
    return text


#: How the text of an option is read, where it is of one of Trac's own kinds.
_READ: dict[type, Callable[[Any, str], Any]] = {
    config.Option: _text,
    config.ExtensionOption: _text,
    config.BoolOption: lambda option, text: _truth(text),
    config.ListOption: _list,
    config.OrderedExtensionsOption: _list,
}


def accelerate() -> None:
    """Have Trac's options and extension points ask like this in this process."""
    if hasattr(config, "_getlist") and hasattr(config.Section, "_cache"):
        config.Option.__get__ = _reading(config.Option.__get__)
    ordered = config.OrderedExtensionsOption
    ordered.__get__ = _ordering(ordered.__get__)
    ExtensionPoint.extensions = _finding(ExtensionPoint.extensions)
    # The property that an extension point is has got hold of the method before.
    ExtensionPoint.__get__ = _get


def _reading(get: Callable[..., Any]) -> Callable[..., Any]:
    def __get__(self: Any, instance: Any, owner: Any) -> Any:
        settings: Any = getattr(instance, "config", None)
        read = _READ.get(type(self))
        if read is not None and type(settings) is config.Configuration:
            section = settings._sections.get(self.section)
            text = _MISSING if section is None else section._cache.get(self.name, _MISSING)
            if type(text) is str:
                return read(self, text)
        return get(self, instance, owner)

    return __get__


def _get(self: Any, instance: Any, owner: Any = None) -> Any:
    return self if instance is None else self.extensions(instance)


def _finding(find: Callable[..., Any]) -> Callable[..., Any]:
    def extensions(self: Any, component: Any) -> Any:
        manager = component.compmgr
        if type(manager).__getitem__ is not ComponentManager.__getitem__:
            return find(self, component)
        enabled, components = manager.enabled, manager.components
        found = []
        for cls in ComponentMeta._registry.get(self.interface, ()):
            one = components.get(cls) if enabled.get(cls) else None
            if one is None:
                one = manager[cls]  # disabled, or not made yet
            if one:
                found.append(one)
        return found

    return extensions


def _ordering(get: Callable[..., Any]) -> Callable[..., Any]:
    """Trac sorts them each time, for each permission that somebody asks for."""

    def __get__(self: Any, instance: Any, owner: Any) -> Any:
        if instance is None:
            return self
        names = config.ListOption.__get__(self, instance, owner)
        there = self.xtnpt.extensions(instance)
        kept = vars(instance.compmgr).setdefault(_KEPT, {})
        found = kept.get(self)
        if found is None or found[:2] != (names, there):
            found = kept[self] = names, there, get(self, instance, owner)
        return list(found[2])

    return __get__

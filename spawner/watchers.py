"""The watchers of the pools with --watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterator

from spawner.settings import Settings

if TYPE_CHECKING:
    from spawner.watch import Watcher


class Watchers:
    """One for each pool that is watched, by name."""

    def __init__(self) -> None:
        self._watchers: dict[str, Watcher] = {}

    def watch(self, settings: Settings) -> None:
        """Before the application is loaded: what changes while it loads is a change."""
        before = self._watchers.pop(settings.name, None)
        if settings.watch:
            from spawner import watchlist  # only who watches pays for what it imports

            self._watchers[settings.name] = watcher = watchlist.watcher(settings)
            if before is not None:
                watcher.follow(before)

    def forget(self, name: str) -> None:
        self._watchers.pop(name, None)

    def loaded(self, name: str) -> None:
        """The application of that pool has been loaded, or cannot be."""
        if name in self._watchers:
            self._watchers[name].loaded()

    def changes(self) -> Iterator[tuple[str, list[str]]]:
        """The name of each pool that has to be loaded again, with what has changed."""
        for name, watcher in list(self._watchers.items()):
            changed = watcher.changed()
            if changed:
                yield name, changed

    def next_deadline(self) -> float:
        """When changes() is due, on the monotonic clock; infinity when nothing is."""
        return min((one.next_deadline() for one in self._watchers.values()), default=float("inf"))

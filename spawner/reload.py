"""A reload of the whole: the configuration is read again, and each pool is loaded anew."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Callable, Optional

from spawner.settings import Settings
from workers.errors import BootError

if TYPE_CHECKING:
    from spawner.master import Master

log = logging.getLogger("trac-spawn")

#: What became of reloading each pool, by name; None for success.
Outcome = dict[str, Optional[BootError]]


class Reload:
    """Of every pool, or of the one named ``only``. What fails changes nothing, and does not keep the
    other pools from being loaded. ``done`` gets what became of each, once all is decided."""

    def __init__(self, master: Master, only: str, done: Callable[[Outcome], None]) -> None:
        self._master = master
        self._only = only
        self._done = done
        self._left: set[str] = set()
        self._outcome: Outcome = {}

    def begin(self) -> None:
        master = self._master
        master.systemd.reloading()
        try:
            fresh = master.configuration.reload()
            fresh.check()
        except BootError as error:
            log.error("reload failed, nothing is changed: %s", error)
            self._finish({"": error})
            return
        wanted = [pool for pool in fresh.pools if self._only in ("", pool.name)]
        if not wanted:
            why = f"the configuration has no pool {self._only} any more; reload all pools to stop it"
            log.error("reload failed, nothing is changed: %s", why)
            self._finish({self._only: BootError(why, os.EX_CONFIG)})
            return
        master.configuration = fresh
        log.setLevel(fresh.master.log_level.upper())
        self._left = {pool.name for pool in wanted}
        if not self._only:
            master.drop_pools(fresh.pools)
        for settings in wanted:
            self._load(settings)
        try:
            master.helper.configure(fresh, master.inheritance)
        except BootError as error:
            log.error("the status is shown as before: %s", error)
        if master.predecessor is None:
            master.inheritance.close()

    def _load(self, settings: Settings) -> None:
        name = settings.name
        pool = self._master.pools.get(name)
        try:
            self._refuse_what_others_have(settings)
            if pool is None:
                self._master.add_pool(settings)
                self._decided(name, None)
            else:
                self._master.watchers.watch(settings)
                # First: it may have opened an address that this one is to open.
                pool.replacement.abandon("another reload has begun")
                workplace = self._master.open_workplace(settings, pool.workplace)
                pool.reload(workplace, lambda failure: self._loaded(name, failure))
        except BootError as error:
            log.error("reload of the pool %s failed: %s", name, error)
            self._loaded(name, error)

    def _refuse_what_others_have(self, settings: Settings) -> None:
        """Raises BootError for an address of a pool that goes on: which of both it is for would be open
        until both have been loaded, or have not."""
        asked = {one for one in settings.listeners() if one.kind not in ("inet", "inet6") or one.port}
        for name, pool in self._master.pools.items():
            if name != settings.name:
                for listener in pool.workplace.listeners:
                    if listener.asked in asked:
                        raise BootError(
                            f"the pool {name} still listens on {listener.asked}; only an upgrade gives"
                            " an address from one pool to another",
                            os.EX_UNAVAILABLE,
                        )

    def _loaded(self, name: str, failure: Optional[BootError]) -> None:
        self._master.watchers.loaded(name)
        self._decided(name, failure)

    def _decided(self, name: str, failure: Optional[BootError]) -> None:
        self._master.store.update(self._master.listeners())
        self._outcome[name] = failure
        self._left.discard(name)
        if not self._left:
            self._finish(self._outcome)

    def _finish(self, outcome: Outcome) -> None:
        failed = [str(failure) for failure in outcome.values() if failure]
        self._master.systemd.ready(f"reload failed: {failed[0]}" if failed else "reloaded")
        self._done(outcome)

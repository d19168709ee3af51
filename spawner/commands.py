"""What trac-spawnctl can ask of a master and tell it: a method for each verb of the table."""

from __future__ import annotations

import functools
import os
import time
from typing import TYPE_CHECKING, Callable, Iterable, Mapping, Optional

from spawner import __version__, verbs
from spawner.addresses import address_of
from spawner.calls import Call
from spawner.ceilings import ceilings
from spawner.children import WorkerHandle
from spawner.listenqueue import queues_of
from spawner.news import News
from spawner.pool import WorkerState
from spawner.setting import Scope
from spawner.settings import SETTINGS, Settings
from spawner.status import (
    AddressStatus,
    Config,
    Death,
    LastDeaths,
    Leaks,
    MasterStatus,
    PoolStatus,
    RequestStatus,
    SettingStatus,
    Status,
    TemplateStatus,
    WorkerStatus,
)
from spawner.supervisor import Supervisor
from workers.errors import BootError
from workers.recycling import private_memory, resident_memory

if TYPE_CHECKING:
    from spawner.master import Master
    from spawner.reload import Outcome


class UnknownPool(BootError):
    """The request names a pool that there is not."""

    def __init__(self, name: str, known: Mapping[str, Supervisor]) -> None:
        super().__init__(f"there is no pool {name!r}; there are {', '.join(known)}", os.EX_USAGE)


class Commands:
    """Answers calls by what the master knows, and passes orders on to it."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._started = time.time()
        self._born = time.monotonic()

    def handlers(self) -> Mapping[str, Callable[[Call], None]]:
        """By the name of the verb; last-deaths is the method last_deaths."""
        return {name: getattr(self, name.replace("-", "_")) for name in verbs.ON_THE_WIRE}

    # -- questions -------------------------------------------------------------------------------

    def status(self, call: Call) -> None:
        call.reply(self.describe())

    def describe(self) -> Status:
        """All that the status shows."""
        master: MasterStatus = {
            "version": __version__,
            "pid": os.getpid(),
            "started": self._started,
            "age_s": time.monotonic() - self._born,
            "state": self._master.state,
        }
        pools = [_pool_status(name, pool) for name, pool in self._master.pools.items()]
        return {"master": master, "pools": pools}

    def config(self, call: Call) -> None:
        configuration = self._master.configuration
        rows = [*_settings_of(None, configuration.master)]
        for name, pool in self._master.pools.items():
            # Not those of the file, which a pool that cannot load them does not have.
            rows += _settings_of(name, pool.workplace.settings)
        answer: Config = {"settings": rows}
        call.reply(answer)

    def last_deaths(self, call: Call) -> None:
        answer: LastDeaths = {"deaths": _deaths_of(self._chosen(call))}
        call.reply(answer)

    def leaks(self, call: Call) -> None:
        found = [leak for pool in self._chosen(call) for leak in pool.leaks]
        answer: Leaks = {"leaks": sorted(found, key=lambda leak: -leak["per_request"])}
        call.reply(answer)

    def news(self) -> News:
        """For the status process: without what it can see by itself, on the scoreboards."""
        pools = self._master.pools.values()
        slow = sorted((one for pool in pools for one in pool.slow_log), key=lambda one: one["at"])
        return News(self.describe(), _deaths_of(pools), slow)

    # -- orders ----------------------------------------------------------------------------------

    def reload(self, call: Call) -> None:
        self._chosen(call)
        if not self._master.serving:
            raise BootError("trac-spawn is being stopped", os.EX_TEMPFAIL)
        self._master.reload(call.arguments.get("pool", ""), functools.partial(self._reloaded, call))

    def _reloaded(self, call: Call, outcome: Outcome) -> None:
        failures = {name: failure for name, failure in outcome.items() if failure is not None}
        if not failures:
            pools = self._master.pools
            call.reply({"pools": {name: pools[name].current.number for name in outcome if name in pools}})
            return
        first = next(iter(failures.values()))
        told = "; ".join(f"{name}: {failure}" if name else str(failure) for name, failure in failures.items())
        call.fail(f"the old generation serves on: {told}", first.traceback, first.exit_code)

    def upgrade(self, call: Call) -> None:
        self._master.upgrade(functools.partial(self._upgraded, call))

    @staticmethod
    def _upgraded(call: Call, successor: Optional[int], failure: Optional[BootError]) -> None:
        if failure is None:
            call.reply({"pid": successor})
        else:
            call.fail(f"nothing is changed: {failure}", failure.traceback, failure.exit_code)

    def stop(self, call: Call) -> None:
        self._master.stop(lambda: call.reply({}))

    def scale(self, call: Call) -> None:
        (pool,) = self._chosen(call)
        wanted = verbs.wanted_workers(call.arguments["workers"], pool.scaling.maximum)
        if wanted < 1:
            raise BootError(f"{wanted} workers are too few; use pause to have none", os.EX_USAGE)
        self._master.resize(pool, wanted)
        name = pool.workplace.settings.name
        call.reply({"pool": name, "target": pool.target, "max_workers": pool.scaling.maximum})

    def recycle(self, call: Call) -> None:
        slot = verbs.slot_number(call.arguments)
        pools = {pool.workplace.settings.name: pool.recycle(slot) for pool in self._chosen(call)}
        if slot is not None and not any(pools.values()):
            raise BootError(f"there is no worker in slot {slot} that could be replaced", os.EX_USAGE)
        call.reply({"pools": pools})

    def reopen(self, call: Call) -> None:
        self._master.reopen()
        call.reply({})

    def pause(self, call: Call) -> None:
        self._pause(call, True)

    def resume(self, call: Call) -> None:
        self._pause(call, False)

    def _pause(self, call: Call, paused: bool) -> None:
        chosen = self._chosen(call)
        for pool in chosen:
            pool.paused = paused
        call.reply({"pools": [pool.workplace.settings.name for pool in chosen]})

    def _chosen(self, call: Call) -> list[Supervisor]:
        """The pool that the call names, or all. Raises UnknownPool, which the caller is told."""
        pools = self._master.pools
        name = call.arguments.get("pool")
        if name is None:
            return list(pools.values())
        if name not in pools:
            raise UnknownPool(name, pools)
        return [pools[name]]


def _deaths_of(pools: Iterable[Supervisor]) -> list[Death]:
    """The last one last."""
    return sorted((death for pool in pools for death in pool.deaths), key=lambda death: death["at"])


def _settings_of(pool: Optional[str], settings: Settings) -> list[SettingStatus]:
    scopes = (Scope.MASTER,) if pool is None else (Scope.POOL, Scope.SINGLE_POOL)
    return [
        {
            "pool": pool,
            "name": setting.file_key,
            "value": setting.written(value),
            "source": str(settings.source(setting.name)),
        }
        for setting in SETTINGS
        for value in [getattr(settings, setting.name)]
        if setting.scope in scopes and setting.is_set(value)
    ]


def _pool_status(name: str, pool: Supervisor) -> PoolStatus:
    sockets = [listener.socket for listener in pool.workplace.listeners]
    addresses: list[AddressStatus] = [
        {
            "address": str(address_of(socket)),
            "listen_queue": {
                "waiting": queue.waiting if queue else None,
                "limit": queue.limit if queue else None,
            },
        }
        for socket, queue in zip(sockets, queues_of(sockets))
    ]
    found, spare = pool.current.template, pool.spare.worker
    board = pool.workplace.scoreboard.snapshot()
    template: Optional[TemplateStatus] = None
    if found is not None:
        template = {
            "pid": found.pid,
            "generation": found.generation,
            "ready": found.ready,
            "warming_up": found.early and not found.ready,
            "age_s": time.monotonic() - found.born,
        }
    return {
        "name": name,
        "state": pool.state,
        "generation": pool.current.number,
        "pm": pool.scaling.bounds.manager,
        "target": pool.target,
        "max_workers": pool.scaling.maximum,
        "max_children_reached": pool.scaling.max_reached,
        "slow": pool.slow_requests,
        "scoreboard": "".join(worker.letter for worker in board.workers),
        "totals": board.totals.to_json(),
        "addresses": addresses,
        "template": template,
        "spare": None if spare is None else spare.pid,
        "workers": [_worker_status(worker) for worker in pool.workers],
        "reloads": {
            "ok": pool.replacement.counted[True],
            "failed": pool.replacement.counted[False],
            "last_error": pool.replacement.last_error or None,
        },
        "recycles": dict(pool.recycled),
        "deaths": dict(pool.deaths.counted),
        "limits": ceilings(pool.workplace.settings),
        "refused": board.totals.refused,
    }


def _worker_status(worker: WorkerHandle) -> WorkerStatus:
    slot = worker.slot.snapshot()
    state = worker.state.value
    if worker.state is WorkerState.READY:
        state = "busy" if slot.busy else "idle"
    request: Optional[RequestStatus] = None
    if slot.busy:
        request = {
            "started_s_ago": (time.monotonic_ns() - slot.request_started) / 1e9,
            "method": slot.method,
            "uri": slot.uri,
            "user": slot.user,
            "address": slot.address,
            "id": slot.request_id,
        }
    return {
        "slot": worker.number,
        "generation": worker.generation,
        "pid": worker.pid,
        "state": state,
        "requests": slot.requests,
        "request": request,
        "age_s": time.monotonic() - worker.born,
        # As the worker last measured it by itself, which costs nothing and needs no rights.
        "rss": slot.resident or _memory(resident_memory, worker.pid),
        "private": slot.private or _memory(private_memory, worker.pid),
        "proportional": slot.proportional or None,
    }


def _memory(measure: Callable[[int], int], pid: Optional[int]) -> Optional[int]:
    try:
        return None if pid is None else measure(pid)
    except (OSError, IndexError):
        return None  # it is ending, or the kernel does not show it to this user

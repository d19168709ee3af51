"""What a pool has counted since it began, for the master that takes the place of this one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spawner.supervisor import Supervisor
from workers.snapshot import Counters, PoolGauge, as_count

_PEAKS = {gauge.name for gauge in (PoolGauge.QUEUE_PEAK, PoolGauge.ACTIVE_PEAK, PoolGauge.RESIDENT_PEAK)}


@dataclass(frozen=True)
class Totals:
    counters: Counters
    recycled: Mapping[str, int] = field(default_factory=dict)
    deaths: Mapping[str, int] = field(default_factory=dict)
    #: By success.
    reloads: Mapping[bool, int] = field(default_factory=dict)
    slow: int = 0
    #: How often more workers were wanted than may be.
    ceiling: int = 0
    #: The most that there ever was, by the names of gauges.
    peaks: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, pool: Supervisor) -> Totals:
        board = pool.workplace.scoreboard.snapshot()
        return cls(
            board.totals,
            dict(pool.recycled),
            dict(pool.deaths.counted),
            dict(pool.replacement.counted),
            pool.slow_requests,
            pool.scaling.max_reached,
            {
                PoolGauge.QUEUE_PEAK.name: board.gauges[PoolGauge.QUEUE_PEAK],
                PoolGauge.ACTIVE_PEAK.name: board.active_peak,
                PoolGauge.RESIDENT_PEAK.name: board.resident_peak,
            },
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "counters": self.counters.to_json(),
            "recycled": dict(self.recycled),
            "deaths": dict(self.deaths),
            "reloads": {"ok": self.reloads.get(True, 0), "failed": self.reloads.get(False, 0)},
            "slow": self.slow,
            "ceiling": self.ceiling,
            "peaks": dict(self.peaks),
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Totals:
        """What to_json() has made, of whatever version. Raises TypeError or ValueError for what is
        none; what is missing is nothing."""
        reloads = told.get("reloads", {})
        return cls(
            Counters.from_json(told.get("counters", {})),
            {str(cause): int(count) for cause, count in told.get("recycled", {}).items()},
            {str(cause): int(count) for cause, count in told.get("deaths", {}).items()},
            {True: int(reloads.get("ok", 0)), False: int(reloads.get("failed", 0))},
            int(told.get("slow", 0)),
            int(told.get("ceiling", 0)),
            {name: as_count(peak) for name, peak in told.get("peaks", {}).items() if name in _PEAKS},
        )

    def since(self, before: Totals) -> Totals:
        """What has been counted after ``before`` was, and the peaks."""
        return Totals(
            self.counters - before.counters,
            Counter(self.recycled) - Counter(before.recycled),
            Counter(self.deaths) - Counter(before.deaths),
            Counter(self.reloads) - Counter(before.reloads),
            self.slow - before.slow,
            self.ceiling - before.ceiling,
            self.peaks,
        )

    def add_to(self, pool: Supervisor) -> None:
        """Have ``pool`` go on from these."""
        board = pool.workplace.scoreboard
        board.add(self.counters)
        for name, peak in self.peaks.items():
            board.note_peak(PoolGauge[name], peak)
        pool.recycled.update(self.recycled)
        pool.deaths.counted.update(self.deaths)
        pool.replacement.counted.update(self.reloads)
        pool.slow_before += self.slow
        pool.scaling.max_reached += self.ceiling


def tell(pools: Mapping[str, Supervisor]) -> dict[str, Totals]:
    return {name: Totals.of(pool) for name, pool in pools.items()}


def message(totals: Mapping[str, Totals], before: Mapping[str, Totals]) -> dict[str, Any]:
    """``totals`` as the part of a message, without what has been told ``before``."""
    nothing = Totals(Counters.none())
    return {name: one.since(before.get(name, nothing)).to_json() for name, one in totals.items()}


def take(told: Mapping[str, Any], pools: Mapping[str, Supervisor]) -> None:
    """Add what such a message says to the pools of the same names."""
    for name, totals in told.items():
        if name in pools:
            Totals.from_json(totals).add_to(pools[name])

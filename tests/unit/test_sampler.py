"""What the master writes down for whoever shows the status."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import cast

from spawner.history import History
from spawner.sampler import Sampler
from spawner.settings import Settings
from spawner.supervisor import Supervisor
from workers.scoreboard import Scoreboard
from workers.snapshot import PoolGauge


def a_pool() -> Supervisor:
    place = SimpleNamespace(
        scoreboard=Scoreboard(2), history=History(), listeners=[], settings=Settings(status_path="/status")
    )
    scaling = SimpleNamespace(maximum=5, max_reached=1)
    pool = SimpleNamespace(
        workplace=place, scaling=scaling, workers=[], target=3, slow_requests=2,
        current=SimpleNamespace(number=4),
    )  # fmt: skip
    return cast(Supervisor, pool)


def points_after_a_look(seen_apart: bool) -> int:
    pool = a_pool()
    told: list[bool] = []
    Sampler(lambda: [pool], lambda: seen_apart, lambda: told.append(True)).check_clock()
    assert pool.workplace.scoreboard.noted(PoolGauge.CEILING) == 5
    assert told == [True] * seen_apart
    return len(pool.workplace.history.points(time.time()))


def test_graphs_begin_with_whoever_can_see_them() -> None:
    """A master that has not taken over yet has no status process, and counts from 0."""
    assert points_after_a_look(seen_apart=False) == 0
    assert points_after_a_look(seen_apart=True) == 1


def test_whoever_begins_to_look_is_told_at_once() -> None:
    pool = a_pool()
    seen: list[bool] = []
    told: list[bool] = []
    sampler = Sampler(lambda: [pool], lambda: bool(seen), lambda: told.append(True))
    sampler.check_clock()
    assert told == []
    seen.append(True)
    sampler.check_clock()
    assert told == [True]
    sampler.check_clock()
    assert told == [True]  # and then once a second

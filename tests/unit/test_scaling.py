"""The wanted number of workers: pure decisions, so any history of a load can be played."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawner.scaling import HIGHEST_SPAWN_RATE, Bounds, Load, Scaling

DYNAMIC = Bounds("dynamic", max_workers=100, initial=10, min_spare=5, max_spare=10)
ONDEMAND = Bounds("ondemand", max_workers=100, initial=0)


@st.composite
def bounds(draw: st.DrawFn) -> Bounds:
    manager = draw(st.sampled_from(["static", "dynamic", "ondemand"]))
    least, start, most, maximum = sorted(draw(st.lists(st.integers(1, 80), min_size=4, max_size=4)))
    initial = {"static": maximum, "dynamic": start, "ondemand": 0}[manager]
    return Bounds(manager, maximum, initial, least, most)


Moment = tuple[int, int, int, bool]
moments = st.tuples(st.integers(0, 100), st.integers(0, 200), st.integers(0, 100), st.booleans())


def load_of(scaling: Scaling, moment: Moment) -> tuple[Load, bool]:
    """A load that a pool of the wanted size can have."""
    share, queued, idle_share, may_grow = moment
    busy = scaling.target * share // 100
    return Load(busy, queued, (scaling.target - busy) * idle_share // 100), may_grow


@given(bounds(), st.lists(moments, max_size=40))
def test_the_bounds_hold_whatever_the_load(bounds: Bounds, history: list[Moment]) -> None:
    scaling = Scaling(bounds)
    for moment in history:
        before = scaling.target
        load, may_grow = load_of(scaling, moment)
        scaling.look(load, may_grow)
        assert 0 <= scaling.target <= bounds.max_workers
        assert scaling.target >= load.busy
        assert scaling.target - before <= HIGHEST_SPAWN_RATE
        if bounds.manager == "static":
            assert scaling.target == before
        if bounds.manager == "dynamic":
            assert scaling.target >= bounds.min_spare
            assert before - scaling.target <= 1
        if not may_grow and before:
            assert scaling.target <= before


@given(bounds(), st.integers(0, 100))
def test_a_steady_load_settles(bounds: Bounds, busy: int) -> None:
    scaling = Scaling(bounds)
    for _ in range(bounds.max_workers + 10):
        scaling.look(Load(min(busy, scaling.target), max(0, busy - scaling.target)))
    settled = scaling.target
    spare = settled - min(busy, settled)
    if bounds.manager == "dynamic" and settled < bounds.max_workers:
        assert bounds.min_spare <= spare <= bounds.max_spare
    if bounds.manager == "ondemand":
        assert settled == min(busy, bounds.max_workers)
    assert scaling.look(Load(min(busy, settled), max(0, busy - settled))) == settled


@pytest.mark.parametrize("bounds", [DYNAMIC, ONDEMAND])
def test_the_spawn_rate_doubles_while_workers_are_missing(bounds: Bounds) -> None:
    scaling = Scaling(bounds)
    sizes = [bounds.initial]
    for _ in range(8):
        sizes.append(scaling.look(Load(busy=scaling.target, queued=500)))
    steps = [after - before for before, after in zip(sizes, sizes[1:])]
    assert steps == [1, 2, 4, 8, 16, 32, min(32, 100 - sum([bounds.initial, 63])), steps[7]]
    assert scaling.target == 100
    scaling = Scaling(bounds)
    scaling.look(Load(busy=bounds.initial, queued=500))
    scaling.look(Load(busy=0))
    before = scaling.target
    assert scaling.look(Load(busy=before, queued=500)) == before + 1


def test_workers_on_their_way_are_not_asked_for_again() -> None:
    scaling = Scaling(ONDEMAND)
    assert scaling.look(Load(busy=0, queued=1)) == 1
    for _ in range(5):
        assert scaling.look(Load(busy=0, queued=1)) == 1
    assert scaling.look(Load(busy=1, queued=1)) == 2


def test_ondemand_lets_go_of_those_that_were_idle_for_too_long_together() -> None:
    scaling = Scaling(ONDEMAND)
    for _ in range(4):
        scaling.look(Load(busy=scaling.target, queued=500))
    assert scaling.look(Load(busy=2)) == 15
    assert scaling.look(Load(busy=2, expired=9)) == 6
    assert scaling.look(Load(busy=0, expired=6)) == 0


@pytest.mark.parametrize("manager", ["dynamic", "ondemand"])
def test_the_maximum_is_an_event_until_the_pool_is_smaller_again(manager: str) -> None:
    scaling = Scaling(Bounds(manager, 3, 1, 1, 1))
    for _ in range(10):
        scaling.look(Load(busy=scaling.target, queued=9))
    assert (scaling.target, scaling.max_reached) == (3, 1)
    scaling.look(Load(busy=2, queued=0))
    scaling.look(Load(busy=3, queued=9))
    assert scaling.max_reached == 1
    scaling.look(Load(busy=0, expired=3))
    for _ in range(10):
        scaling.look(Load(busy=scaling.target, queued=9))
    assert scaling.max_reached == 2


def test_ondemand_has_one_worker_whatever_the_memory() -> None:
    scaling = Scaling(ONDEMAND)
    assert scaling.look(Load(busy=0, queued=5), may_grow=False) == 1
    assert scaling.look(Load(busy=1, queued=5), may_grow=False) == 1


def test_an_administrator_moves_the_maximum() -> None:
    static = Scaling(Bounds("static", 4, 4))
    static.move_maximum(6)
    assert static.target == static.look(Load(busy=6, queued=9)) == 6
    dynamic = Scaling(DYNAMIC)
    dynamic.move_maximum(7)
    assert dynamic.look(Load(busy=7, queued=9)) == 7
    dynamic.move_maximum(9)
    assert dynamic.look(Load(busy=7, queued=9)) == 8


@pytest.mark.parametrize(
    ("old", "new", "target"),
    [
        (Bounds("static", 8, 8), ONDEMAND, 8),
        (Bounds("static", 8, 8), Bounds("ondemand", 3, 0), 3),
        (ONDEMAND, Bounds("static", 8, 8), 8),
        (ONDEMAND, DYNAMIC, 10),
        (ONDEMAND, ONDEMAND, 1),  # the one that has shown that the new settings work
    ],
)
def test_a_reload_keeps_what_the_load_needs(old: Bounds, new: Bounds, target: int) -> None:
    scaling = Scaling(old)
    scaling.adopt(new)
    assert (scaling.target, scaling.maximum) == (target, new.max_workers)


@pytest.mark.parametrize("bounds", [Bounds("static", 4, 4), DYNAMIC, ONDEMAND])
def test_after_a_rest_a_pool_begins_as_at_first(bounds: Bounds) -> None:
    scaling = Scaling(bounds)
    for _ in range(4):
        scaling.look(Load(busy=scaling.target, queued=500))
    scaling.rest()
    assert scaling.target == bounds.initial

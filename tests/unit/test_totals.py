"""What a pool has counted, on its way to another master."""

from __future__ import annotations

import json

import pytest

from spawner.totals import Totals
from workers.scoreboard import Scoreboard
from workers.snapshot import Counters


def counted(requests: int) -> Counters:
    board = Scoreboard(1)
    slot = board.assign(1)
    for _ in range(requests):
        slot.begin(1, {"REQUEST_METHOD": "GET"})
        slot.end("GET", 200, 3, 10**6, 10)
    return board.snapshot().totals


BEFORE = Totals(counted(2), {"max-requests": 1}, {"SIGKILL": 1}, {True: 1}, 1, 0, {"QUEUE_PEAK": 3})
AFTER = Totals(
    counted(5), {"max-requests": 1, "reload": 2}, {"SIGKILL": 3}, {True: 1, False: 4}, 2, 0, {"QUEUE_PEAK": 4}
)


def test_there_and_back() -> None:
    told = json.loads(json.dumps(AFTER.to_json()))
    assert Totals.from_json(told).to_json() == AFTER.to_json()


def test_only_what_has_been_counted_since() -> None:
    since = AFTER.since(BEFORE)
    assert since.counters == counted(3)
    assert (since.recycled, since.deaths, since.slow) == ({"reload": 2}, {"SIGKILL": 2}, 1)
    assert since.to_json()["reloads"] == {"ok": 0, "failed": 4}
    # The most that there ever was is no sum.
    assert since.peaks == {"QUEUE_PEAK": 4}


def test_another_version_may_tell_less() -> None:
    told = {"moons": 3, "peaks": {"MOONS": 3}}
    assert Totals.from_json(told).to_json() == Totals(Counters.none()).to_json()


@pytest.mark.parametrize("count", ["7", None, [1]])
def test_what_is_no_count(count: object) -> None:
    with pytest.raises(TypeError):
        Totals.from_json({"counters": {"requests": count}})


@pytest.mark.parametrize(("told", "taken"), [(-5, 0), (2**200, 2**62)])
def test_a_count_fits_into_its_word(told: int, taken: int) -> None:
    found = Totals.from_json({"counters": {"requests": told}}).counters
    assert found.requests == taken
    Scoreboard(1).add(found)

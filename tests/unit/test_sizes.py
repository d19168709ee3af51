"""How many workers a pool may have: what is derived, and what is refused, by php-fpm's rules."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Dict, Tuple

import pytest

from spawner.setting import Rank, Source
from spawner.settings import BY_NAME, Settings
from spawner.sizes import complete_sizes
from workers.errors import BootError


def given(rank: Rank = Rank.COMMAND_LINE, **numbers: Any) -> Settings:
    """Settings with these values, as if they had been given as options, or with another rank."""
    sources = {name: Source(rank, BY_NAME[name].option) for name in numbers}
    return Settings(**numbers, sources=sources)


@pytest.mark.parametrize(
    ("numbers", "completed"),
    [
        ({"workers": 8}, (0, 0, 0, 0)),
        ({"pm": "ondemand", "workers": 8}, (8, 0, 0, 0)),
        ({"pm": "ondemand", "workers": 8, "max_workers": 20}, (20, 0, 0, 0)),
        ({"pm": "dynamic", "workers": 8}, (8, 3, 2, 4)),
        ({"pm": "dynamic", "max_workers": 1}, (1, 1, 1, 1)),
        ({"pm": "dynamic", "max_workers": 2}, (2, 1, 1, 1)),
        ({"pm": "dynamic", "max_workers": 20, "min_spare": 15}, (20, 15, 15, 15)),
        ({"pm": "dynamic", "max_workers": 20, "max_spare": 1}, (20, 1, 1, 1)),
        ({"pm": "dynamic", "max_workers": 20, "start_workers": 8}, (20, 8, 5, 10)),
    ],
)
def test_sizes_that_were_left_out(
    numbers: Dict[str, Any], completed: Tuple[int, int, int, int]
) -> None:
    found = complete_sizes(given(**numbers))
    sizes = (found.max_workers, found.start_workers, found.min_spare, found.max_spare)
    assert sizes == completed
    assert found.sources.keys() == numbers.keys()


@pytest.mark.parametrize("most", range(1, 60))
def test_derived_sizes_are_in_order(most: int) -> None:
    found = complete_sizes(given(pm="dynamic", max_workers=most))
    assert 1 <= found.min_spare <= found.start_workers <= found.max_spare <= found.max_workers


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"max_workers": 4, "min_spare": 5}, "--min-spare: 5 is more than --max-workers, 4"),
        ({"max_workers": 4, "max_spare": 5}, "--max-spare: 5 is more than --max-workers, 4"),
        ({"min_spare": 3, "max_spare": 2}, "--min-spare: 3 is more than --max-spare, 2"),
        ({"start_workers": 6, "max_spare": 5}, "--start-workers: 6 is more than --max-spare, 5"),
        ({"start_workers": 6}, "--start-workers: 6 is more than --max-spare, 5"),
        ({"start_workers": 1}, "--start-workers: 1 is less than --min-spare, 2"),
    ],
)
def test_sizes_out_of_order(numbers: Dict[str, Any], said: str) -> None:
    with pytest.raises(BootError) as caught:
        complete_sizes(given(pm="dynamic", **{"max_workers": 10, **numbers}))
    assert (str(caught.value), caught.value.exit_code) == (said, os.EX_USAGE)


@pytest.mark.parametrize(
    ("name", "pm", "meant"),
    [
        ("max_workers", "static", "dynamic or ondemand"), ("min_spare", "static", "dynamic"),
        ("start_workers", "ondemand", "dynamic"), ("max_spare", "ondemand", "dynamic"),
        ("idle_timeout", "static", "ondemand"), ("idle_timeout", "dynamic", "ondemand"),
    ],
)  # fmt: skip
def test_size_for_another_kind_of_pool(name: str, pm: str, meant: str) -> None:
    option = BY_NAME[name].option
    with pytest.raises(BootError, match=f"^{option}: this is for --pm {meant}, but here it is {pm}"):
        complete_sizes(given(Rank.COMMAND_LINE, **{"pm": pm, name: 3}))


def test_size_in_a_file_was_meant_for_what_the_command_line_has_replaced() -> None:
    file = given(Rank.FILE, max_workers=9)
    option = {"pm": Source(Rank.COMMAND_LINE, "--pm")}
    complete_sizes(dataclasses.replace(file, sources={**file.sources, **option}))
    with pytest.raises(BootError):
        complete_sizes(file)

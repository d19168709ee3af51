"""workers/heap.py on the heap of this very process, which is thawed at the end."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from workers.heap import LOOK_EVERY, WORTH_IT, Heap


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    """As after the fork: nothing is left for a collection to look at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def pile() -> list[object]:
    return [[] for _ in range(WORTH_IT)]


def scanned() -> int:
    return len(gc.get_objects())


def test_what_has_piled_up_is_frozen_now_and_then() -> None:
    heap = Heap(1)
    kept = pile()
    heap.settle(LOOK_EVERY - 1)
    assert scanned() >= WORTH_IT
    heap.settle(LOOK_EVERY)
    assert scanned() < WORTH_IT and len(kept) == WORTH_IT


def test_a_little_is_left_alone() -> None:
    heap = Heap(1)
    before = gc.get_freeze_count()
    kept = pile()[: WORTH_IT // 2]
    heap.settle(LOOK_EVERY)
    assert gc.get_freeze_count() == before and kept


def test_garbage_is_collected_and_costs_no_turn() -> None:
    heap = Heap(1)
    gc.disable()
    try:
        for _ in range(WORTH_IT):
            cycle: list[object] = []
            cycle.append(cycle)
        heap.settle(LOOK_EVERY)
    finally:
        gc.enable()
    assert scanned() < WORTH_IT
    kept = pile()
    heap.settle(LOOK_EVERY)
    assert scanned() < WORTH_IT and kept


@pytest.mark.parametrize("freezes", [0, 2])
def test_it_ends(freezes: int) -> None:
    heap = Heap(freezes)
    kept = []
    for turn in range(4):
        kept.append(pile())
        heap.settle(LOOK_EVERY)
        assert (scanned() < WORTH_IT) == (turn < freezes)

"""Every cell of the master's table: each state by each event."""

from __future__ import annotations

import itertools

import pytest

from spawner.lifecycle import TABLE, Action, Event, Lifecycle, State
from spawner.master import Master

RANK = {state: rank for rank, state in enumerate(State)}
CELLS = list(itertools.product(State, Event))
ENDED = [State.STOPPING, State.ENDING, State.STOPPED]


def ids(cell: object) -> str:
    return cell.name if isinstance(cell, (State, Event)) else str(cell)


@pytest.mark.parametrize("state, event", CELLS, ids=ids)
def test_every_cell_is_there_and_leads_to_no_earlier_state(state: State, event: Event) -> None:
    after, action = TABLE[state][event]
    assert RANK[after] >= RANK[state]
    lifecycle = Lifecycle()
    lifecycle.state = state
    assert lifecycle.happen(event) is action
    assert lifecycle.state is after
    assert lifecycle.serving == (after not in ENDED)


def test_the_table_has_no_other_cells() -> None:
    assert set(TABLE) == set(State)
    assert all(set(row) == set(Event) for row in TABLE.values())


@pytest.mark.parametrize("action", [action for action in Action if action is not Action.NOTHING])
def test_every_action_is_a_method_of_the_master_and_is_used(action: Action) -> None:
    assert callable(getattr(Master, action.value))
    assert any(cell[1] is action for row in TABLE.values() for cell in row.values())


@pytest.mark.parametrize("event", [Event.STOP, Event.TIMEOUT])
def test_stopping_gets_firmer_and_never_milder(event: Event) -> None:
    actions = []
    lifecycle = Lifecycle()
    lifecycle.happen(Event.POOL_READY)
    lifecycle.happen(Event.STOP)
    for _ in range(3):
        actions.append(lifecycle.happen(event))
    assert actions == [Action.TERMINATE, Action.KILL, Action.KILL]
    lifecycle.happen(Event.POOL_EMPTY)
    assert lifecycle.state is State.STOPPED


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING])
def test_a_pool_that_serves_is_not_stopped_by_being_empty(state: State) -> None:
    assert TABLE[state][Event.POOL_EMPTY] == (state, Action.NOTHING)


def test_only_a_first_start_gives_up() -> None:
    assert TABLE[State.STARTING][Event.POOL_FAILED] == (State.ENDING, Action.TERMINATE)
    for state in set(State) - {State.STARTING}:
        assert TABLE[state][Event.POOL_FAILED] == (state, Action.NOTHING)


@pytest.mark.parametrize("state", ENDED)
@pytest.mark.parametrize("event", [Event.MORE, Event.FEWER])
def test_nobody_changes_the_size_of_what_is_ending(state: State, event: Event) -> None:
    assert TABLE[state][event] == (state, Action.NOTHING)

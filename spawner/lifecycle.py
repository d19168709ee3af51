"""The master's states, what can happen in each, and what it does about it: one table, no cell left out.

Only :meth:`Lifecycle.happen` changes the state. What belongs here is what the *program* does as a
whole; when one worker is born, replaced or killed is decided in ``pool.py``.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Ranked: a state is only ever left for a later one."""

    STARTING = "starting"  # no worker has been ready yet
    RUNNING = "running"
    STOPPING = "stopping"  # nothing new is let in, what is queued gets its answer
    ENDING = "ending"  # what still runs is being ended
    STOPPED = "stopped"


class Event(Enum):
    POOL_READY = "every worker is ready"
    POOL_FAILED = "the application cannot start"
    POOL_EMPTY = "no child is left"
    STOP = "TERM, QUIT or INT"
    TIMEOUT = "the state's time is over"
    MORE = "TTIN"
    FEWER = "TTOU"
    REOPEN = "USR1"
    RELOAD = "HUP"
    PAUSE = "WINCH"
    UPGRADE = "USR2"


class Action(Enum):
    """What the master does; each is the name of one of its methods."""

    NOTHING = "nothing"
    ANNOUNCE = "announce"
    DRAIN = "drain"
    TERMINATE = "terminate"
    KILL = "kill"
    GROW = "grow"
    SHRINK = "shrink"
    REOPEN = "reopen"
    RELOAD = "reload"
    RELOAD_LATER = "reload_later"
    PAUSE = "pause"
    UPGRADE = "upgrade"


TABLE: dict[State, dict[Event, tuple[State, Action]]] = {
    State.STARTING: {
        Event.POOL_READY: (State.RUNNING, Action.ANNOUNCE),
        # Nobody has been served yet, so there is nothing to keep alive by trying on.
        Event.POOL_FAILED: (State.ENDING, Action.TERMINATE),
        Event.POOL_EMPTY: (State.STARTING, Action.NOTHING),
        Event.STOP: (State.STOPPING, Action.DRAIN),
        Event.TIMEOUT: (State.STARTING, Action.NOTHING),
        Event.MORE: (State.STARTING, Action.GROW),
        Event.FEWER: (State.STARTING, Action.SHRINK),
        Event.REOPEN: (State.STARTING, Action.REOPEN),
        # What is being loaded may be older than what has made somebody ask.
        Event.RELOAD: (State.STARTING, Action.RELOAD_LATER),
        Event.PAUSE: (State.STARTING, Action.NOTHING),
        Event.UPGRADE: (State.STARTING, Action.NOTHING),
    },
    State.RUNNING: {
        Event.POOL_READY: (State.RUNNING, Action.NOTHING),
        # The workers that are left serve on, and the pool tries again with back-off.
        Event.POOL_FAILED: (State.RUNNING, Action.NOTHING),
        Event.POOL_EMPTY: (State.RUNNING, Action.NOTHING),
        Event.STOP: (State.STOPPING, Action.DRAIN),
        Event.TIMEOUT: (State.RUNNING, Action.NOTHING),
        Event.MORE: (State.RUNNING, Action.GROW),
        Event.FEWER: (State.RUNNING, Action.SHRINK),
        Event.REOPEN: (State.RUNNING, Action.REOPEN),
        Event.RELOAD: (State.RUNNING, Action.RELOAD),
        Event.PAUSE: (State.RUNNING, Action.PAUSE),
        Event.UPGRADE: (State.RUNNING, Action.UPGRADE),
    },
    State.STOPPING: {
        Event.POOL_READY: (State.STOPPING, Action.NOTHING),
        Event.POOL_FAILED: (State.STOPPING, Action.NOTHING),
        Event.POOL_EMPTY: (State.STOPPED, Action.NOTHING),
        Event.STOP: (State.ENDING, Action.TERMINATE),
        Event.TIMEOUT: (State.ENDING, Action.TERMINATE),
        Event.MORE: (State.STOPPING, Action.NOTHING),
        Event.FEWER: (State.STOPPING, Action.NOTHING),
        Event.REOPEN: (State.STOPPING, Action.REOPEN),
        Event.RELOAD: (State.STOPPING, Action.NOTHING),
        Event.PAUSE: (State.STOPPING, Action.NOTHING),
        Event.UPGRADE: (State.STOPPING, Action.NOTHING),
    },
    State.ENDING: {
        Event.POOL_READY: (State.ENDING, Action.NOTHING),
        Event.POOL_FAILED: (State.ENDING, Action.NOTHING),
        Event.POOL_EMPTY: (State.STOPPED, Action.NOTHING),
        Event.STOP: (State.ENDING, Action.KILL),
        Event.TIMEOUT: (State.ENDING, Action.KILL),
        Event.MORE: (State.ENDING, Action.NOTHING),
        Event.FEWER: (State.ENDING, Action.NOTHING),
        Event.REOPEN: (State.ENDING, Action.REOPEN),
        Event.RELOAD: (State.ENDING, Action.NOTHING),
        Event.PAUSE: (State.ENDING, Action.NOTHING),
        Event.UPGRADE: (State.ENDING, Action.NOTHING),
    },
    State.STOPPED: {event: (State.STOPPED, Action.NOTHING) for event in Event},
}


class Lifecycle:
    """The present state."""

    def __init__(self) -> None:
        self.state = State.STARTING

    def happen(self, event: Event) -> Action:
        """Move on; what the master has to do now."""
        self.state, action = TABLE[self.state][event]
        return action

    @property
    def serving(self) -> bool:
        """Whether missing workers are to be replaced."""
        return self.state in (State.STARTING, State.RUNNING)

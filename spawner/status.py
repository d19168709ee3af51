"""What the master answers to each verb, as JSON: the one place that says which parts there are.

The command reads what a master of another version may have sent, so parts are added, not renamed.
Sizes are bytes, times seconds; names that end in ``_s`` or ``_s_ago`` are time spans, the others
are seconds since 1970. What is unknown at the moment is null.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, TypedDict

from spawner.doctor.finding import Diagnosis


class MasterStatus(TypedDict):
    version: str
    pid: int
    started: float
    age_s: float
    state: str  # of lifecycle.State


class ListenQueue(TypedDict):
    """Connections that wait to be accepted, and how many may."""

    waiting: Optional[int]
    limit: Optional[int]


class AddressStatus(TypedDict):
    address: str  # as --listen takes it, and never a descriptor: see address_of()
    listen_queue: ListenQueue


class TemplateStatus(TypedDict):
    pid: int
    generation: int
    ready: bool
    warming_up: bool  # not ready, and yet workers are forked
    age_s: float


class RequestStatus(TypedDict):
    started_s_ago: float
    method: str
    uri: str  # its first 255 bytes
    user: str
    address: str
    id: str


class WorkerStatus(TypedDict):
    slot: int
    generation: int
    pid: Optional[int]  # unknown until it has been born
    state: str  # starting, idle, busy, leaving
    requests: int
    request: Optional[RequestStatus]  # the one that it answers now
    age_s: float
    rss: Optional[int]
    private: Optional[int]
    proportional: Optional[int]  # what it shares with others, divided among them (PSS)


class ReloadsStatus(TypedDict):
    ok: int
    failed: int
    last_error: Optional[str]  # of the last one that failed


class PoolStatus(TypedDict):
    name: str
    state: str  # starting, running, paused, failed, stopping
    generation: int
    pm: str  # static, dynamic, ondemand
    target: int  # workers wanted now
    max_workers: int  # how many it may have
    max_children_reached: int  # php-fpm's name: how often it wanted more
    addresses: List[AddressStatus]
    template: Optional[TemplateStatus]
    spare: Optional[int]  # the pid of a worker that is none of the pool's yet
    workers: List[WorkerStatus]
    reloads: ReloadsStatus
    recycles: Dict[str, int]  # by cause
    deaths: Dict[str, int]  # by cause
    limits: Dict[str, float]  # by option: requests, bytes or seconds; 0 for none
    refused: int  # connections, because of who made them
    slow: int  # requests that took longer than --slow-after
    scoreboard: str  # a letter a worker, as Apache has it
    totals: Dict[str, Any]  # Counters.to_json() of all workers that ever were


class Status(TypedDict):
    master: MasterStatus
    pools: List[PoolStatus]


class Reloaded(TypedDict):
    pools: Dict[str, int]  # the generation that serves now


class Upgraded(TypedDict):
    pid: int  # of the new master


class Scaled(TypedDict):
    pool: str
    target: int
    max_workers: int


class Recycled(TypedDict):
    pools: Dict[str, List[int]]  # the slots that get a fresh worker


class Pools(TypedDict):
    """The answer to pause and resume: what has been paused or resumed."""

    pools: List[str]


class SettingStatus(TypedDict):
    pool: Optional[str]  # null: of the master
    name: str
    value: str
    source: str


class Config(TypedDict):
    settings: List[SettingStatus]


class Death(TypedDict):
    at: float
    pool: str
    slot: int
    generation: int
    pid: Optional[int]
    reason: str  # the signal or exit status, or why it was killed
    request: Optional[str]  # method and URI of the last one
    requests: int
    rss: Optional[int]  # when it was measured last
    age_s: float
    traceback: Optional[str]


class SlowRequest(TypedDict):
    """As the slow log has it."""

    at: float
    pool: str
    what: str  # worker, request and how long it had taken
    stack: Optional[str]


class LastDeaths(TypedDict):
    deaths: List[Death]  # the last one last


class Leak(TypedDict):
    """What the requests of one kind have left in memory, of those that were weighed."""

    pool: str
    kind: str  # method, first part of the path and, of Trac, its handler
    weighed: int
    growth: int  # bytes, of all of them; below 0 where memory was given back
    per_request: float


class Leaks(TypedDict):
    leaks: List[Leak]  # the largest growth per request first


class Pong(TypedDict):
    """One address as ``ping`` found it; made by the command."""

    pool: str
    address: str
    answer_s: Optional[float]  # how long it took
    error: Optional[str]


class Pongs(TypedDict):
    addresses: List[Pong]


class Snippet(TypedDict):
    """Of the command's own verb ``snippet``."""

    text: str


class Nothing(TypedDict):
    """There is nothing to tell but that it has been done."""


#: The answer to each verb.
ANSWERS: Mapping[str, type] = {
    "status": Status,
    "top": Status,
    "ping": Pongs,
    "reload": Reloaded,
    "upgrade": Upgraded,
    "stop": Nothing,
    "scale": Scaled,
    "recycle": Recycled,
    "reopen": Nothing,
    "pause": Pools,
    "resume": Pools,
    "config": Config,
    "last-deaths": LastDeaths,
    "leaks": Leaks,
    "doctor": Diagnosis,
    "snippet": Snippet,
}

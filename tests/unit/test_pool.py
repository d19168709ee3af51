"""The pool's decisions: no processes, no clock but a fake one."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spawner.pool import Plan, WorkerState, plan

STARTING, READY, LEAVING = WorkerState.STARTING, WorkerState.READY, WorkerState.LEAVING
SURGE = 1


@dataclass(eq=False)
class FakeWorker:
    state: WorkerState = STARTING
    worn: bool = False


def pool(text: str) -> list[FakeWorker]:
    """``s`` starting, ``r`` ready, ``w`` ready and worn, ``l`` leaving, ``x`` the spare one."""
    kinds = {"s": (STARTING, False), "r": (READY, False), "w": (READY, True), "l": (LEAVING, True)}
    kinds["x"] = (WorkerState.SPARE, False)
    return [FakeWorker(*kinds[letter]) for letter in text]


@pytest.mark.parametrize(
    "workers, spawn, retire",
    [
        ("", 3, []),
        ("s", 2, []),
        ("rrr", 0, []),
        ("rr", 1, []),  # one died: at once
        ("rrl", 1, []),  # leaving is no capacity
        ("rrw", 1, []),  # the replacement first,
        ("rrws", 0, []),  # until it is ready
        ("rrwr", 0, [2]),  # the worn one stays; then it leaves
        ("www", 1, []),  # all at once, and still one at a time
        ("wwws", 0, []),
        ("wwwr", 0, [0]),
        ("lwwr", 1, []),
        ("ww", 2, []),  # one for the dead, one for a worn one
        ("rrrr", 0, [3]),  # one fewer wanted: the youngest goes
        ("rrrrr", 0, [4, 3]),
        ("wrrrr", 0, [0, 4]),  # worn ones before it
        ("rrs", 0, []),
        ("rrx", 1, []),  # it is none of the capacity until it is employed
        ("rrrx", 0, []),
        ("rrrs", 0, []),  # the target fell while one was starting
    ],
)
def test_the_next_step_towards_three(workers: str, spawn: int, retire: list[int]) -> None:
    members = pool(workers)
    assert plan(members, 3, SURGE) == Plan(spawn, [members[index] for index in retire])


def test_without_surge_a_worn_worker_serves_on() -> None:
    assert plan(pool("rrw"), 3, surge=0) == Plan(0, [])


class FakePool:
    """Applies the plan as the master does; children act when a fake clock says so."""

    def __init__(self, target: int, random: random.Random) -> None:
        self.target = target
        self.random = random
        self.now = 0.0
        self.workers: list[FakeWorker] = []
        self.due: dict[FakeWorker, float] = {}

    @property
    def serving(self) -> int:
        return sum(worker.state is READY for worker in self.workers)

    def balance(self) -> None:
        before = self.serving
        steps = plan(self.workers, self.target, SURGE)
        for worker in steps.retire:
            assert worker.state is READY
            worker.state = LEAVING
            self.due[worker] = self.now + self.random.random() * 5
        for _ in range(steps.spawn):
            worker = FakeWorker()
            self.workers.append(worker)
            self.due[worker] = self.now + self.random.random()
        capacity = [worker for worker in self.workers if worker.state is not LEAVING]
        if steps.spawn:
            assert len(capacity) <= self.target + SURGE
        # Whatever was retired, the target stays served; what death took is not retiring's fault.
        assert self.serving >= min(before, self.target)

    def pass_time(self) -> bool:
        """The next child that has something to do does it; False when none has."""
        if not self.due:
            return False
        worker = min(self.due, key=lambda worker: self.due[worker])
        self.now = max(self.now, self.due.pop(worker))
        if worker.state is STARTING:
            worker.state = READY
        else:
            self.workers.remove(worker)
        return True

    def pick(self, state: WorkerState) -> Optional[FakeWorker]:
        found = [worker for worker in self.workers if worker.state is state]
        return self.random.choice(found) if found else None

    def happen(self, event: str) -> None:
        if event == "time":
            self.pass_time()
        elif event == "more":
            self.target += 1
        elif event == "fewer":
            self.target = max(1, self.target - 1)
        elif event == "wear":
            worker = self.pick(READY)
            if worker is not None:
                worker.worn = True
        elif event == "wear all":
            for worker in self.workers:
                worker.worn = worker.worn or worker.state is READY
        else:
            worker = self.pick(WorkerState(event.partition(" ")[2]))
            if worker is not None:
                self.workers.remove(worker)
                self.due.pop(worker, None)


EVENTS = [
    "time", "more", "fewer", "wear", "wear all", "die ready", "die starting", "die leaving",
]  # fmt: skip


@settings(deadline=None)
@given(
    target=st.integers(1, 8),
    events=st.lists(st.sampled_from(EVENTS), max_size=60),
    seed=st.integers(0, 2**16),
)
def test_whatever_happens_the_capacity_is_kept_and_the_pool_converges(
    target: int, events: list[str], seed: int
) -> None:
    fake = FakePool(target, random.Random(seed))
    fake.balance()
    for event in events:
        fake.happen(event)
        fake.balance()
    while fake.pass_time():
        fake.balance()
    assert [(worker.state, worker.worn) for worker in fake.workers] == [(READY, False)] * fake.target
    assert plan(fake.workers, fake.target, SURGE) == Plan(0, [])


@settings(deadline=None)
@given(target=st.integers(1, 8), worn=st.integers(1, 200), seed=st.integers(0, 2**16))
def test_replacing_alone_never_takes_capacity(target: int, worn: int, seed: int) -> None:
    fake = FakePool(target, random.Random(seed))
    fake.balance()
    while fake.pass_time():
        fake.balance()
    for _ in range(worn):
        fake.happen(fake.random.choice(["wear", "wear all", "time"]))
        fake.balance()
        assert fake.serving >= target

"""When a worker has served long enough."""

from __future__ import annotations

import mmap
import os
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.recycling import (
    Recycling,
    RecyclingLimits,
    jittered,
    private_memory,
    resident_memory,
    unshared_memory,
)

MIB = 1 << 20
NOBODY = 2**22 + 1  # above the kernel's largest pid


def test_without_limits_a_worker_serves_for_ever() -> None:
    recycling = Recycling(RecyclingLimits())
    assert recycling.due(10**9) is None
    assert not recycling.aged(time.monotonic() + 1e9)
    assert recycling.expires is None


def test_by_requests_exactly_without_jitter() -> None:
    recycling = Recycling(RecyclingLimits(max_requests=100, jitter=0.0))
    assert recycling.due(99) is None
    assert recycling.due(100) == "max-requests (100)"
    assert recycling.due(101) == "max-requests (101)"


@given(st.integers(1, 10**6), st.floats(0.0, 1.0))
def test_jitter_stays_in_its_bounds(limit: int, jitter: float) -> None:
    drawn = jittered(limit, jitter)
    assert max(1, limit * (1 - jitter) - 0.5) <= drawn <= limit * (1 + jitter) + 0.5


def test_jitter_parts_workers_and_no_limit_stays_none() -> None:
    assert len({jittered(1000, 0.1) for _ in range(50)}) > 5
    assert jittered(0, 0.5) == 0


def test_by_age() -> None:
    assert Recycling(RecyclingLimits(max_age=3600.0)).due(1) is None
    young = Recycling(RecyclingLimits(max_age=1e-6))
    assert young.expires is not None
    while time.monotonic() < young.expires:
        pass
    assert young.aged(time.monotonic())


def test_by_memory_that_would_be_given_back() -> None:
    private = private_memory(os.getpid())
    assert Recycling(RecyclingLimits(max_memory=private + 512 * MIB)).due(1) is None
    reason = Recycling(RecyclingLimits(max_memory=MIB)).due(1)
    assert reason and re.fullmatch(r"max-memory \(\d+ MiB private\)", reason)


def test_memory_that_a_file_gives_counts_as_resident_alone() -> None:
    pid = os.getpid()
    before = [figure(pid) for figure in (resident_memory, private_memory, unshared_memory)]
    file = os.memfd_create("shared")
    os.truncate(file, 64 * MIB)
    # Mapped twice, as two processes would: then no page is anybody's own.
    with mmap.mmap(file, 64 * MIB) as one, mmap.mmap(file, 64 * MIB) as two:
        os.close(file)
        for offset in range(0, len(one), mmap.PAGESIZE):
            one[offset] = 1
            assert two[offset] == 1
        after = [figure(pid) for figure in (resident_memory, private_memory, unshared_memory)]
    assert after[0] - before[0] > 60 * MIB
    assert after[1] - before[1] < 8 * MIB
    assert after[2] - before[2] < 8 * MIB


def test_private_memory_is_seen() -> None:
    before = private_memory(os.getpid()), unshared_memory(os.getpid())
    hoard = bytearray(os.urandom(1024) * 32 * 1024)
    assert private_memory(os.getpid()) - before[0] > 24 * MIB
    assert unshared_memory(os.getpid()) - before[1] > 24 * MIB
    del hoard


@pytest.mark.parametrize("figure", [resident_memory, private_memory, unshared_memory])
def test_a_process_that_is_gone_is_an_os_error(figure: object) -> None:
    assert callable(figure)
    with pytest.raises(OSError):
        figure(NOBODY)

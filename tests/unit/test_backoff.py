"""How long to wait after failed starts, by a fake clock."""

from __future__ import annotations

import pytest

from spawner.pool import FIRST_DELAY, LONGEST_DELAY, Backoff


def test_nothing_failed_nothing_to_wait_for() -> None:
    assert Backoff().remaining(0.0) == 0.0


def test_each_failure_doubles_the_delay_up_to_the_longest() -> None:
    backoff = Backoff()
    now, delays = 1000.0, []
    for _ in range(30):
        delay = backoff.failed(now, born=now)
        assert backoff.remaining(now) == pytest.approx(delay)
        delays.append(delay)
        now += delay
    assert delays[:4] == pytest.approx([FIRST_DELAY, 0.2, 0.4, 0.8])
    assert delays[-1] == LONGEST_DELAY == max(delays)


def test_children_of_one_try_are_one_failure() -> None:
    backoff = Backoff()
    for ended in (10.0, 10.01, 10.09, 10.5):
        backoff.failed(ended, born=9.0)
    assert backoff.failures == 1
    assert backoff.remaining(10.02) == pytest.approx(FIRST_DELAY - 0.02)
    assert backoff.remaining(10.5) == 0.0
    # The next try is another one.
    assert backoff.failed(11.0, born=10.5) == pytest.approx(2 * FIRST_DELAY)
    assert backoff.failures == 2


def test_a_success_ends_it() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.failed(10.0, born=10.0)
    backoff.succeeded()
    assert (backoff.failures, backoff.remaining(10.0)) == (0, 0.0)
    # Also for a sibling of the one that failed last.
    assert backoff.failed(10.1, born=9.0) == pytest.approx(FIRST_DELAY)


def test_the_wait_runs_out() -> None:
    backoff = Backoff()
    backoff.failed(10.0, born=10.0)
    assert backoff.remaining(10.0 + FIRST_DELAY) == pytest.approx(0.0, abs=1e-9)
    assert backoff.remaining(99.0) == 0.0

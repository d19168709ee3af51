"""How long to wait after failed starts, by a fake clock."""

from __future__ import annotations

import pytest

from spawner.pool import FIRST_DELAY, LONGEST_AFTER_READY, LONGEST_DELAY, Backoff, CrashLoop


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


# -- workers that die when they are ready --------------------------------------------------------


def crashes(crash_loop: CrashLoop, count: int, now: float = 1000.0) -> list[float]:
    """The delays after workers that live for 10 ms each, started as soon as they may be."""
    delays = []
    for _ in range(count):
        delays.append(crash_loop.died(now + 0.02, born=now, ready=now + 0.01, requests=0))
        now += 0.02 + delays[-1]
    return delays


def test_one_that_dies_young_is_replaced_at_once_and_its_successors_later_and_later() -> None:
    delays = crashes(CrashLoop(), 20)
    assert delays[:6] == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.8, LONGEST_AFTER_READY])
    assert delays[-1] == LONGEST_AFTER_READY == max(delays)


@pytest.mark.parametrize("ready, requests", [(1999.9, 1), (1999.0, 0)], ids=["answered", "lived"])
def test_who_has_proved_itself_is_replaced_at_once(ready: float, requests: int) -> None:
    crash_loop = CrashLoop()
    crashes(crash_loop, 5, 1990.0)
    assert crash_loop.died(2000.0, born=1995.0, ready=ready, requests=requests) == 0.0
    assert crash_loop.remaining(2000.0) == 0.0
    # And so is the next one, whatever it does.
    assert crash_loop.died(2000.1, born=2000.0, ready=2000.0, requests=0) == 0.0


def test_a_young_death_long_after_others_is_no_loop() -> None:
    crash_loop = CrashLoop()
    crashes(crash_loop, 5)
    assert crashes(crash_loop, 2, 2000.0) == pytest.approx([0.0, FIRST_DELAY])


def test_workers_killed_together_are_one_death() -> None:
    crash_loop = CrashLoop()
    delays = [crash_loop.died(10.0, born=9.5, ready=9.6, requests=0) for _ in range(8)]
    assert delays == [0.0] * 8

"""Time that runs out, on a clock of our own."""

from __future__ import annotations

import pytest

from spawner.countdown import APPOINTMENT, Countdown


class Stop:
    def __init__(self) -> None:
        self.now = 100.0
        self.ends = 0
        self.countdown = Countdown(self.end, lambda: self.now)

    def end(self) -> None:
        self.ends += 1

    def run(self, seconds: float, late: float = 0.0) -> None:
        """The master keeps its appointments for so long, then comes late to one."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.countdown.next_deadline())
            self.countdown.check_clock()
        self.now = self.countdown.next_deadline() + late
        self.countdown.check_clock()


@pytest.fixture
def stop() -> Stop:
    return Stop()


def test_nothing_ends_before_it_is_started(stop: Stop) -> None:
    assert stop.countdown.next_deadline() == float("inf")
    stop.now += 1000
    stop.countdown.check_clock()
    stop.countdown.start(2)
    stop.countdown.check_clock()
    assert stop.ends == 0


def test_it_ends_once(stop: Stop) -> None:
    stop.countdown.start(2)
    stop.run(1.4)
    assert stop.ends == 0
    stop.run(0.2)
    assert stop.ends == 1
    assert stop.countdown.next_deadline() == float("inf")


def test_lost_time_is_given_again(stop: Stop, caplog: pytest.LogCaptureFixture) -> None:
    stop.countdown.start(2)
    stop.run(1, late=60)
    assert stop.ends == 0
    assert "60.0 s longer" in caplog.text
    left = stop.countdown.next_deadline() - stop.now
    assert 0 < left <= APPOINTMENT
    stop.run(1)
    assert stop.ends == 1


def test_being_a_little_late_is_no_loss(stop: Stop) -> None:
    stop.countdown.start(2)
    stop.run(1.4, late=0.5)
    assert stop.ends == 1


def test_it_may_be_started_anew(stop: Stop) -> None:
    stop.countdown.start(2)
    stop.run(1)
    stop.countdown.start(5)
    stop.run(4)
    assert stop.ends == 0

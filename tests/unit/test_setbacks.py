"""What a pool makes of children that do not stay."""

from __future__ import annotations

import logging
import os

import pytest

from spawner.pool import FIRST_DELAY
from spawner.setbacks import SILENT_FAILURES, Setbacks
from workers.errors import BootError

LOUD = BootError("it does not load", os.EX_SOFTWARE, "Traceback: here\n", unexpected=True)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_who_says_why_has_failed_for_good() -> None:
    setback = Setbacks(Clock()).start_failed("worker 1", 99.0, BootError("no such file"), "died")
    assert setback.final and setback.why == "cannot start: no such file"
    assert str(setback.failure) == "no such file" and setback.delay == pytest.approx(FIRST_DELAY)


def test_who_says_nothing_gets_another_try() -> None:
    clock = Clock()
    setbacks = Setbacks(clock)
    found = []
    for _ in range(SILENT_FAILURES):
        found.append(setbacks.start_failed("worker 1", clock.now, None, "died: SIGKILL"))
        clock.now += found[-1].delay
        assert setbacks.remaining() == pytest.approx(0.0)
    assert [setback.final for setback in found] == [False] * (SILENT_FAILURES - 1) + [True]
    assert str(found[0].failure) == "worker 1 died: SIGKILL" and found[0].why == "died: SIGKILL"
    assert [setback.delay for setback in found] == [
        pytest.approx(FIRST_DELAY * 2**doublings) for doublings in range(SILENT_FAILURES)
    ]


def test_a_traceback_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("trac-spawn"), "propagate", True)
    setbacks = Setbacks(Clock())
    for _ in range(3):
        setbacks.start_failed("template 1", 99.0, LOUD, "")
    assert [record.getMessage() for record in caplog.records] == ["it does not load\nTraceback: here"]


def test_another_generation_and_a_child_that_is_ready_start_afresh() -> None:
    clock = Clock()
    setbacks = Setbacks(clock)
    setbacks.start_failed("worker 1", clock.now, None, "died")
    assert setbacks.remaining() > 0
    setbacks.child_ready()
    assert setbacks.remaining() == 0
    for _ in range(3):  # the first one is forgiven
        delay = setbacks.died(clock.now, clock.now, 0)
        clock.now += delay
    setbacks.died(clock.now, clock.now, 0)
    assert setbacks.remaining() > 0
    setbacks.forgive()
    assert setbacks.remaining() == 0

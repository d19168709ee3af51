"""What is shown of the stack that a worker has written."""

from __future__ import annotations

import pytest

from spawner.stacks import of_application, of_crash

OURS = """\
  File "/usr/lib/python3/workers/wsgi.py", line 151 in respond
  File "/usr/lib/python3/workers/worker.py", line 294 in _call_application
  File "/usr/lib/python3/spawner/cli.py", line 268 in main
"""
THREAD = """\
Thread 0x00007f8d3effd6c0 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 324 in wait
"""


def test_the_application_is_seen_and_what_called_it_is_not() -> None:
    above = "Current thread 0x1 (most recent call first):\n  File \"/trac/web/main.py\", line 7 in dispatch\n"
    shown = of_application(above + OURS + "\n" + THREAD)
    first = OURS.splitlines(keepends=True)[0]
    assert shown == above + first + "  (called by trac-spawn)\n\n" + THREAD


@pytest.mark.parametrize("stack", [THREAD, "Current thread 0x1:\n" + OURS.partition("\n")[2], ""])
def test_where_there_is_no_application_all_is_seen(stack: str) -> None:
    assert of_application(stack) == stack


def test_a_crash_is_told_from_what_was_slow_before() -> None:
    crash = "Fatal Python error: Aborted\n\n" + THREAD
    assert of_crash(THREAD + crash) == of_crash(crash) == crash
    assert of_crash(THREAD) is None and of_crash("") is None

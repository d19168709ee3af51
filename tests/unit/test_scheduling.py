"""workers/scheduling.py, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SHOW = """\
import os
from workers.scheduling import let_others_go_on
os.sched_setscheduler(0, {policy}, os.sched_param(0))
let_others_go_on()
print(os.sched_getscheduler(0))
"""


@pytest.mark.parametrize(
    "policy, becomes",
    [(os.SCHED_OTHER, os.SCHED_BATCH), (os.SCHED_IDLE, os.SCHED_IDLE), (os.SCHED_BATCH, os.SCHED_BATCH)],
    ids=["the usual one", "another", "the same"],
)
def test_what_an_administrator_has_chosen_stays(policy: int, becomes: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOW.format(policy=policy)], stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, f"{becomes}\n")

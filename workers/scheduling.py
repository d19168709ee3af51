"""How a worker shares the processors with the web server in front of it."""

from __future__ import annotations

import contextlib
import os


def let_others_go_on() -> None:
    """Do not take a processor from whoever is at work the moment that something arrives (sched(7),
    SCHED_BATCH): that is the web server, which has just sent it.

    Each is interrupted less often then. What the application starts inherits it, and it says nothing of
    how much time anybody gets.
    """
    with contextlib.suppress(OSError, AttributeError):  # where that is not allowed, or not Linux
        if os.sched_getscheduler(0) == os.SCHED_OTHER:  # else an administrator has chosen another
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))

"""The Python stack of a worker, which it writes when it is told to, and when it crashes."""

from __future__ import annotations

import os
import re
from typing import Optional

from spawner.children import WorkerHandle

#: Of all threads together; faulthandler itself stops at 100 frames a thread.
CEILING = 65_536
#: How faulthandler begins when a signal such as SIGSEGV ends the process.
_CRASH = "Fatal Python error: "
#: What called the application: the same thirty frames in each stack.
_OURS = re.compile(r'(^  File ".*/workers/wsgi\.py", line \d+ in respond\n)(?:  .*\n?)+', re.MULTILINE)


def clear_stack(worker: WorkerHandle) -> None:
    """What it has written is known, or of the past: its offset is ours too."""
    if worker.stacks is not None:
        os.lseek(worker.stacks, 0, os.SEEK_SET)
        os.ftruncate(worker.stacks, 0)


def read_stack(worker: WorkerHandle) -> Optional[str]:
    """What the worker has written; None for nothing, as when it has blocked all signals."""
    if worker.stacks is None:
        return None
    text = os.pread(worker.stacks, CEILING, 0).decode("utf-8", "replace")
    return of_application(text).strip() or None


def read_crash(worker: WorkerHandle) -> Optional[str]:
    """What a worker that is gone has written as it crashed; None for one that did not."""
    return of_crash(read_stack(worker) or "")


def of_crash(stack: str) -> Optional[str]:
    """The last part of it: before that may stand what the slow log has not taken yet."""
    start = stack.rfind(_CRASH)
    return None if start < 0 else stack[start:]


def of_application(stack: str) -> str:
    """Without the frames below the application, which tell nothing about it."""
    return _OURS.sub(r"\1  (called by trac-spawn)\n", stack)

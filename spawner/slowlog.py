"""The slow log: the stack of a request that takes long, without ending it."""

from __future__ import annotations

import logging
import os
import time
from typing import Optional

from spawner.accessfile import MODE
from spawner.logs import open_append

log = logging.getLogger("trac-spawn")


def write(path: Optional[str], what: str, stack: Optional[str]) -> None:
    """Append one entry to the file at ``path``, or to the ordinary log when there is none.

    The file is opened for each entry, so it can be rotated at any time.
    """
    stack = stack or "(its stack cannot be seen: it has ended, or blocks all signals)"
    if path is None:
        log.warning("slow request: %s\n%s", what, stack)
        return
    try:
        with os.fdopen(open_append(path, MODE), "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {what}\n{stack}\n\n")
    except OSError as error:
        log.error("--slow-log %s: %s", path, error.strerror)

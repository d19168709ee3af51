"""Kernel samepage merging (KSM): pages that workers have written to and that have become equal again."""

from __future__ import annotations

import contextlib
import logging

from workers import prctl

log = logging.getLogger("trac-spawn")

#: Holds "1" where the kernel looks for equal pages.
RUN = "/sys/kernel/mm/ksm/run"


def begin() -> None:
    """In the process that loads the application; its children inherit it."""
    # What keeps the kernel from it has been told at the start.
    with contextlib.suppress(OSError):
        prctl.merge_equal_pages()


def warn() -> None:
    """Log why --ksm brings nothing on this machine, if so: it serves all the same."""
    why = _obstacle()
    if why:
        log.warning("--ksm: no memory is saved: %s", why)


def _obstacle() -> str:
    if not prctl.can_merge_pages():
        return "this kernel cannot (it needs Linux 6.4 with CONFIG_KSM)"
    try:
        with open(RUN) as file:
            state = file.read().strip()
    except OSError as error:
        return f"{RUN}: {error.strerror}"
    return "" if state == "1" else f"KSM is off; to turn it on: echo 1 > {RUN}"

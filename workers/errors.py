"""The errors that people read: what was wrong, and the exit status that says so to a script."""

from __future__ import annotations

import os


class BootError(Exception):
    """The program or the application cannot start.

    The message is one line for a person: what was wrong, which option or file, what to do.
    ``exit_code`` is a value of sysexits.h. ``traceback`` is the application's own, when it has one;
    with ``unexpected`` only that tells what happened, so it belongs in the log.
    """

    def __init__(
        self,
        message: str,
        exit_code: int = os.EX_SOFTWARE,
        traceback: str = "",
        unexpected: bool = False,
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.traceback = traceback
        self.unexpected = unexpected

"""--capture-output: what a worker writes to standard output and error goes into the log, with its name."""

from __future__ import annotations

import logging
import os
import selectors
from typing import Callable

from workers.text import printable

log = logging.getLogger("trac-spawn")

#: One read: a worker that never stops writing must not keep the master from the others.
READ_SIZE = 65_536
#: What comes without an end of line is logged in pieces of this length.
LINE_CEILING = 8_192


class Capture:
    """A pipe from one worker. ``writing`` is for the worker, and closed here once it has it."""

    def __init__(self, selector: selectors.BaseSelector, describe: Callable[[], str]) -> None:
        """``describe`` says whose words these are. Raises OSError."""
        self._selector = selector
        self._describe = describe
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._rest = b""
        self._open = True
        selector.register(self._reading, selectors.EVENT_READ, self.hear)

    def given(self) -> None:
        """The worker has its end, or never will."""
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def hear(self) -> bool:
        """Log what has come; False for nothing."""
        if not self._open:
            return False  # an earlier callback of the same round of the loop has closed it
        try:
            data = os.read(self._reading, READ_SIZE)
        except BlockingIOError:
            return False
        if not data:
            self._selector.unregister(self._reading)
            self.forget()
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_CEILING:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._say(line)
        return True

    def close(self) -> None:
        """The worker has ended: log its last words. Who else may have its end is not waited for."""
        self.given()
        while self.hear():
            pass
        if self._rest:
            self._say(self._rest)
        if self._open:
            self._selector.unregister(self._reading)
            self.forget()

    def forget(self) -> None:
        """In a child of the master, which shares the selector: only close."""
        if self._open:
            self._open = False
            os.close(self._reading)
        self.given()

    def _say(self, line: bytes) -> None:
        for start in range(0, len(line), LINE_CEILING):
            text = line[start : start + LINE_CEILING].decode("utf-8", "backslashreplace")
            log.info("%s says: %s", self._describe(), printable(text))

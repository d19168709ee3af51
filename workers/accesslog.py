"""The access log: one line a request, written once it has been answered.

A line is one write(2) to a descriptor that was opened for appending, so lines of different workers never
mix, and it is no longer than a pipe takes at once.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Mapping, Sequence

from workers.accessformat import Entry, Format
from workers.logs import put_in_place, take_log_file
from workers.syslog import Syslog

log = logging.getLogger("trac-spawn")

#: What a line may take: a pipe takes so much whole (pipe(7), PIPE_BUF).
LINE_CEILING = 4096
#: A line that is too long is made again with its texts cut to these lengths, one after another.
CUTS = (1024, 256, 32)
#: Seconds until it is said again that the log cannot be written.
COMPLAIN_AGAIN = 60.0


class AccessLog:
    """Writes to ``descriptor``, which another process has opened; ``syslog``: it is a socket that takes
    each line as a message."""

    def __init__(
        self, descriptor: int, form: Format, suppressed: Sequence[str] = (), *, syslog: bool = False
    ) -> None:
        self.descriptor = descriptor
        self.usage = form.usage
        self._line = form.line
        self._suppressed = frozenset(suppressed)
        self._syslog = Syslog(descriptor) if syslog else None
        self._particular = bool(suppressed or syslog)
        self._complain_again = 0.0

    def write(self, entry: Entry) -> None:
        line = self._line(entry)
        if self._particular or len(line) > LINE_CEILING:
            self._write_particular(entry, line)
            return
        try:
            os.write(self.descriptor, line)
        except OSError:
            self._put(line)

    def _write_particular(self, entry: Entry, line: bytes) -> None:
        """Where lines are suppressed, or go to syslog, or are too long."""
        if not self._is_suppressed(entry):
            self._put(line if len(line) <= LINE_CEILING else self._shortened(entry))

    def _put(self, line: bytes) -> None:
        try:
            if self._syslog is not None:
                self._syslog.write(line[:-1])
                return
            while True:
                try:
                    os.write(self.descriptor, line)
                    return
                except BlockingIOError:
                    # Whoever started us may have made a pipe non-blocking; waiting for it is what others do.
                    select.select([], [self.descriptor], [])
        except OSError as error:
            self._complain(error)

    def _shortened(self, entry: Entry) -> bytes:
        for cut in CUTS:
            line = self._line(entry, cut)
            if len(line) <= LINE_CEILING:
                return line
        return line[: LINE_CEILING - 1] + b"\n"

    def take(self, descriptor: int) -> None:
        """From now on write to another file, which has been opened in place of the old one."""
        put_in_place(descriptor, self.descriptor)

    def _is_suppressed(self, entry: Entry) -> bool:
        """As php-fpm: only what tells nothing, so that nobody can hide behind such a path."""
        get = entry.params.get
        return (
            get("REQUEST_METHOD") in ("GET", "HEAD")
            and 200 <= entry.result.status < 300
            and not get("QUERY_STRING")
            and get("CONTENT_LENGTH", "") in ("", "0")
            and get("SCRIPT_NAME", "") + get("PATH_INFO", "") in self._suppressed
        )

    def _complain(self, error: OSError) -> None:
        now = time.monotonic()
        if now >= self._complain_again:
            self._complain_again = now + COMPLAIN_AGAIN
            log.error("the access log cannot be written: %s", error.strerror)


def take_files(files: Mapping[str, int], access_log: AccessLog | None) -> None:
    """Go on with the log files that the master has opened again, by "log" and "access"."""
    for name, descriptor in files.items():
        if name == "log":
            take_log_file(descriptor)
        elif access_log is not None:
            access_log.take(descriptor)
        else:
            os.close(descriptor)  # the pool has one only since a reload

"""What a worker notes of each request: in its slot of the scoreboard, and in the access log."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Mapping
from typing import Optional

from workers import requestid
from workers.accessformat import Entry
from workers.accesslog import AccessLog
from workers.recycling import resident_memory, shares_of_memory
from workers.requestid import RequestIds
from workers.scoreboard import Slot
from workers.wsgi import Result

#: Seconds between two looks at this process's memory. One at its size is cheap; one at what is shared
#: takes some milliseconds.
SIZE_AGAIN = 1.0
SHARES_AGAIN = 10.0
#: A wait above this (an hour) is a mistake in who says when it began, such as a wrong clock.
LONGEST_WAIT = 3600 * 10**9
#: Raised by a look at memory behind --chroot, where there is no /proc.
_UNKNOWN = (OSError, ValueError, IndexError)


class Ledger:
    """One worker's. Times are in nanoseconds on the monotonic clock."""

    def __init__(self, slot: Slot, access_log: Optional[AccessLog], pool: str, number: int) -> None:
        self._slot = slot
        self._access_log = access_log
        self._shows_usage = access_log is not None and access_log.usage
        self._entry = Entry(pool=pool, slot=number)
        self._ids = RequestIds()
        self._work = 0
        self._usage = (0.0, 0.0)
        self._size_at = 0.0
        self._shares_at = 0.0
        self._shares = (0, 0)

    def begin(self, params: Mapping[str, str], queued: Optional[int] = None) -> int:
        """A request is taken up; when that was. ``queued``: how long its connection has waited to be
        accepted, which is less than what a web server can say, but known without it."""
        entry = self._entry
        entry.params = params
        entry.request_id = requestid.current = self._ids.of(params)
        if self._shows_usage:
            self._usage = _usage()
        self._work = time.process_time_ns()
        entry.begun = now = time.monotonic_ns()
        self._slot.begin(now, params, entry.request_id)
        since = params.get("HTTP_X_REQUEST_START")
        wait = queued if since is None else waited(since, time.time())
        if wait is not None:
            self._slot.waited(wait)
        return now

    def end(self, result: Result) -> int:
        """It has been answered; how long it took."""
        entry = self._entry
        took = time.monotonic_ns() - entry.begun
        work = time.process_time_ns() - self._work
        method = entry.params.get("REQUEST_METHOD", "")
        self._slot.end(method, result.status, result.sent, took, work, result.clean)
        if entry.begun >= self._size_at:
            self._measure_memory()
        if self._access_log is not None:
            entry.result, entry.took, entry.work = result, took, work
            if self._shows_usage:
                self._note_usage()
            self._access_log.write(entry)
        requestid.current = ""
        return took

    @property
    def request_id(self) -> str:
        """Of the request in progress."""
        return self._entry.request_id

    def _note_usage(self) -> None:
        user, system = _usage()
        self._entry.user_work, self._entry.system_work = user - self._usage[0], system - self._usage[1]

    def look_at_memory(self) -> None:
        """For a worker at rest: after a request, all of it is measured anyway; one that never gets any is
        measured once."""
        if self._size_at == 0.0:
            self._measure_memory()

    def measure_size(self) -> None:
        """How much this process has, without a look at what of it is shared. Cheap."""
        with contextlib.suppress(*_UNKNOWN):
            self._entry.memory = resident_memory(os.getpid())
            self._slot.memory(self._entry.memory, *self._shares)

    def _measure_memory(self) -> None:
        now = time.monotonic()
        self._size_at = (now + SIZE_AGAIN) * 1e9
        if now >= self._shares_at:
            self._shares_at = now + SHARES_AGAIN
            with contextlib.suppress(*_UNKNOWN):
                self._shares = shares_of_memory(os.getpid())
        self.measure_size()


def _usage() -> tuple[float, float]:
    """Processor time in user mode and in the kernel, in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime


def waited(since: str, now: float) -> Optional[int]:
    """How long ago a web server has got the request, by the header X-Request-Start: "t=" and seconds,
    milli- or microseconds since 1970, as nginx's $msec, Apache's %t and routers have it; nanoseconds.

    None for what cannot be so. Whoever can set the header can only spoil this figure.
    """
    text = since[2:] if since.startswith("t=") else since
    try:
        moment = float(text)
    except ValueError:
        return None
    for unit in (1, 1e3, 1e6):
        wait = now - moment / unit
        if 0 <= wait * 1e9 <= LONGEST_WAIT:
            return int(wait * 1e9)
    return None

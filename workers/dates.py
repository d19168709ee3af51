"""Trac's dates in the words of its visitors, written once. Imported only once Trac is.

The same dates stand on a page each time that it is shown. Babel takes 20 to 60 microseconds for one, and Trac
twice 3 to find out what time it then was here: a seventh of the time of a timeline.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any

from trac.util import datefmt

#: Dates of one format, language and time zone, and how many of these there are. One takes some 300 bytes.
#: What the garbage collector would follow, such as the zone, is not kept with each: Trac has it run in every
#: request.
KEPT, KINDS = 512, 16
#: Local times.
TIMES = 2048
#: What Babel or ISO 8601 says. Other formats are the C library's, whose language is a setting of the process.
_FORMATS = frozenset(
    (None, "short", "medium", "long", "full", "iso8601", "iso8601date", "iso8601time", "%x %X", "%x", "%X")
)


def remember() -> None:
    """Let Trac find out what a date is called, and its local time, once in this process."""
    if hasattr(getattr(datefmt, "LocalTimezone", None), "fromutc"):
        _remember_local_times(datefmt.LocalTimezone)
    if hasattr(datefmt, "_format_datetime") and datefmt.babel:
        _remember_texts()


def _remember_local_times(zone: Any) -> None:
    convert, local = zone.fromutc, datefmt.localtz

    @lru_cache(maxsize=TIMES)
    def converted(time: datetime) -> Any:
        return convert(local, time.replace(tzinfo=local))

    def fromutc(self: Any, dt: datetime) -> Any:
        # It makes no difference to Trac which of the local zones is asked, as long as the date is in it.
        return converted(dt.replace(tzinfo=None)) if dt.tzinfo is self else convert(self, dt)

    zone.fromutc = fromutc


def _remember_texts() -> None:
    write = datefmt._format_datetime
    languages = frozenset((str, datefmt.babel.Locale))

    @lru_cache(maxsize=KINDS)
    def kind(told_apart_by: Any, format: Any, tzinfo: Any, locale: Any, hint: str) -> Any:
        return lru_cache(maxsize=KEPT)(lambda t: write(t, format, tzinfo, locale, hint))

    def format_datetime(t: Any, format: Any, tzinfo: Any, locale: Any, hint: str) -> Any:
        if type(t) is datetime and type(locale) in languages and format in _FORMATS:
            # Two dates can be equal where their zones are not. That of the computer has to reckon for a hash.
            if t.tzinfo is not datefmt.localtz:
                return kind((t.tzinfo, t.fold), format, tzinfo, locale, hint)(t)
        return write(t, format, tzinfo, locale, hint)

    datefmt._format_datetime = format_datetime

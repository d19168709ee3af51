"""workers/dates.py beside Trac's own way, with Babel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from inspect import getclosurevars
from typing import Any

import pytest
from babel import Locale
from trac.util import datefmt

from workers import dates

UTC = datefmt.utc
EAST = datefmt.get_timezone("GMT +9:00")
LANGUAGES = [Locale("en", "US"), Locale("de"), Locale("ja"), "iso8601", None]
FORMATS = [None, "short", "medium", "long", "full", "iso8601", "iso8601date", "iso8601time"]
FORMATS += ["%x %X", "%X", "%d. %B"]
MAKERS = [datefmt.format_datetime, datefmt.format_date, datefmt.format_time]
#: Around both changes of the clocks in Berlin, long ago, and of all kinds.
MOMENTS: list[Any] = [
    *(datetime(2026, 10, 25, 0, 30, tzinfo=UTC) + timedelta(minutes=30 * number) for number in range(5)),
    *(datetime(2026, 3, 29, 0, 30, 0, 7, tzinfo=UTC) + timedelta(minutes=30 * number) for number in range(3)),
    datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=2))), datetime(1890, 1, 1, tzinfo=UTC),
    datetime(2026, 7, 1, 12, 0, tzinfo=EAST), datetime(2026, 7, 1, 12, 0, tzinfo=datefmt.localtz),
    datetime(2026, 7, 1, 12, 0), datetime(2026, 10, 25, 2, 30, fold=1), datetime(2026, 10, 25, 2, 30),
    datetime(2026, 7, 1).date(), 0, 1, True, 1.5, 1790000000, 1790000000123456,
]  # fmt: skip


@pytest.fixture(params=["Europe/Berlin", "UTC", "Asia/Kathmandu"])
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the computer is; all is as before at the end."""
    monkeypatch.setattr(datefmt, "_format_datetime", datefmt._format_datetime)
    monkeypatch.setattr(datefmt.LocalTimezone, "fromutc", datefmt.LocalTimezone.fromutc)
    with monkeypatch.context() as place:
        place.setenv("TZ", request.param)
        time.tzset()
        datefmt.LocalTimezone._initialize()
        yield
    time.tzset()
    datefmt.LocalTimezone._initialize()


def written() -> list[str]:
    return [
        make(moment, format, zone, language)
        for make in MAKERS
        for moment in MOMENTS
        for format in FORMATS
        for zone in (None, UTC, EAST, datefmt.localtz)
        for language in LANGUAGES
        if format or language  # Trac itself has no other for a visitor without a language
    ]


def local() -> list[tuple[str, Any]]:
    found = [datefmt.to_datetime(moment, zone) for moment in MOMENTS for zone in (None, datefmt.localtz)]
    return [(repr(one), one.utcoffset()) for one in found]


def test_dates_stay_what_they_are(here: None) -> None:
    before = written(), local()
    dates.remember()
    assert (written(), local()) == before
    assert (written(), local()) == before


def test_a_date_is_written_once(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    write = datefmt.babel_format_datetime

    def counted(*args: Any) -> Any:
        seen.append(args)
        return write(*args)

    monkeypatch.setattr(datefmt, "babel_format_datetime", counted)
    dates.remember()
    moment = datetime(2026, 7, 1, 12, tzinfo=UTC)
    for _ in range(3):
        for language in LANGUAGES[:2]:
            datefmt.format_datetime(moment, tzinfo=EAST, locale=Locale.parse(str(language)))
    assert len(seen) == 2


def test_another_language_or_time_zone_is_another_text(here: None) -> None:
    dates.remember()
    moment = datetime(2026, 7, 1, 12, tzinfo=UTC)
    wanted = [(zone, language) for zone in (UTC, EAST) for language in LANGUAGES[:4]]
    texts = [datefmt.format_datetime(moment, tzinfo=zone, locale=language) for zone, language in wanted]
    assert len(set(texts)) == len(texts)
    assert datefmt.format_datetime(moment.astimezone(EAST), "iso8601", UTC) == "2026-07-01T12:00:00Z"


def test_not_any_number_is_kept(here: None) -> None:
    dates.remember()
    kinds = getclosurevars(datefmt._format_datetime).nonlocals["kind"]
    for second in range(dates.KEPT + 10):
        datefmt.format_date(datetime.fromtimestamp(second, UTC), "iso8601", UTC, LANGUAGES[0])
    kept = kinds((UTC, 0), "iso8601", UTC, LANGUAGES[0], "date")
    assert kinds.cache_info().currsize == 1 and kept.cache_info().currsize == dates.KEPT


def test_without_babel_texts_are_left_to_trac(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write = datefmt._format_datetime
    monkeypatch.setattr(datefmt, "babel", None)
    dates.remember()
    assert datefmt._format_datetime is write


def test_another_trac_is_left_alone(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = datefmt.LocalTimezone
    convert = zone.fromutc
    with monkeypatch.context() as another:
        another.delattr(datefmt, "_format_datetime")
        another.delattr(datefmt, "LocalTimezone")
        dates.remember()
        assert not hasattr(datefmt, "_format_datetime") and zone.fromutc is convert

"""What the lines of the access log say."""

from __future__ import annotations

import json
import os
import re
import time
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.entries import PARAMS, entry
from workers.accessformat import compile_format

#: Of tests: what time.monotonic_ns() is when it has counted from 0.
EPOCH = 1_700_000_000_265_000_000


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.accessformat.wall_clock", lambda moment: EPOCH + moment)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("%C %{total}C %{USER}C %{system}C", "50.00 50.00 40.50 20.25"),
        ("%d %{seconds}d", "1.235 1.235"),
        ("%{mili}d %{miliseconds}d %{milliseconds}d", "1234.567 1234.567 1234.567"),
        ("%{micro}d %{microseconds}d", "1234567 1234567"),
        ("%{HTTP_USER_AGENT}e %{NO_SUCH}e", "curl -"),
        ("%f %l %m %n", "/trac 12 POST trac"),
        ("%M %{kilo}M %{megabytes}M", "5242880 5120 5"),
        ("%{content-type}o %{X-Empty}o %{No}o", "text/html - -"),
        ("%p %P", f"{os.getpid()} {os.getppid()}"),
        ("%m %r%Q%q", "POST /trac/wiki?a=1&b"),
        ("%m %{full}r", "POST /trac/wiki?a=1&b"),
        ("%R %s %u %%", "192.0.2.7 200 joe %"),
        ("%{%s}t %{%s}T", "1700000000 1700000001"),
        ("%b %H %i %w", "34 HTTP/1.1 an-id 3"),
        ("100%% of it", "100% of it"),
        ('"\\%s\xe9"', r'"\200\xe9"'),
    ],
)  # fmt: skip
def test_each_directive(form: str, expected: str) -> None:
    assert compile_format(form).line(entry()) == f"{expected}\n".encode()


def test_times_are_as_php_fpm_writes_them() -> None:
    line = compile_format("%t|%T").line(entry()).decode().rstrip()
    assert re.fullmatch(r"(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\|(?!\1)\S+ \S+", line)


@pytest.mark.parametrize(
    "form",
    ["%", "%x", "%{x}s", "%{x}r", "%e", "%o", "%{}e", "%{lightyears}d", "%{idle}C", "%{tera}M", "\n", "%{a"],
)
def test_wrong_formats(form: str) -> None:
    with pytest.raises(ValueError):
        compile_format(form)


def test_only_a_format_that_shows_it_costs_a_system_call() -> None:
    assert compile_format("%{user}C").usage
    assert not compile_format("%C %{total}C").usage and not compile_format("combined").usage


def test_combined_is_what_analysers_read() -> None:
    line = compile_format("combined").line(entry()).decode().rstrip()
    assert re.fullmatch(
        r'192\.0\.2\.7 - joe \[[^]]+\] "POST /trac/wiki\?a=1&b HTTP/1\.1" 200 34 "-" "curl"', line
    )


def test_json_is_one_object_with_types() -> None:
    told = json.loads(compile_format("json").line(entry()))
    assert (told["status"], told["bytes"], told["duration_s"], told["slot"]) == (200, 34, 1.234567, 3)
    assert (told["uri"], told["request_id"], told["remote_user"]) == ("/trac/wiki?a=1&b", "an-id", "joe")
    assert told["time"].startswith("2023-11-14T22:13:20.") and told["time"].endswith("Z")


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"REQUEST_URI": "/a?"}, "/a /a?"),
        ({"SCRIPT_NAME": "/trac", "PATH_INFO": "/wiki", "QUERY_STRING": "a=1"}, "/trac/wiki /trac/wiki?a=1"),
        ({"PATH_INFO": "/wiki"}, "/wiki /wiki"),
        ({}, "- -"),
    ],
)
def test_the_uri_without_and_with_its_query(params: dict[str, str], expected: str) -> None:
    assert compile_format("%r %{full}r").line(entry(params=params)).decode() == f"{expected}\n"


def test_a_date_is_made_once_a_second_and_right_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    made = count(1)
    strftime = time.strftime
    monkeypatch.setattr(
        "workers.accessformat.time.strftime", lambda *words: f"{strftime(*words)} {next(made)}"
    )
    line = compile_format("%{%s}t").line
    begun = (0, 734_999_999, 735_000_000, 1_734_999_999, -1, -265_000_001)
    told = [line(entry(begun=moment)).decode().split() for moment in begun]
    assert [int(second) - 1_700_000_000 for second, _ in told] == [0, 0, 1, 1, 0, -1]
    assert [number for _, number in told] == ["1", "1", "2", "2", "3", "4"]


def test_a_clock_that_is_set_is_seen_with_the_next_second(monkeypatch: pytest.MonkeyPatch) -> None:
    line = compile_format("%{%s}t").line
    assert line(entry()) == b"1700000000\n"
    monkeypatch.setattr("workers.accessformat.wall_clock", lambda moment: EPOCH + moment + 3600 * 10**9)
    assert line(entry(begun=735_000_000)) == b"1700003601\n"


#: Mostly harmless.
TEXTS = st.text("abc \"\\\n\x00\x7f\x80\xff", max_size=12)


@given(TEXTS, st.sampled_from(["combined", r'%u "%m" \ %{HTTP_REFERER}e', "%u %{HTTP_REFERER}e"]))
def test_the_quick_look_misses_nothing_that_is_to_be_escaped(text: str, form: str) -> None:
    line = compile_format(form).line
    one = entry(params={**PARAMS, "REQUEST_URI": text, "REMOTE_USER": text, "HTTP_REFERER": text})
    assert line(one) == line(one, 10_000)

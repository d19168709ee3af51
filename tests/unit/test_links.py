"""workers/links.py beside Trac's own way."""

from __future__ import annotations

from inspect import getclosurevars
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trac.util.text import empty
from trac.web.href import Href

from workers import links

BASES = st.sampled_from(["", "/", "/trac", "http://h/t r"])
SIGNS = st.text("ab/ ?#&=%+.~!*'()<\u00e4\u20ac", max_size=6)
OTHERS = [None, True, 1.0, 1, "1", "", empty, b"b", ("a", None, 2), ["c"]]
VALUES = SIGNS | st.integers() | st.sampled_from(OTHERS)
PARTS = st.lists(VALUES, max_size=3)
LAST = st.sampled_from([(), ((("k", "v"), ("k", 1)),), ({"x": "y"},)])
QUERIES = st.dictionaries(st.sampled_from(["from_", "a", "format", "max"]), VALUES, max_size=3)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trac's own way to make a link."""
    own = Href.__call__
    monkeypatch.setattr(Href, "__call__", own)
    return own


def said(make: Any, *args: Any, **query: Any) -> Any:
    try:
        return make(*args, **query)
    except (TypeError, ValueError) as error:
        return repr(error)


@given(base=BASES, parts=PARTS, last=LAST, query=QUERIES, safe=st.sampled_from(["/!~*'()", "/<"]))
def test_links_stay_what_they_are(base: str, parts: list[Any], last: Any, query: Any, safe: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        make = Href.__call__
        patched.setattr(Href, "__call__", make)
        links.remember()
        for name in ("", "wiki"):
            href = Href(base, path_safe=safe)
            args = [name, *parts, *last] if name else [*parts, *last]
            expected = said(make, href, *args, **query)
            for _ in range(2):
                assert said(href, *args, **query) == expected
        assert said(href.wiki, *parts, *last, **query) == expected


def test_a_link_is_made_once(made: Any) -> None:
    links.remember()
    kept = getclosurevars(Href.__call__).nonlocals["made"]
    assert {Href("/trac")("wiki", "A B", format="txt") for _ in range(3)} == {"/trac/wiki/A%20B?format=txt"}
    assert (kept.cache_info().misses, kept.cache_info().hits) == (1, 2)
    assert Href("/other").wiki("A B", format="txt") == "/other/wiki/A%20B?format=txt"


def test_values_that_are_equal_and_look_different_are_told_apart(made: Any) -> None:
    links.remember()
    href = Href("/trac")
    assert [href("a", 1), href("a", True), href("a", 1.0), href("a", "1")] == [
        "/trac/a/1", "/trac/a/True", "/trac/a/1.0", "/trac/a/1",
    ]  # fmt: skip
    assert [href(b=1), href(b=True), href(b=1.0)] == ["/trac?b=1", "/trac?b=True", "/trac?b=1.0"]


def test_not_any_number_is_kept(made: Any) -> None:
    links.remember()
    kept = getclosurevars(Href.__call__).nonlocals["made"]
    for number in range(links.KEPT + 10):
        Href("/trac").ticket(number)
    assert kept.cache_info().currsize == links.KEPT


def test_one_of_another_kind_makes_its_links_itself(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Href):  # type: ignore[misc]
        suffix = "x"

        def __call__(self, *args: Any, **query: Any) -> Any:
            return super().__call__(*args, **query) + self.suffix

    links.remember()
    href = Own("/trac")
    assert href("a") == "/trac/ax"
    href.suffix = "y"
    assert href("a") == "/trac/ay"


def test_another_trac_is_left_alone(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Href.__init__

    def more(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self.fragment = ""

    monkeypatch.setattr(Href, "__init__", more)
    links.remember()
    assert Href.__call__ is made

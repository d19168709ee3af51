"""workers/wikirules.py beside the rules of Trac itself, in its own pages and in whatever else is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Callable, Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trac.loader import load_components
from trac.test import EnvironmentStub, MockRequest
from trac.web.chrome import web_context
from trac.wiki.formatter import Formatter, format_to_html, format_to_oneliner
from trac.wiki.parser import WikiParser

from workers import wikirules

#: What rules are made of, so that they often stand side by side.
PIECES = st.sampled_from(
    [
        "'''''", "'''", "''", "**", "//", "__", "~~", ",,", "^", "{{{", "}}}", "`", "!", "\\\\",
        "&", "<", ">", "wiki:", "http://a.b/c", "a:b:'c d'", 'x:"y"', "<ftp:z>", "[", "]", "[[",
        "]]", "[=#a b]", "[wiki:A b]", "#12", "r34", "r5:6", "[78]", "[9/x]", "{1}", "{a2}",
        "WikiStart", "CamelCase#an-chor", "../CamelCase", "me@example.org", "a.b'c+d@e-f.gh", "@",
        ":", ";", "|", "||", "=||=", "|-", "|----  a='b' c=d", "= h =", "== h == #i", " * ",
        " 1. ", " a. ", "ivx. ", " term:: ", "::", "::\n", "\n", " ", "  ", "\t", "\u00a0",
        "\u200b", "word", "Word", "WORD", "x", "Z", "0", "7", "-", "+", ".", "_", "/", "?", "=",
        "$", "(", ")", "%", "\u00e4", "\u00c4hOhne", "\u0394\u03b5\u03bb\u03c4\u03b1", "\u0416",
        "\u65e5\u672c", "\U0001f600",
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.characters(), max_size=10).map("".join)


NAME = re.compile(r"trac-workflow-graph-\w+")
#: As a plugin may have them; the second can match within a word, and end there.
FOREIGN = (r"!?\bword", r"(?:Z|[^\W\d]x|7+?)", r"(?<=x)\.", r"(?<![\w/])(?P<more>W|\W+)o\b")


class Parser:
    """What is looked at of Trac's own, with more rules."""

    def __init__(self, env: Any, *more: str) -> None:
        own = WikiParser(env)
        self._pre_rules, self._post_rules = own._pre_rules, own._post_rules
        self._external_handlers = dict(own.external_handlers)
        self._compiled_rules = own.rules
        syntax = wikirules._taken_apart(own.rules.pattern, own)
        for rule in more:
            number = len(self._external_handlers)
            self._external_handlers[f"i{number}"] = found
            syntax.insert(-len(self._post_rules), f"(?P<i{number}>{rule})")
        self._compiled_rules = re.compile(f"(?:{'|'.join(syntax)})")


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    stub = EnvironmentStub(default_data=True, enable=["trac.*"])
    load_components(stub)
    yield stub
    stub.reset_db()


def found(rules: re.Pattern[str], text: str) -> list[Any]:
    """All that a formatter can see of what has matched."""
    matches = [*rules.finditer(text), rules.match(text)]
    return [match and (match.regs, match.lastgroup, match.groupdict()) for match in matches]


def pages() -> Iterator[str]:
    for page in (files("trac.wiki") / "default-pages").iterdir():
        yield page.read_text(encoding="utf-8")


def test_the_same_is_found_in_the_pages_of_trac(env: Any) -> None:
    parser = Parser(env)
    made = wikirules.guarded(parser)
    assert made and wikirules._is_of_trac(parser)
    lines = [line for page in pages() for line in page.splitlines()]
    seen = [found(made, line) for line in lines]
    assert seen == [found(parser._compiled_rules, line) for line in lines]
    assert sum(map(len, seen)) > 2 * len(lines)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
@pytest.mark.parametrize("more", [(), FOREIGN], ids=["Trac's", "and a plugin's"])
def test_the_same_is_found_in_any_text(env: Any, more: tuple[str, ...], text: str) -> None:
    parser, made = _made(env, more)
    assert made is not None
    assert found(made, text) == found(parser._compiled_rules, text)


_kept: dict[tuple[str, ...], tuple[Parser, Optional[re.Pattern[str]]]] = {}


def _made(env: Any, more: tuple[str, ...]) -> tuple[Parser, Optional[re.Pattern[str]]]:
    if more not in _kept:
        parser = Parser(env, *more)
        _kept[more] = parser, wikirules.guarded(parser)
    return _kept[more]


@pytest.mark.parametrize(
    "rule", ["(?P<again>a?)(?P=again)", "(?i:never)", "a?", "(?=a)", "a)|(?P<x>b"], ids=str
)
def test_rules_that_are_not_clear_are_left_to_trac(env: Any, rule: str) -> None:
    assert wikirules.guarded(Parser(env, rule)) is None


def test_rules_in_another_order_are_left_to_trac(env: Any) -> None:
    parser = Parser(env)
    parser._pre_rules = parser._pre_rules[1:]
    assert wikirules.guarded(parser) is None


def test_what_is_known_of_tracs_rules_is_used_for_no_others(env: Any) -> None:
    assert not wikirules._is_of_trac(Parser(env, "a"))
    changed = Parser(env)
    changed._post_rules = [*changed._post_rules, "(?P<new>a)"]
    assert not wikirules._is_of_trac(changed)


def test_pages_and_summaries_stay_what_they_are(env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*pages(), "!WikiStart and WikiStart, #1, r2, ''a'' !''b'' me@example.org [[BR]]"]

    def written() -> list[str]:
        context = web_context(MockRequest(env), "wiki", "WikiStart")
        makers: tuple[Callable[..., Any], ...] = (format_to_html, format_to_oneliner)
        # A diagram has another name each time.
        return [NAME.sub("", make(env, context, text)) for make in makers for text in texts]

    before = written()
    monkeypatch.setattr(WikiParser, "_prepare_rules", WikiParser._prepare_rules)
    monkeypatch.setattr(Formatter, "handle_match", Formatter.handle_match)
    monkeypatch.setattr(WikiParser(env), "_compiled_rules", None)
    wikirules.accelerate()
    after = written()
    assert WikiParser(env).rules is WikiParser(env).guarded
    assert after == before


def test_another_trac_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Formatter.handle_match
    monkeypatch.delattr(WikiParser, "_prepare_rules")
    wikirules.accelerate()
    assert Formatter.handle_match is handle

"""Trac's rules of wiki text, tried only where they can match. Imported only once Trac is.

Trac takes wiki text apart by one regular expression of some thirty alternatives, and Python tries all of
them at each character: a third of the time of a page full of text. The expression that is made of it here
matches the same, group by group. Where an alternative can begin is read from what Python's own parser of
expressions makes of it; what cannot be read there is used only where the rules are those of Trac 1.6.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, Callable, Optional

from trac import __version__ as version
from trac.wiki.formatter import Formatter
from trac.wiki.parser import WikiParser

_parser: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")

_ASCII = frozenset(map(chr, range(128)))
#: Stands for all other characters together: if one of them can begin, any of them can.
_OTHER = "\x80"
_LETTERS = frozenset(filter(str.isalpha, _ASCII))
_WORD = frozenset(filter(str.isalnum, _ASCII))
_SPACE = frozenset(filter(str.isspace, _ASCII))
_CATEGORIES = {
    "CATEGORY_DIGIT": frozenset(filter(str.isdigit, _ASCII)),
    "CATEGORY_SPACE": _SPACE,
    "CATEGORY_WORD": _WORD | {"_"},
}
#: What stands before the place where an alternative is tried: nothing, a letter of ASCII, anything else.
_BEFORE = _START, _LETTER, _ANYTHING = "start", "letter", "anything"

#: Of the rules of Trac 1.6 that are not of its components.
_DIGEST = "afe84217b4c7e14d147e8dab2e2aca662b96f14675d5a554a90d30c84c062c75"
#: They match within a word of ASCII only where they match one letter earlier as well, and there the search
#: has been: it goes on after what has matched, and none of the rules leaves half a word.
_LEFTMOST = ("email", "shref")
#: Begins with space only where a bar follows the space.
_BAR = "table_row_sep"


class _Unclear(Exception):
    """Where an alternative begins cannot be told."""


def accelerate() -> None:
    """Have the wiki parsers of this process use such rules."""
    if hasattr(WikiParser, "_prepare_rules") and hasattr(Formatter, "handle_match"):
        WikiParser.guarded = None
        WikiParser._prepare_rules = _guarding(WikiParser._prepare_rules)
        Formatter.handle_match = _direct(Formatter.handle_match)


def _guarding(prepare: Callable[[Any], None]) -> Callable[[Any], None]:
    def prepare_rules(self: Any) -> None:
        if not self._compiled_rules:
            prepare(self)
            self.guarded = guarded(self)
            self._compiled_rules = self.guarded or self._compiled_rules

    return prepare_rules


def _direct(handle: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def handle_match(self: Any, fullmatch: Any) -> Any:
        """Trac looks through all groups for the alternative that has matched: the last that was closed."""
        parser, text, name = self.wikiparser, fullmatch.group(), fullmatch.lastgroup
        if text[0] == "!" or fullmatch.re is not parser.guarded:
            return handle(self, fullmatch)
        external = parser._external_handlers.get(name)
        if external is not None:
            return external(self, text, fullmatch)
        return getattr(self, f"_{name}_formatter")(text, fullmatch)

    return handle_match


def guarded(parser: Any) -> Optional[re.Pattern[str]]:
    """What matches as the parser's own rules do; None where that cannot be made."""
    rules: re.Pattern[str] = parser._compiled_rules
    try:
        texts = _taken_apart(rules.pattern, parser)
        alternatives = [_examined(text) for text in texts]
        made = re.compile(f"(?:{_guard(alternatives, parser)}(?:{_in_runs(alternatives)}))", re.UNICODE)
    except (_Unclear, re.error):
        return None
    same = made.flags == rules.flags and dict(made.groupindex) == dict(rules.groupindex)
    return made if same and made.groups == rules.groups else None


def _taken_apart(text: str, parser: Any) -> list[str]:
    """The alternatives that Trac has put together."""
    before, after = "|".join(parser._pre_rules), "|".join(parser._post_rules)
    if not (text.startswith(f"(?:{before}|") and text.endswith(f"|{after})")):
        raise _Unclear
    middle = text[len(before) + 4 : -len(after) - 2]
    external = re.split(r"\|(?=\(\?P<i\d+>)", middle) if middle else []
    if len(external) != len(parser._external_handlers):
        raise _Unclear
    return [*parser._pre_rules, *external, *parser._post_rules]


@dataclass(frozen=True)
class _Alternative:
    text: str
    name: str
    #: Characters by which it can begin, by what stands before.
    begins: dict[str, frozenset[str]]

    @property
    def anchored(self) -> bool:
        """It matches at the beginning of the text alone."""
        return not (self.begins[_LETTER] or self.begins[_ANYTHING])

    @property
    def guard(self) -> str:
        """Of several of the same kind, one after the other, one guard is enough."""
        return r"\A" if self.anchored else "sign" if not self.characters & _WORD else self.name

    @property
    def characters(self) -> frozenset[str]:
        return frozenset().union(*self.begins.values())


@lru_cache(maxsize=256)  # many environments have the same rules
def _examined(text: str) -> _Alternative:
    try:
        tree = _parser.parse(text, re.UNICODE)
    except re.error:
        raise _Unclear from None
    name = re.match(r"\(\?P<(\w+)>", text)
    if name is None or len(tree) != 1 or str(tree[0][0]) != "SUBPATTERN":
        raise _Unclear  # there is no group of the whole
    begins = {}
    for before in _BEFORE:
        begun, unmoved = _walk(tree, _ASCII | {_OTHER}, before)
        if unmoved:
            raise _Unclear  # it matches no text at all, anywhere
        begins[before] = frozenset(begun)
    return _Alternative(text, name[1], begins)


def _walk(items: Iterable[Any], following: frozenset[str], before: str) -> tuple[set[str], frozenset[str]]:
    """By which of the following characters ``items`` can begin, and which of them may follow what has matched
    no character. Too many are no harm."""
    begun: set[str] = set()
    for operation, value in items:
        if not following:
            break
        step, following = _step(str(operation), value, following, before)
        begun |= step
    return begun, following


def _step(
    operation: str, value: Any, following: frozenset[str], before: str
) -> tuple[set[str], frozenset[str]]:
    if operation in ("LITERAL", "NOT_LITERAL", "IN", "ANY"):
        return set(following & _matched(operation, value)), frozenset()
    if operation == "SUBPATTERN":
        _, added, removed, items = value
        if added or removed:
            raise _Unclear
        return _walk(items, following, before)
    if operation == "BRANCH":
        ways = [_walk(items, following, before) for items in value[1]]
        return set().union(*(way[0] for way in ways)), frozenset().union(*(way[1] for way in ways))
    if operation in ("MAX_REPEAT", "MIN_REPEAT"):
        least, _, items = value
        begun, unmoved = _walk(items, following, before)
        return begun, unmoved if least else following
    if operation in ("AT", "ASSERT", "ASSERT_NOT", "FAILURE"):
        return set(), _asserted(operation, value, following, before)
    raise _Unclear


def _asserted(operation: str, value: Any, following: frozenset[str], before: str) -> frozenset[str]:
    """What may follow where a condition holds that takes no character."""
    if operation == "FAILURE":
        return frozenset()
    if operation == "AT":
        if str(value) in ("AT_BEGINNING", "AT_BEGINNING_STRING") and before != _START:
            return frozenset()
        if str(value) == "AT_BOUNDARY" and before == _LETTER:
            return following - _CATEGORIES["CATEGORY_WORD"]
    elif operation == "ASSERT_NOT" and before == _LETTER:
        direction, items = value
        if direction < 0 and len(items) == 1 and str(items[0][0]) == "IN":
            if _LETTERS <= _matched("IN", items[0][1]):
                return frozenset()
    return following


def _matched(operation: str, value: Any) -> frozenset[str]:
    """Characters, one of which is taken."""
    if operation == "LITERAL":
        return frozenset(min(chr(value), _OTHER))
    if operation == "NOT_LITERAL":
        return (_ASCII - {chr(value)}) | {_OTHER}
    if operation == "ANY":
        return _ASCII | {_OTHER}
    characters: set[str] = set()
    for kind, part in value:
        if str(kind) in ("LITERAL", "RANGE"):
            low, high = part if str(kind) == "RANGE" else (part, part)
            characters |= {min(chr(code), _OTHER) for code in range(low, min(high, 128) + 1)}
            characters |= {_OTHER} if high > 127 else set()
        elif str(kind) == "CATEGORY":
            positive = _CATEGORIES.get(str(part).replace("_NOT_", "_"))
            if positive is None:
                raise _Unclear
            characters |= (_ASCII - positive if "_NOT_" in str(part) else positive) | {_OTHER}
    if str(value[0][0]) == "NEGATE":
        return (_ASCII - characters) | {_OTHER}
    return frozenset(characters)


def _guard(alternatives: Sequence[_Alternative], parser: Any) -> str:
    """What holds wherever one of them matches."""
    known = _is_of_trac(parser)
    anywhere: set[str] = set()
    not_in_word: set[str] = set()
    bar = ""
    for one in alternatives:
        if known and one.name in _LEFTMOST:
            not_in_word |= one.characters & _WORD
            anywhere |= one.characters - _WORD
        elif known and one.name == _BAR:
            anywhere |= one.characters - _SPACE
            bar = r"|(?=\s+\|)"
        elif not one.anchored:
            not_in_word |= one.characters
            anywhere |= one.begins[_LETTER]
    word = f"|(?<![a-zA-Z])(?={_set(not_in_word)})" if not_in_word else ""
    return rf"(?:\A|(?={_set(anywhere)}){word}{bar})"


def _is_of_trac(parser: Any) -> bool:
    """Whether all rules are those that _LEFTMOST and _BAR speak of."""
    digest = hashlib.sha256("|".join([*parser._pre_rules, *parser._post_rules]).encode()).hexdigest()
    modules = [getattr(one, "__module__", None) or "" for one in parser._external_handlers.values()]
    own = all(module.partition(".")[0] == "trac" for module in modules)
    return own and digest == _DIGEST and version.startswith("1.6")


def _in_runs(alternatives: Sequence[_Alternative]) -> str:
    """All of them in their order, each behind what must hold for it."""
    made = []
    for guard, run in groupby(alternatives, lambda one: one.guard):
        ones = list(run)
        characters = frozenset().union(*(one.characters for one in ones))
        condition = guard if guard == r"\A" else f"(?={_set(characters)})"
        made.append(f"{condition}(?:{'|'.join(one.text for one in ones)})")
    return "|".join(made)


def _set(characters: Iterable[str]) -> str:
    """An expression for one of them."""
    written = {one: f"\\x{ord(one):02x}" for one in _ASCII}
    written[_OTHER] = "\x80-\U0010ffff"
    return f"[{''.join(written[one] for one in sorted(characters))}]"

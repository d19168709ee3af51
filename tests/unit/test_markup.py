"""workers/markup.py beside Trac's own way."""

from __future__ import annotations

from typing import Any

import markupsafe
import pytest
from babel.support import LazyProxy
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from trac.util import html
from trac.util.html import tag

from workers import markup


class Loud(str):
    def __html__(self) -> str:
        return "<loud>"


MAKE = html.escape
TEXTS = st.text("ab&<>'\"#;349\u00e4\u65e5", max_size=12)
LAZY = LazyProxy(lambda: "'<\"")
OTHERS = st.sampled_from(
    [None, 0, 1.5, b"<'", ["'<\""], Markup("<b>'\""), Loud("<"), LAZY, tag.b("'<\"", id="'")]
)


@given(text=TEXTS | TEXTS.map(Markup) | OTHERS, quotes=st.booleans())
def test_text_stays_what_it_is(text: Any, quotes: bool) -> None:
    with pytest.MonkeyPatch.context() as patched:
        before = MAKE(text, quotes), str(tag.a(text, text, title=text, class_=text))
        patched.setattr(html, "escape", MAKE)
        markup.accelerate()
        assert html.escape is not MAKE
        after = html.escape(text, quotes), str(tag.a(text, text, title=text, class_=text))
    assert after == before and list(map(type, after)) == list(map(type, before))


def test_another_markupsafe_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "escape", MAKE)
    monkeypatch.delattr(markupsafe, "_escape_inner")
    markup.accelerate()
    assert html.escape is MAKE

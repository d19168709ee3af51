"""workers/translations.py beside Trac's own way, with Babel and a real environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from babel.support import Translations as Catalog
from trac.util import translation

from workers import translations
from workers.translations import KEPT


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The languages that were read, one for each catalog; all is as before at the end."""
    seen: list[str] = []
    load = Catalog.load

    def counted(directory: Any, locale: Any, domain: Any = None) -> Any:
        seen.append(str(locale))
        return load(directory, locale, domain)

    monkeypatch.setattr(Catalog, "load", counted)
    monkeypatch.setattr(translation, "get_available_locales", translation.get_available_locales)
    translations.remember()
    yield seen
    translation.deactivate()
    proxy = translation.get_translations()
    del proxy.activate, proxy.add_domain


def said(language: str, env: str = "/env") -> str:
    """As Trac does in a request."""
    locale = translation.get_negotiated_locale([language])
    translation.make_activable(lambda: locale, env)
    try:
        text: str = translation.gettext("Search")
        return text
    finally:
        translation.deactivate()


def test_a_language_is_read_once(read: list[str]) -> None:
    texts = [(said("de-DE"), said("fr"), said("en-US")) for _ in range(3)]
    assert texts == [("Suche", "Recherche", "Search")] * 3
    assert sorted(set(read)) == ["de", "en_US", "fr"] and len(read) == 2 * 3  # of two domains each


def test_messages_of_a_plugin_are_added(read: list[str], tmp_path: Path) -> None:
    said("de"), said("de", "/other")
    before = len(read)
    translation.add_domain("plugin", "/env", str(tmp_path))
    assert said("de") == said("de", "/other") == "Suche"
    assert len(read) == before + 3


def test_not_any_number_is_kept(read: list[str]) -> None:
    for number in range(KEPT + 1):
        said("en", f"/env{number}")
    del read[:]
    said("en", f"/env{KEPT}")
    assert not read
    said("en", "/env0")
    assert read


def test_which_languages_there_are_is_looked_up_once(read: list[str]) -> None:
    first = translation.get_available_locales()
    assert {"de", "en_US"} <= set(first)
    first.clear()
    assert {"de", "en_US"} <= set(translation.get_available_locales())


def test_without_babel_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation, "has_babel", False)
    translations.remember()
    assert "activate" not in vars(translation.get_translations())

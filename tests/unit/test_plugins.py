"""Which of Trac's plugins count as broken."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Optional

import pytest

from workers import plugins


class DistributionNotFound(Exception):
    """As pkg_resources has it."""


class Entry(SimpleNamespace):
    """An entry point whose module raises ``error`` when it is loaded."""

    def __init__(self, name: str, error: Optional[BaseException] = None, module: str = "") -> None:
        super().__init__(name=name, dist="Some 1.0", module_name=module or f"no.such.{name}", error=error)

    def load(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    found: list[Entry] = []
    loader = SimpleNamespace(
        working_set=SimpleNamespace(iter_entry_points=lambda group: found),
        DistributionNotFound=DistributionNotFound,
    )
    monkeypatch.setitem(sys.modules, "trac.env", SimpleNamespace(env_cache={}))  # type: ignore[misc]
    monkeypatch.setitem(sys.modules, "trac.loader", loader)  # type: ignore[misc]
    return found


@pytest.mark.parametrize("error", [ImportError("gone"), SyntaxError("bad"), SystemExit(1)])
def test_one_that_cannot_be_loaded_is_named(entries: list[Entry], error: BaseException) -> None:
    entries.append(Entry("bad", error))
    found = plugins.broken()
    assert list(found) == ["bad of Some 1.0"]
    with pytest.raises(type(error)):
        found["bad of Some 1.0"]()


def test_one_that_has_been_loaded_is_not(entries: list[Entry]) -> None:
    entries.append(Entry("good", module="sys"))
    assert plugins.broken() == {}


def test_an_optional_part_without_what_it_needs_is_not(entries: list[Entry]) -> None:
    """Trac's backend for PostgreSQL says so itself, while it is loaded."""
    entries.append(Entry("trac.db.postgres", DistributionNotFound("psycopg2")))
    assert plugins.broken() == {}

"""Modules that are there and not loaded until they are used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from workers.deferred import defer


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of one with a submodule and a version, which is installed and was not imported."""
    folder = tmp_path / "seldom_used"
    folder.mkdir()
    (folder / "__init__.py").write_text("from seldom_used.inner import ANSWER\n__version__ = 'its own'\n")
    (folder / "inner.py").write_text("ANSWER = 42\n")
    (tmp_path / "seldom_used-1.5.dist-info").mkdir()
    (tmp_path / "seldom_used-1.5.dist-info" / "METADATA").write_text("Name: seldom_used\nVersion: 1.5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder.name
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


@pytest.fixture
def module(package: str) -> ModuleType:
    defer(package)
    return import_module(package)


def loaded() -> bool:
    return "seldom_used.inner" in sys.modules


def test_importing_it_and_asking_for_its_version_does_not_load_it(module: ModuleType) -> None:
    assert module.__version__ == "1.5" and module.__name__ == "seldom_used"
    assert not loaded()


def test_asking_for_anything_else_loads_it(module: ModuleType) -> None:
    assert module.ANSWER == 42 and module.__version__ == "its own"
    assert loaded() and type(module) is ModuleType and sys.modules["seldom_used"] is module


def test_importing_from_it_loads_it(module: ModuleType) -> None:
    namespace: dict[str, object] = {}
    exec("from seldom_used import ANSWER", namespace)
    assert namespace["ANSWER"] == 42 and loaded()


def test_importing_a_part_of_it_loads_the_whole_first(module: ModuleType) -> None:
    assert import_module("seldom_used.inner").ANSWER == 42
    assert vars(module)["ANSWER"] == 42


def test_what_it_does_not_have_is_missing(module: ModuleType) -> None:
    with pytest.raises(AttributeError, match="nothing"):
        module.nothing  # noqa: B018
    with pytest.raises(ModuleNotFoundError):
        import_module("seldom_used.nothing")


def test_one_that_cannot_be_loaded_says_why(package: str, tmp_path: Path) -> None:
    (tmp_path / "seldom_used" / "__init__.py").write_text("1 / 0\n")
    defer(package)
    with pytest.raises(ZeroDivisionError):
        import_module(package).ANSWER  # noqa: B018


def test_one_without_a_known_version_is_loaded_for_it(package: str, tmp_path: Path) -> None:
    (tmp_path / "seldom_used-1.5.dist-info" / "METADATA").unlink()
    (tmp_path / "seldom_used-1.5.dist-info").rmdir()
    defer(package)
    assert import_module(package).__version__ == "its own"


def test_what_has_been_imported_or_is_not_there_stays_as_it_is() -> None:
    before = dict(sys.modules)
    defer("subprocess")
    defer("there_is_no_such_module")
    assert sys.modules == before


LOADED = """\
import sys
from workers import application
application._load_trac(application.ApplicationSpec())
import setuptools
print("setuptools.dist" in sys.modules, setuptools.__version__)
from setuptools import Command
print("setuptools.dist" in sys.modules, setuptools.__version__, Command.__module__)
"""


def test_trac_gets_by_without_loading_setuptools() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", LOADED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, version, after, same, place = done.stdout.split()
    assert (before, after) == ("False", "True") and version == same and place == "setuptools"

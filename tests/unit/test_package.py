"""What setup.cfg says is installed: a package, or a file that it reads, must not be left out."""

from __future__ import annotations

import configparser
import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def metadata() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def files() -> list[Path]:
    found = [path for name in ("spawner", "workers") for path in (ROOT / name).rglob("*") if path.is_file()]
    return [path.relative_to(ROOT) for path in found if path.suffix not in (".pyc", ".pyo")]


def test_every_folder_is_a_package(metadata: configparser.ConfigParser) -> None:
    folders = {".".join(path.parent.parts) for path in files()}
    assert folders == set(metadata["options"]["packages"].split())


def test_every_file_is_installed(metadata: configparser.ConfigParser) -> None:
    patterns = {
        f"{package.replace('.', '/')}/{pattern.strip()}"
        for package, listed in metadata["options.package_data"].items()
        for pattern in listed.split(",")
    }
    others = [str(path) for path in files() if path.suffix != ".py"]
    assert others
    for name in others:
        assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name
    for pattern in patterns:
        assert fnmatch.filter(others, pattern), f"{pattern} is nothing's"

"""What a process does before it loads the application; the loading itself is for the system tests."""

from __future__ import annotations

import site
import sys
from pathlib import Path
from typing import cast

import pytest

from spawner import template
from spawner.settings import Settings
from spawner.workplace import Workplace
from workers.channel import Channel


class Place:
    """A workplace whose application says what could have been imported."""

    settings = Settings()

    def drop_privileges(self) -> None:
        pass

    def load(self) -> list[str]:
        return list(sys.path)


def test_what_was_installed_since_the_master_started_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "plugin"
    plugin.mkdir()
    (tmp_path / "plugin.pth").write_text(f"{plugin}\n")
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path)])
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(template, "_die_with_master", lambda workplace: None)
    ours, theirs = Channel.pair()
    with ours, theirs:
        loaded = template._load(cast(Workplace, Place()), theirs, None)
        assert ours.receive()[0] is not None
    assert str(plugin) in cast("list[str]", loaded)

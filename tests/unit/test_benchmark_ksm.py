"""The kernel's setting is as it was after a measurement, however that ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import ksm


def test_the_setting_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ksm, "PLACE", tmp_path)
    before = {"pages_to_scan": "100\n", "sleep_millisecs": "50\n", "run": "0\n"}
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(KeyboardInterrupt), ksm.running():
        assert (tmp_path / "run").read_text() == "1"
        raise KeyboardInterrupt
    assert {name: (tmp_path / name).read_text() for name in before} == before

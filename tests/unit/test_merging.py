"""--ksm where the kernel cannot, or does not, merge pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from spawner import merging
from workers import prctl


@pytest.mark.parametrize(
    ("able", "state", "said"),
    [
        (False, "1", "Linux 6.4"),
        (True, None, "No such file"),
        (True, "0", "echo 1 > "),
        (True, "2", "echo 1 > "),
        (True, "1", ""),
    ],
)
def test_the_log_says_what_is_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    able: bool,
    state: str | None,
    said: str,
) -> None:
    monkeypatch.setattr(prctl, "can_merge_pages", lambda: able)
    monkeypatch.setattr(merging, "RUN", str(tmp_path / "run"))
    if state is not None:
        (tmp_path / "run").write_text(state + "\n")
    merging.warn()
    assert said in caplog.text and bool(caplog.text) == bool(said)

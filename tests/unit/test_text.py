"""What is made fit to be shown."""

from __future__ import annotations

from workers.text import printable


def test_printable() -> None:
    assert printable("caf\xe9 x") == "caf\xe9 x"
    assert printable("caf\xe9\tx \x1b[1m\x7f\x85\u202e\ud800") == (
        "caf\xe9\tx \\x1b[1m\\x7f\\x85\\u202e\\ud800"
    )

"""What visitors and children have said, made fit to be shown."""

from __future__ import annotations


def escaped(text: str) -> str:
    """``text`` as it is when it fits a line: nothing in what is returned ends one, or moves a cursor."""
    return text if text.isprintable() else ascii(text)[1:-1]

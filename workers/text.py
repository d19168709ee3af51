"""What visitors and children have said, made fit to be shown."""

from __future__ import annotations


def escaped(text: str) -> str:
    """``text`` as it is when it fits a line: nothing in what is returned ends one, or moves a cursor."""
    return text if text.isprintable() else ascii(text)[1:-1]


def printable(text: str) -> str:
    """``text`` without what a terminal would obey: tabs stay, and all of what can be seen."""
    if text.isprintable():
        return text
    return "".join(
        char if char == "\t" or char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )

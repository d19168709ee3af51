"""Text that means itself in each of the languages of the templates, and text that does not."""

from __future__ import annotations

import os
import re

from workers.errors import BootError

#: What ends a quoted text, begins a variable or a comment in one of them.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\"'\\$%{}#;`|]")


def refuse_unsafe(text: str, quoted: bool = True) -> None:
    """Better nothing printed than what says something else than it seems to.

    ``quoted``: it stands in quotes, so it can hold spaces. Raises BootError (EX_USAGE).
    """
    if _UNSAFE.search(text) or " " in text and not quoted:
        raise BootError(f"{text!r} has a character that is read as something else there", os.EX_USAGE)


def is_plain(text: str) -> bool:
    return not _UNSAFE.search(text) and " " not in text

"""Where the commands of this installation are."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def command(name: str) -> str:
    """That of the interpreter that runs this, if it has it."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name) or f"/usr/local/bin/{name}"

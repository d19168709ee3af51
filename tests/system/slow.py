"""apps.py, which takes as long to load as the working directory has a file named ``slow``."""

from __future__ import annotations

from pathlib import Path

from .apps import application
from .processes import PATIENCE, wait_until

__all__ = ["application"]

if Path("slow").exists():
    Path("loading").touch()
    wait_until(lambda: not Path("slow").exists(), 3 * PATIENCE, "end of what makes it slow")

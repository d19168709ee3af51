"""What one service of a peer is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional


@dataclass(frozen=True)
class Job:
    #: MODULE:CALLABLE; for Trac, TRAC_ENV in its process environment names the environment.
    target: str
    env: Optional[Path]
    workers: int
    #: Where the front end expects it, a Unix socket.
    socket: Path
    #: The same for a peer that has none: a port of 127.0.0.1.
    port: int
    #: A directory of its own, which is its HOME and working directory too.
    home: Path
    #: The path below which the front end mounts it.
    mount: str
    #: The interpreter of the venv for the peers.
    python: Path

    @property
    def pidfile(self) -> Path:
        return self.home / "pids"

"""Where the demonstration's Trac environment lives, and that it is whole or not there at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator

from workers.errors import BootError

UNFINISHED = "demo-unfinished-"


def data_folder() -> Path:
    """The user's folder for our data (XDG base directory specification)."""
    named = os.environ.get("XDG_DATA_HOME", "")
    # The specification says that relative paths are to be ignored.
    base = Path(named) if named.startswith("/") else Path.home() / ".local" / "share"
    return base / "trac-spawn"


def ensure() -> Path:
    """The environment, created when there is none. Raises BootError."""
    folder = data_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            return _find_or_create(folder)
    except OSError as error:
        message = f"--demo: cannot create a Trac environment in {folder}: {error}"
        raise BootError(message, os.EX_CANTCREAT) from error


def _find_or_create(folder: Path) -> Path:
    env = folder / "demo"
    for stale in folder.glob(UNFINISHED + "*"):
        shutil.rmtree(stale)
    if env.exists():
        return env
    print(f"Creating a Trac environment in {env} ...", flush=True)
    workshop = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
    try:
        _create(workshop / "demo")
        # Only now has it the name under which it is looked for.
        (workshop / "demo").rename(env)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return env


def _create(path: Path) -> None:
    """Fill it in a process of its own: this one becomes a master, which never imports Trac."""
    command = [sys.executable, "-m", "spawner.democontent", str(path)]
    # Its own session: Ctrl-C reaches us alone, and run() then ends it.
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines() or ["no message"]
        message = f"--demo: creating a Trac environment in {path.parent.parent} failed: {lines[-1]}"
        raise BootError(message, os.EX_SOFTWARE, done.stdout)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which goes with this process and leaves no file behind."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

"""Orders to a running master, by trac-spawnctl and by signals, and what became of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

from .pools import BIN, Pool
from .processes import PATIENCE, wait_gone


def ctl(pool: Pool, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """trac-spawnctl, as it ended; the options are those of ``subprocess.run``."""
    return subprocess.run(
        [str(BIN / "trac-spawnctl"), "-s", str(pool.control), *map(str, arguments)],
        capture_output=True, text=True, timeout=3 * PATIENCE, check=False, **options,
    )  # fmt: skip


def ask(pool: Pool, *arguments: object) -> Any:
    """The result of a verb that must succeed."""
    done = ctl(pool, "--json", *arguments)
    assert done.returncode == os.EX_OK, done.stdout + done.stderr
    return json.loads(done.stdout)["result"]


def refused(pool: Pool, *arguments: object, status: int) -> str:
    """What is said about a verb that must fail with that exit status."""
    done = ctl(pool, "--json", *arguments)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def reload(pool: Pool) -> None:
    """By SIGHUP, until it is over."""
    mark = pool.mark()
    os.kill(pool.pid, signal.SIGHUP)
    pool.wait_for_line("reloaded: generation", after=mark)


def upgrade(pool: Pool) -> int:
    """The pid of the new master, once it serves."""
    pid: int = ask(pool, "upgrade")["pid"]
    return pid


def end(pool: Pool, successor: int) -> None:
    """Stop the master that an upgrade has started; nothing of it stays."""
    os.kill(successor, signal.SIGTERM)
    wait_gone([successor])
    assert not pool.socket.exists() and not pool.control.exists()

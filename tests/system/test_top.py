"""trac-spawnctl top, in a terminal and without one."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .clients import fcgi_load
from .control import ctl
from .pools import BIN, Pool, Spawner, base_environment
from .processes import PATIENCE
from .visits import APP, get


class Terminal:
    """What a program writes to its terminal, and the keys that are pressed there."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.text = ""

    def press(self, key: str) -> None:
        os.write(self.descriptor, key.encode())

    def wait_for(self, pattern: str) -> str:
        """Wait for new text; what is before it is forgotten."""
        deadline = time.monotonic() + PATIENCE
        while (match := re.search(pattern, self.text)) is None:
            ready, _, _ = select.select([self.descriptor], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{pattern!r} is not in {self.text[-2000:]!r}"
            self.text += os.read(self.descriptor, 65536).decode("utf-8", "replace")
        self.text = self.text[match.end() :]
        return match[0]


@contextmanager
def top(pool: Pool, *options: str) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
    environment = {**base_environment(pool.socket.parent), "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    command = [str(BIN / "trac-spawnctl"), "-s", str(pool.control), "top", *options]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    try:
        yield Terminal(ours), process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_it_follows_the_pool_and_the_keys(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP)
    with top(pool, "--interval", "0.3s") as (terminal, process):
        terminal.wait_for("now by slot")
        with fcgi_load(pool.socket, threads=2, pause=0.01):
            terminal.wait_for(r"requests [1-9]\d*, [1-9][\d.]*/s [\d.]+ ms each .*[▂-█]")
        terminal.press("m")
        terminal.wait_for("now by memory")
        pool.stop()
        terminal.wait_for("there is no|has ended|no master|cannot")
        assert process.wait(PATIENCE) != 0


def test_q_ends_it(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    with top(pool) as (terminal, process):
        terminal.wait_for("now by slot")
        terminal.press("q")
        terminal.wait_for("SLOT")
        assert process.wait(PATIENCE) == 0


def test_without_a_terminal_it_is_plain_text(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    get(pool, "/echo")
    done = ctl(pool, "top", "--sort", "memory")
    assert done.returncode == os.EX_OK, done.stderr
    assert "\x1b" not in done.stdout and done.stdout.isascii()
    assert re.search(r"trac running  generation 1, \d of 1 workers busy", done.stdout)

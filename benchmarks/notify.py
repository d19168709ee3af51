"""The service manager's end of sd_notify(3): hears when a pool is ready."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from types import TracebackType


class Listener:
    """``path`` is the NOTIFY_SOCKET; ``directory`` gets it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))

    def wait_ready(self, seconds: float) -> bool:
        """Whether READY=1 has come in time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                message = self._socket.recv(65536)
            except socket.timeout:
                break
            if b"READY=1" in message.split(b"\n"):
                return True
        return False

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, kind: type | None, error: object, trace: TracebackType | None) -> None:
        self._socket.close()

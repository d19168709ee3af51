"""Where a pool's access log goes, opened by the master: workers may be another user, or in a chroot."""

from __future__ import annotations

import logging
import os
import socket

from spawner.logs import open_append
from spawner.settings import Settings
from workers.accessformat import compile_format
from workers.accesslog import AccessLog
from workers.errors import BootError
from workers.logs import put_in_place
from workers.syslog import SYSLOG

log = logging.getLogger("trac-spawn")

#: Not the world: it says what visitors read.
MODE = 0o640


class AccessFile:
    """``target`` is a path, "syslog" or "-". The number of ``descriptor`` never changes, so whoever
    inherits it can be given another file under that number. Raises BootError."""

    def __init__(self, target: str) -> None:
        self.target = target
        try:
            self.descriptor = self._open()
        except OSError as error:
            raise BootError(
                f"--access-log {target}: {error.strerror}",
                os.EX_UNAVAILABLE if target == "syslog" else os.EX_CANTCREAT,
            ) from None

    @property
    def is_syslog(self) -> bool:
        return self.target == "syslog"

    def _open(self) -> int:
        if self.is_syslog:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                sock.connect(SYSLOG)
            except OSError:
                sock.close()
                raise
            return sock.detach()
        # A copy: what the application writes to standard output may be led elsewhere.
        return os.dup(1) if self.target == "-" else open_append(self.target, MODE)

    def reopen(self) -> None:
        """After rotation. What cannot be opened again stays as it is."""
        if self.target == "-":
            return
        try:
            fresh = self._open()
        except OSError as error:
            log.error("--access-log %s: cannot open it again: %s", self.target, error.strerror)
            return
        self.take(fresh)

    def take(self, descriptor: int) -> None:
        """Have another file under the same number."""
        put_in_place(descriptor, self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)

    def writer(self, settings: Settings) -> AccessLog:
        """What a worker writes with."""
        form = compile_format(settings.access_format)
        return AccessLog(self.descriptor, form, settings.access_suppress, syslog=self.is_syslog)

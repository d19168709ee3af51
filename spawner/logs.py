"""The program's own log: stderr, a file or syslog."""

from __future__ import annotations

import io
import logging
import logging.handlers
import os

import workers.logs
from spawner.settings import Settings
from workers import requestid
from workers.errors import BootError

log = logging.getLogger("trac-spawn")
#: Not waiting: a FIFO that nobody reads would stop the master.
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
_FORMAT = "%(asctime)s [%(process)d] %(levelname)s: %(message)s"


def configure(settings: Settings) -> None:
    """Send the log where the settings say. Raises BootError when that cannot be opened.

    A daemon without --log-file writes to syslog: once it has detached, nobody sees its stderr.
    """
    handler: logging.Handler
    if settings.log_file:
        handler = _file_handler(settings.log_file)
    elif settings.daemonize:
        handler = _syslog_handler()
    else:
        handler = logging.StreamHandler()
    if not isinstance(handler, logging.handlers.SysLogHandler):
        handler.setFormatter(_Formatter(_FORMAT))
    log.handlers[:] = [handler]
    log.setLevel(settings.log_level.upper())
    log.propagate = False
    # A log on a full disk must not fill stderr with tracebacks about itself.
    logging.raiseExceptions = False


def reopen() -> None:
    """Open the log file again, after it was rotated; the children are given its descriptor."""
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler):
            workers.logs.reopen(handler)


class _Formatter(logging.Formatter):
    """Says which request it was, in a worker that answers one."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        return f"{text} (request {requestid.current})" if requestid.current else text


class _LogFile(logging.FileHandler):
    """Opened with care: the folder may belong to the application's user, and the master be root."""

    def _open(self) -> io.TextIOWrapper:
        file = io.FileIO(open_append(self.baseFilename, 0o644), "a")
        return io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace")


def open_append(path: str, mode: int) -> int:
    """A descriptor to append to ``path`` with. Raises OSError."""
    descriptor = os.open(path, _APPEND | _following(path), mode)
    os.set_blocking(descriptor, True)
    return descriptor


def _following(path: str) -> int:
    """A link that somebody else has put there could lead to any file; /dev/stderr is root's."""
    try:
        owner = os.lstat(path).st_uid
    except FileNotFoundError:
        return os.O_NOFOLLOW
    return 0 if owner in (0, os.geteuid()) else os.O_NOFOLLOW


def _file_handler(path: str) -> logging.Handler:
    try:
        return _LogFile(path)
    except OSError as error:
        raise BootError(f"--log-file {path}: {error.strerror}", os.EX_CANTCREAT) from error


def _syslog_handler() -> logging.Handler:
    try:
        handler = logging.handlers.SysLogHandler("/dev/log", "daemon")
    except OSError:
        # No syslog daemon, as in most containers: until it detaches, stderr is still there.
        return logging.StreamHandler()
    handler.ident = "trac-spawn: "
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    return handler

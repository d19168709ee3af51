"""The program's own log: stderr, a file or syslog."""

from __future__ import annotations

import logging
import logging.handlers
import os

import workers.logs
from spawner.settings import Settings
from workers.errors import BootError

log = logging.getLogger("trac-spawn")
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
        handler.setFormatter(logging.Formatter(_FORMAT))
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


def _file_handler(path: str) -> logging.Handler:
    try:
        return logging.FileHandler(path)
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

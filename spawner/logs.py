"""The program's own log: stderr, a file or syslog."""

from __future__ import annotations

import logging
import logging.handlers
import os
import stat
from typing import Optional

from spawner.settings import Settings
from workers.errors import BootError
from workers.logs import reopen_log_files

log = logging.getLogger("trac-spawn")
_FORMAT = "%(asctime)s [%(process)d] %(levelname)s: %(message)s"


def configure(settings: Settings, owner: Optional[int]) -> None:
    """Send the log where the settings say. Raises BootError when that cannot be opened.

    A daemon without --log-file writes to syslog: once it has detached, nobody sees its stderr.
    ``owner`` is the user id of the workers, who open the file again after it was rotated.
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
    _give_to(owner)


def reopen(owner: Optional[int]) -> None:
    """Open the log file again, after it was rotated."""
    reopen_log_files()
    _give_to(owner)


def _give_to(owner: Optional[int]) -> None:
    for handler in log.handlers:
        if owner is None or os.geteuid() != 0 or not isinstance(handler, logging.FileHandler):
            continue
        if handler.stream is None:
            continue
        # A file only: --log-file /dev/null or /dev/stderr must not give the device away.
        if stat.S_ISREG(os.fstat(handler.stream.fileno()).st_mode):
            os.fchown(handler.stream.fileno(), owner, -1)


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

"""The program's own log: stderr, a file or syslog."""

from __future__ import annotations

import io
import json
import logging
import logging.handlers
import os
import sys
import time

import workers.logs
from spawner.settings import Settings
from workers import requestid
from workers.errors import BootError
from workers.text import printable

log = logging.getLogger("trac-spawn")
#: Not waiting: a FIFO that nobody reads would stop the master.
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
_FORMAT = "%(asctime)s [%(process)d] %(levelname)s: %(message)s"
#: syslog(3)'s numbers, for sd-daemon(3).
_PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}


def configure(settings: Settings) -> None:
    """Send the log where the settings say. Raises BootError when that cannot be opened.

    A daemon without --log-file writes to syslog: once it has detached, nobody sees its stderr.
    """
    handler: logging.Handler
    if settings.log_file == "syslog" or (settings.log_file is None and settings.daemonize):
        handler = _syslog_handler(asked_for=settings.log_file is not None)
    elif settings.log_file in (None, "-"):
        handler = logging.StreamHandler()
    else:
        handler = _file_handler(settings.log_file)
    handler.setFormatter(_formatter(handler, settings.log_format))
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


def lead_output_to(descriptor: int) -> None:
    """In a worker: what the application prints goes there, our own log to where it went before."""
    for handler in log.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setStream(os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace"))
    for stream in (sys.stdout, sys.stderr):
        # Into a pipe Python would write in blocks, and its reader wait for lines.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)


def _formatter(handler: logging.Handler, form: str) -> logging.Formatter:
    if form == "json":
        return _JsonFormatter()
    if isinstance(handler, logging.handlers.SysLogHandler):
        return _Formatter("%(levelname)s: %(message)s")
    if type(handler) is logging.StreamHandler and _is_journal():
        return _JournalFormatter("%(levelname)s: %(message)s")
    return _Formatter(_FORMAT)


def _is_journal() -> bool:
    """systemd.exec(5), JOURNAL_STREAM: whether standard error leads to the journal, not elsewhere."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class _Formatter(logging.Formatter):
    """Says which request it was, in a worker that answers one. Further lines of a message are indented: what
    a visitor has got into it cannot look like another message, nor tell a terminal anything."""

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).split("\n")
        return "\n  ".join(map(printable, lines))

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        return f"{text} (request {requestid.current})" if requestid.current else text


class _JournalFormatter(_Formatter):
    """Each line with its priority; the journal has the time and the process by itself."""

    def format(self, record: logging.LogRecord) -> str:
        priority = f"<{_PRIORITIES.get(record.levelname, 5)}>"
        return "\n".join(priority + line for line in super().format(record).split("\n"))


class _JsonFormatter(logging.Formatter):
    """An object a line."""

    def format(self, record: logging.LogRecord) -> str:
        date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told: dict[str, object] = {
            "time": f"{date}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "pid": record.process,
            "message": record.getMessage(),
        }
        if requestid.current:
            told["request_id"] = requestid.current
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told)


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


def _syslog_handler(asked_for: bool) -> logging.Handler:
    try:
        handler = logging.handlers.SysLogHandler("/dev/log", "daemon")
    except OSError as error:
        if asked_for:
            raise BootError(f"--log-file syslog: {error.strerror}", os.EX_UNAVAILABLE) from error
        # No syslog daemon, as in most containers: until it detaches, stderr is still there.
        return logging.StreamHandler()
    handler.ident = "trac-spawn: "
    return handler

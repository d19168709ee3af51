"""Log files that are opened again after they have been rotated: ours, and those of Trac's own loggers."""

from __future__ import annotations

import logging
import os
from typing import Iterator, Optional

log = logging.getLogger("trac-spawn")


def reopen_log_files() -> None:
    """Close and open again the file behind every logging.FileHandler of the application.

    A handler whose file cannot be opened keeps the old one: a wrong mode on a directory must not
    silence the log.
    """
    for handler in _file_handlers():
        if handler not in log.handlers:
            reopen(handler)


def reopen(handler: logging.FileHandler) -> None:
    """Open the file behind ``handler`` again."""
    handler.acquire()
    try:
        fresh = handler._open()
    except OSError:
        log.exception("cannot open %s again", handler.baseFilename)
    else:
        old, handler.stream = handler.stream, fresh
        if old is not None:
            old.close()
    finally:
        handler.release()


def own_log_file() -> Optional[int]:
    """The descriptor of trac-spawn's own log, when that is a file."""
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler) and handler.stream is not None:
            return handler.stream.fileno()
    return None


def take_log_file(descriptor: int) -> None:
    """Go on logging to the file that the master has opened; ``descriptor`` is closed.

    A worker could not open it: it is another user, and may be in a chroot.
    """
    own = own_log_file()
    if own is None:
        os.close(descriptor)
    else:
        put_in_place(descriptor, own)


def put_in_place(descriptor: int, of: int) -> None:
    """Have the file of ``descriptor`` under the number ``of``, and there alone."""
    os.dup2(descriptor, of, inheritable=False)
    os.close(descriptor)


def _file_handlers() -> Iterator[logging.FileHandler]:
    root = logging.getLogger()
    named = [logger for logger in root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    for logger in [root, *named]:
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                yield handler

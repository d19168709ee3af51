"""Log files that are opened again after they have been rotated: ours, and those of Trac's own loggers."""

from __future__ import annotations

import logging
from typing import Iterator

log = logging.getLogger("trac-spawn")


def reopen_log_files() -> None:
    """Close and open again the file behind every logging.FileHandler of this process.

    A handler whose file cannot be opened keeps the old one: a wrong mode on a directory must not
    silence the log.
    """
    for handler in _file_handlers():
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


def _file_handlers() -> Iterator[logging.FileHandler]:
    root = logging.getLogger()
    named = [logger for logger in root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    for logger in [root, *named]:
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                yield handler

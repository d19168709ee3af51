"""What only Trac itself can tell of an environment. In a process of its own: it loads all plugins."""

from __future__ import annotations

import html
import logging
import os
import re
import sys
import warnings
from typing import Any, List, Optional, TypedDict

#: How Trac's loader begins what it logs of a plugin that it cannot load (trac/loader.py).
_NOT_LOADED = ("Skipping ", "Failed to load plugin")


class Facts(TypedDict):
    trac: str
    plugins: List[str]  # those that are not loaded, with the reason
    database: str  # as in trac.ini
    database_file: Optional[str]  # of SQLite
    database_error: str
    needs_upgrade: bool
    journal_mode: Optional[str]  # of SQLite
    log_file: Optional[str]
    log_writable: bool
    log_makeable: bool
    base_url: str
    sends_mail: bool


class _Memory(logging.Handler):
    """Trac's log goes here: its own file would be made, or written to, by us."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: List[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def facts(path: str) -> Facts:
    """Raises what Trac raises when the environment cannot be opened at all."""
    # Trac calls a file that it may not read missing.
    open(os.path.join(path, "conf", "trac.ini"), "rb").close()
    warnings.simplefilter("ignore")
    memory = _Memory()
    environment = _open(path, memory)
    plugins = [_first_line(text) for text in memory.messages if text.startswith(_NOT_LOADED)]
    config = environment.config
    database = config.get("trac", "database")
    file = _sqlite_file(path, database)
    needs_upgrade, mode, problem = _ask_database(environment, file is not None)
    told = re.search(r"[?&]journal_mode=(\w+)", database)
    log_file = environment.log_file_path if environment.log_type == "file" else None
    return {
        "trac": environment.trac_version,
        "plugins": plugins,
        "database": database,
        "database_file": file,
        "database_error": problem,
        "needs_upgrade": needs_upgrade,
        "journal_mode": told[1].lower() if told and mode else mode,
        "log_file": log_file,
        "log_writable": log_file is None or _may_write(log_file),
        "log_makeable": log_file is None or os.access(os.path.dirname(log_file), os.W_OK | os.X_OK),
        "base_url": config.get("trac", "base_url"),
        "sends_mail": config.getbool("notification", "smtp_enabled"),
    }


def _open(path: str, memory: _Memory) -> Any:
    """Trac's Environment, in a process that keeps it from leaving traces."""
    sys.dont_write_bytecode = True
    from trac.db import sqlite_backend
    from trac.env import Environment

    # A journal mode stays in the file.
    sqlite_backend._set_journal_mode = lambda cursor, mode: None

    def setup_log(environment: Any) -> None:
        environment.log = logging.Logger("trac.doctor", logging.WARNING)
        environment.log.addHandler(memory)

    # Not a subclass: Trac would take it for one more component beside Environment.
    Environment.setup_log = setup_log
    return Environment(path)


def _ask_database(environment: Any, is_sqlite: bool) -> tuple[bool, Optional[str], str]:
    """Whether an upgrade is due, the journal mode, and what went wrong."""
    mode = None
    try:
        with environment.db_query as database:
            if is_sqlite:
                cursor = database.cursor()  # the connection itself takes nothing but SELECT
                cursor.execute("PRAGMA journal_mode")
                mode = str(cursor.fetchone()[0])
        return bool(environment.needs_upgrade()), mode, ""
    # Of Trac, its plugins, or any database's driver.
    except Exception as problem:
        return False, None, _first_line(_plain(str(problem))) or type(problem).__name__


def _sqlite_file(path: str, database: str) -> Optional[str]:
    if not database.startswith("sqlite:"):
        return None
    return os.path.join(path, database[len("sqlite:") :].partition("?")[0])


def _may_write(file: str) -> bool:
    if os.path.exists(file):
        return os.access(file, os.W_OK)
    return os.access(os.path.dirname(file), os.W_OK | os.X_OK)


def _plain(message: str) -> str:
    """Without the markup that Trac's own messages have for the browser."""
    return html.unescape(re.sub(r"</?[a-z]+(?: [^<>]*)?>", "", message))


def _first_line(text: str) -> str:
    """And the last one, if it is of a traceback: there is the reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{lines[0]} {lines[-1]}" if len(lines) > 1 else "".join(lines)

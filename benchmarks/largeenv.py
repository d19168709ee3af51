"""A Trac environment that has been in use for years, written straight into its database.

``python -m benchmarks.largeenv PATH PLUGINS TICKETS PAGES`` makes one. Always the same: what it
holds is counted, never drawn by lot, but for the times, which end today, as a timeline needs them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from benchmarks import environment
from benchmarks.environment import SUMMARY, TEXT
from benchmarks.errors import BenchmarkError
from benchmarks.plan import Content

CACHE = Path(__file__).with_name("output") / ".environments"
#: A timeline shows the last month: one made longer ago would be an empty page.
FRESH = 7 * 86400
#: The tickets' life. In three years instead of ten, a timeline of a month would be 1,600 lines long,
#: and on a busy machine no server answers one within a round.
DAYS = 10 * 365
MICROSECONDS = 1_000_000
#: As plugins are: a component with options, a page, a permission, a macro and a filter that looks
#: at every request; the most common interfaces, so that each costs what one more plugin costs.
PLUGIN = '''\
"""Plugin {number} of the benchmark."""

from trac.config import BoolOption, IntOption, ListOption, Option
from trac.core import Component, implements
from trac.perm import IPermissionRequestor
from trac.web.api import IRequestFilter, IRequestHandler
from trac.web.chrome import INavigationContributor, add_ctxtnav
from trac.wiki.macros import WikiMacroBase

TABLE = {{"key %d" % i: ["value", i] for i in range(200)}}


class BenchmarkPlugin{number}(Component):
    """A page, a permission, and a look at every request."""

    implements(IRequestHandler, IRequestFilter, IPermissionRequestor, INavigationContributor)

    enabled = BoolOption("plugin{number}", "enabled", "true", "Whether it does anything")
    limit = IntOption("plugin{number}", "limit", 10, "How much of it")
    groups = ListOption("plugin{number}", "groups", "a,b", doc="For whom")
    label = Option("plugin{number}", "label", "Plugin {number}", "What it is called")

    def match_request(self, req):
        return req.path_info.startswith("/plugin{number}")

    def process_request(self, req):
        req.send(self.label.encode(), "text/plain")

    def pre_process_request(self, req, handler):
        return handler

    def post_process_request(self, req, template, data, metadata):
        if self.enabled and data is not None:
            data["plugin{number}"] = [self.label] * self.limit
        return template, data, metadata

    def get_permission_actions(self):
        return ["PLUGIN{number}_VIEW"]

    def get_active_navigation_item(self, req):
        return ""

    def get_navigation_items(self, req):
        return []


class BenchmarkMacro{number}(WikiMacroBase):
    """Says its number."""

    def expand_macro(self, formatter, name, content, args=None):
        return "{number}"
'''


def ensure(content: Content) -> Path:
    """One with this content, made unless there is a fresh one. Raises BenchmarkError."""
    key = f"{version('Trac')} {content} {Path(__file__).read_text()}"
    path = CACHE / hashlib.sha256(key.encode()).hexdigest()[:12]
    if path.exists() and time.time() - path.stat().st_mtime < FRESH:
        return path
    shutil.rmtree(path, ignore_errors=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    try:
        environment.create(unfinished)
        _fill(unfinished, content)
        _upgrade(unfinished)
        os.utime(unfinished)
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return path


def _fill(env: Path, content: Content) -> None:
    for number in range(1, content.plugins + 1):
        (env / "plugins" / f"benchmark{number}.py").write_text(PLUGIN.format(number=number))
    now = int(time.time()) * MICROSECONDS
    database = sqlite3.connect(env / "db" / "trac.db")
    with database:
        database.execute("DELETE FROM ticket")
        database.executemany(f"INSERT INTO ticket VALUES ({_marks(17)})", _tickets(content, now))
        database.executemany(
            f"INSERT INTO ticket_change VALUES ({_marks(6)})", _changes(content, now)
        )
        database.executemany(f"INSERT INTO wiki VALUES ({_marks(7)})", _pages(content, now))
    database.close()


def _marks(number: int) -> str:
    return ",".join("?" * number)


def _time(number: int, of: int, now: int) -> int:
    """The tickets come evenly, the last one now."""
    return now - (of - number) * DAYS * 86400 * MICROSECONDS // of


def _tickets(content: Content, now: int) -> Iterator[tuple[object, ...]]:
    """One in twenty is still open; the rest are closed a day after they were made."""
    for number in range(1, content.tickets + 1):
        made = _time(number, content.tickets, now)
        open_ = number % 20 == 0
        description = f"See wiki:Large/Page{number % content.pages + 1} and #{number // 2 + 1}.\n\n * one"
        yield (
            number, ("defect", "enhancement", "task")[number % 3],
            made, made if open_ else _closed(made, now),
            f"component{number % 2 + 1}", "", ("blocker", "major", "minor")[number % 3],
            f"owner{number % 30}", f"reporter{number % 200}", "", ("1.0", "2.0")[number % 2],
            f"milestone{number % 4 + 1}", "new" if open_ else "closed", "" if open_ else "fixed",
            f"{SUMMARY} {number}", description, "a, b",
        )  # fmt: skip


def _closed(made: int, now: int) -> int:
    return min(made + 86400 * MICROSECONDS, now)


def _changes(content: Content, now: int) -> Iterator[tuple[object, ...]]:
    for number in range(1, content.tickets + 1):
        if number % 20 == 0:
            continue
        when = _closed(_time(number, content.tickets, now), now)
        author = f"owner{number % 30}"
        yield number, when, author, "comment", "1", f"Done in wiki:Large/Page{number % content.pages + 1}."
        yield number, when, author, "status", "new", "closed"
        yield number, when, author, "resolution", "", "fixed"


def _pages(content: Content, now: int) -> Iterator[tuple[object, ...]]:
    for number in range(1, content.pages + 1):
        when = _time(number, content.pages, now)
        text = TEXT.format(number=number) * 10
        yield f"Large/Page{number}", 1, when, f"author{number % 20}", text, "First version", 0


def _upgrade(env: Path) -> None:
    """Open it once in a process of its own: what plugins want is done, caches are filled."""
    command = [sys.executable, "-m", "trac.admin.console", str(env), "upgrade", "--no-backup"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchmarkError(f"cannot make the large environment:\n{done.stdout}{done.stderr}")

"""What has changed on the disk, and whether things are quiet again.

Plain signatures of files, looked at once a second: nothing has to be set up, and it works on
every file system. Which files count is what spawner.watchlist knows.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from typing import Callable, Dict, Tuple

#: st_mtime_ns, st_size and st_ino of a file; (-errno, 0, 0) of one that cannot be looked at.
Signature = Tuple[int, int, int]
#: By path. What is not there is not in it.
Fingerprint = Dict[str, Signature]

#: Seconds from one look to the next.
INTERVAL = 1.0
#: Seconds without a further change after which a change counts: who installs a plugin writes many
#: files, and an application loaded in the middle of that would be neither the old nor the new one.
QUIET = 1.0
#: What changes while the application loads, or so many seconds later, it may have changed itself.
ECHO = 5.0
#: The longest that such a change has to be quiet; what is wrong then is in the log.
LONGEST_QUIET = 3600.0

# What one look costs at most, whatever somebody puts into a folder or makes plugins_dir point to:
# about 50 ms. A site with 1,000 plugins stays below it.
_MOST_ENTRIES = 20_000
# Against links that lead back up.
_DEEPEST = 8

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

_log = logging.getLogger("trac-spawn")


def is_clutter(name: str) -> bool:
    """What editors, pip and Python itself leave beside the real files. Python writes bytecode
    while it loads the application: counting that would start a reload after every reload."""
    return (
        name == "__pycache__"
        or name.startswith((".", "~", "#"))
        or name.endswith(("~", ".pyc", ".pyo", ".swp", ".tmp"))
    )


class Look:
    """One look at the disk. Missing and unreadable files are findings, not errors."""

    def __init__(self, most: int = _MOST_ENTRIES) -> None:
        self.found: Fingerprint = {}
        #: More entries than can be looked at in reasonable time: some were left out.
        self.cut_short = False
        self._left = most

    def at(self, path: str) -> None:
        """A file, or a folder as such: its time changes when an entry comes or goes."""
        if not self._spend():
            return
        try:
            found = os.stat(path)
        except (OSError, ValueError) as error:
            self._failed(path, error)
        else:
            self.found[path] = _signature(found)

    def into(
        self,
        folder: str,
        wanted: Callable[[str], bool],
        enter: Callable[[str], bool],
        depth: int = _DEEPEST,
    ) -> None:
        """The files in ``folder`` whose names are ``wanted``, and those in the folders below it
        whose paths may be entered; clutter never. A folder's own time does not count here:
        clutter changes that as well."""
        deeper = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not self._spend():
                        return
                    if is_clutter(entry.name):
                        continue
                    if _is_folder(entry):
                        deeper.append(entry.path)
                    elif wanted(entry.name):
                        self._add(entry)
        except (OSError, ValueError) as error:
            self._failed(folder, error)
        for path in deeper:
            if depth and enter(path):
                self.into(path, wanted, enter, depth - 1)

    def entries(self, folder: str, endings: Tuple[str, ...]) -> None:
        """What is directly in ``folder`` and ends like that, files and folders as such."""
        try:
            names = os.listdir(folder)
        except (OSError, ValueError) as error:
            self._failed(folder, error)
            return
        for name in names:
            if name.endswith(endings) and not is_clutter(name):
                self.at(os.path.join(folder, name))

    def _spend(self) -> bool:
        self._left -= 1
        self.cut_short = self.cut_short or self._left < 0
        return self._left >= 0

    def _add(self, entry: os.DirEntry[str]) -> None:
        try:
            self.found[entry.path] = _signature(entry.stat())
        except OSError as error:
            # A link that leads nowhere, or a file that has just gone.
            self._failed(entry.path, error)

    def _failed(self, path: str, error: Exception) -> None:
        # ValueError is what a NUL in the name gives: nothing has such a name.
        if isinstance(error, OSError) and error.errno not in _ABSENT:
            self.found[path] = (-(error.errno or errno.EIO), 0, 0)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link into a circle, or to where we may not look


def _signature(found: os.stat_result) -> Signature:
    # The number catches what the time does not: a file moved into place with an old date.
    return found.st_mtime_ns, found.st_size, found.st_ino


#: Adds to a look what counts.
Source = Callable[[Look], None]


class Watcher:
    """Says when what ``sources`` look at has changed and is quiet again.

    What is there when it is made counts as known, so make it, or call reset(), before the
    application is loaded: what changes while it loads is a change. ``clock`` is monotonic.

    An application that writes to what is watched whenever it is loaded would be loaded for ever: such
    a change has to be quiet for twice as long each time that one follows another. Who edits a file
    does so later, and waits QUIET seconds only.
    """

    def __init__(self, *sources: Source, clock: Callable[[], float] = time.monotonic) -> None:
        self._sources = sources
        self._clock = clock
        self._complained = False
        #: How many changes in a row may be the application's own, that which waits now among them.
        self._echoes = 0
        self._echo_waits = False
        #: When the application had been loaded, as far as this is told: infinity while it loads.
        self._loaded_at = float("-inf")
        self.reset()

    def follow(self, before: Watcher) -> None:
        """Take the place of ``before``, because the application is being loaded anew: changed() finds
        nothing until loaded() says that it has been."""
        self._echoes = before._echoes
        self._loaded_at = float("inf")

    def loaded(self) -> None:
        """The application has been loaded, or cannot be."""
        self._loaded_at = self._clock()

    def reset(self) -> None:
        """What is there now is known: whoever calls this loads it."""
        self._known = self._latest = self._look()
        self._changed_at = float("-inf")
        self._quiet = QUIET
        self._next_look = self._clock() + INTERVAL

    def next_deadline(self) -> float:
        """When changed() will look again, on the clock."""
        return self._next_look

    def changed(self) -> list[str]:
        """The paths, sorted, that differ from what was known, once nothing has changed for QUIET
        seconds; they are known from then on. Empty otherwise, also between two looks.

        What changes back in time was no change. Takes some milliseconds a look.
        """
        now = self._clock()
        if now < self._next_look:
            return []
        self._next_look = now + INTERVAL
        latest = self._look()
        if latest != self._latest:
            self._judge(differences(self._latest, latest), now)
            self._latest = latest
            self._changed_at = now
            return []
        if latest == self._known or now < self._changed_at + self._quiet:
            return []
        if self._loaded_at == float("inf"):
            return []
        names = differences(self._known, latest)
        self._known = latest
        self._echo_waits = False
        return names

    def _judge(self, names: list[str], now: float) -> None:
        """Whose change is it, and how long does it have to be quiet?"""
        if now > self._loaded_at + ECHO:
            self._echoes, self._echo_waits, self._quiet = 0, False, QUIET
        elif not self._echo_waits:
            self._echoes += 1
            self._echo_waits = True
            self._quiet = min(QUIET * 2.0**self._echoes, LONGEST_QUIET)
            _log.warning(
                "%s has changed while the application was being loaded, or just after: it is loaded"
                " again once nothing changes for %.0f s", ", ".join(names[:3]), self._quiet,
            )  # fmt: skip

    def _look(self) -> Fingerprint:
        look = Look()
        for source in self._sources:
            source(look)
        if look.cut_short and not self._complained:
            self._complained = True
            _log.warning("more than %d files to watch: some are left out", _MOST_ENTRIES)
        return look.found


def differences(old: Fingerprint, new: Fingerprint) -> list[str]:
    """The paths that are in one of them only, or differ."""
    # Items rather than names: a difference of sets takes no loop in Python.
    return sorted({path for path, _ in old.items() ^ new.items()})

"""Which files decide what an application is: the sources of a Watcher.

Nothing here imports Trac or the application, and nothing trusts what it reads: trac.ini belongs
to the application's user, while the one who watches may be root.
"""

from __future__ import annotations

import configparser
import os
import stat
import sys
import sysconfig
from typing import Dict, NamedTuple, Optional, Sequence, Tuple

from spawner.settings import Settings
from spawner.watch import Look, Signature, Source, Watcher

# No trac.ini is near that.
_LARGEST_INI = 1 << 20
# An environment inherits from a file or two; a generated chain shall not cost more than it says.
_MOST_INHERITED = 64

# What the metadata of an installed distribution looks like, whoever installed it and when.
_METADATA = (".dist-info", ".egg-info", ".egg-link", ".egg", ".pth")

_STANDARD_LIBRARY = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))


class _Inherit(NamedTuple):
    """The section [inherit] of one file; as written, paths may be relative."""

    files: Tuple[str, ...] = ()
    folders: Tuple[str, ...] = ()


class Environment:
    """A source: what a Trac environment is made of.

    VERSION, conf/trac.ini and the files it inherits from, ``plugins`` and ``templates``, and the
    shared ones that ``[inherit] plugins_dir`` and ``templates_dir`` name.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        # Reading takes as long as all the rest, so what was read holds until the file changes.
        self._read: Dict[str, Tuple[Optional[Signature], _Inherit]] = {}

    def __call__(self, look: Look) -> None:
        look.at(os.path.join(self._path, "VERSION"))
        folders = [os.path.join(self._path, name) for name in ("plugins", "templates")]
        for folder in dict.fromkeys(folders + self._configuration(look)):
            look.into(folder, wanted=_is_any, enter=_is_any)

    def _configuration(self, look: Look) -> list[str]:
        """Look at trac.ini and all it inherits from; the shared folders that they name."""
        main = os.path.join(self._path, "conf", "trac.ini")
        waiting, seen = [main], [main]
        folders = []
        for path in waiting:
            look.at(path)
            inherit = self._inherit(path, look.found.get(path))
            for name in inherit.files:
                # As trac.config has it: relative to the file that names it.
                parent = os.path.normpath(os.path.join(os.path.dirname(path), name))
                if parent not in seen and len(seen) < _MOST_INHERITED:
                    seen.append(parent)
                    waiting.append(parent)
            # Relative to trac.ini, wherever they are named. One that trac.ini overrides is
            # looked at too: that costs little, and does no harm.
            folders += [os.path.join(os.path.dirname(main), name) for name in inherit.folders]
        self._read = {path: self._read[path] for path in seen}
        return [os.path.normpath(folder) for folder in folders]

    def _inherit(self, path: str, signature: Optional[Signature]) -> _Inherit:
        known = self._read.get(path)
        if known is None or known[0] != signature:
            known = self._read[path] = (signature, _read_inherit(path))
        return known[1]


def watcher(settings: Settings) -> Watcher:
    """What decides about a pool: its environments or modules, what is installed, and the file with
    its settings."""
    sources = [distributions()]
    if settings.env is not None:
        sources.append(Environment(settings.env))
    elif settings.env_parent_dir is not None:
        sources.append(environments(settings.env_parent_dir))
    elif settings.app is not None:
        sources.append(modules(settings.app.partition(":")[0], settings.chdir or os.getcwd()))
    sources += [environments(directory) for directory in settings.env_from_params]
    if settings.config is not None:
        sources.append(files(settings.config))
    return Watcher(*sources)


def files(*paths: str) -> Source:
    """A source: these files."""

    def source(look: Look) -> None:
        for path in paths:
            look.at(path)

    return source


def environments(parent: str) -> Source:
    """A source: every Trac environment that is in the folder ``parent`` at the time."""
    parent = os.path.abspath(parent)
    known: Dict[str, Environment] = {}

    def source(look: Look) -> None:
        try:
            names = os.listdir(parent)
        except OSError:
            look.at(parent)
            return
        for name in sorted(names):
            path = os.path.join(parent, name)
            if look.cut_short:
                return
            if os.path.isfile(os.path.join(path, "VERSION")):
                known.setdefault(path, Environment(path))(look)
            else:
                known.pop(path, None)
        for path in [path for path in known if os.path.basename(path) not in names]:
            del known[path]

    return source


def distributions(folders: Optional[Sequence[str]] = None) -> Source:
    """A source: what is installed in ``folders``, by default everywhere that this interpreter
    imports from.

    Each installation, upgrade and removal makes, replaces or removes a metadata entry; that of
    a package's thousands of files need not be looked at.
    """
    places = [path for path in sys.path if path] if folders is None else list(folders)

    def source(look: Look) -> None:
        for place in places:
            look.entries(place, _METADATA)

    return source


def modules(name: str, directory: str, path: Optional[Sequence[str]] = None) -> Source:
    """A source: the Python files of the module ``name`` ('package.module' as well) and of what is
    beside it: the package it is in, or its folder with the packages there.

    It is searched for in ``directory``, then along ``path`` (default: sys.path), without
    importing it. One that is installed has no files here: distributions() covers it.
    """
    top = name.partition(".")[0]
    along = sys.path if path is None else path
    # '' in sys.path is the working directory, and that is not the application's.
    places = [os.path.abspath(directory), *(place for place in along if place)]

    def source(look: Look) -> None:
        home = _home(top, places)
        if home is not None:
            look.into(home, wanted=_is_python, enter=_is_package)

    return source


def _home(top: str, places: Sequence[str]) -> Optional[str]:
    """The folder with the code of the module ``top``; None when there is none of our own."""
    spread = None
    for place in places:
        folder = os.path.join(place, top)
        is_file = os.path.isfile(folder + ".py")
        if is_file or _is_package(folder):
            if _is_installed(place):
                return None
            return place if is_file and not _is_package(folder) else folder
        # A folder alone makes a namespace package, when nothing else along the way is better.
        if spread is None and os.path.isdir(folder) and not _is_installed(place):
            spread = folder
    return spread


def _is_installed(place: str) -> bool:
    if os.path.basename(place) in ("site-packages", "dist-packages"):
        return True
    return place in _STANDARD_LIBRARY


def _read_inherit(path: str) -> _Inherit:
    """Nothing, for a file that is missing, unreadable, broken or no file at all: it counts by
    its signature alone."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(_section(_text(path)))
    except (OSError, ValueError, configparser.Error):
        return _Inherit()
    files = parser.get("inherit", "file", fallback="").split(",")
    folders = [parser.get("inherit", key, fallback="") for key in ("plugins_dir", "templates_dir")]
    return _Inherit(_stripped(files), _stripped(folders))


def _text(path: str) -> str:
    # Not to be opened before it is known to be a file: a FIFO would hold us for ever, and some
    # devices do something when root merely opens them.
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            return file.read(_LARGEST_INI).decode("utf-8", "replace")
    finally:
        os.close(fd)


def _section(text: str) -> str:
    """The lines of [inherit], headers included. The rest is a hundred times as much to parse, and
    may be broken without any harm to these."""
    lines = []
    inside = False
    for line in text.splitlines():
        if line.startswith("["):
            inside = line.startswith("[inherit]")
        if inside:
            lines.append(line)
    return "\n".join(lines)


def _stripped(words: Sequence[str]) -> Tuple[str, ...]:
    return tuple(word.strip() for word in words if word.strip())


def _is_any(name: str) -> bool:
    return True


def _is_python(name: str) -> bool:
    return name.endswith(".py")


def _is_package(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, "__init__.py"))

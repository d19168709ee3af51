"""The configuration file: INI text to layers of settings with their lines, and settings to text."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import shlex
from typing import Dict, Iterable, Iterator, List, Optional, Tuple

from spawner import values
from spawner.layers import Given, Layer, usage
from spawner.setting import Rank, Scope, Setting, Source
from spawner.settings import SETTINGS, Settings
from workers.errors import BootError

MAIN = "trac-spawn"
_POOL_NAME = re.compile("[A-Za-z][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"env\[([A-Za-z_][A-Za-z0-9_]*)\]")
_KEYS = {setting.file_key: setting for setting in SETTINGS}
_MAIN_KEYS = tuple(key for key, one in _KEYS.items() if one.scope is not Scope.COMMAND)
_POOL_KEYS = tuple(key for key in _MAIN_KEYS if _KEYS[key].scope is not Scope.MASTER)


@dataclasses.dataclass(frozen=True)
class Section:
    """What one section says. ``place`` is FILE:LINE; ``name`` that of the pool, or ''."""

    name: str = ""
    place: str = ""
    settings: Layer = dataclasses.field(default_factory=dict)
    variables: Dict[str, Given] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ConfigFile:
    """The section [trac-spawn], and those of the pools in their order."""

    main: Section = dataclasses.field(default_factory=Section)
    pools: Tuple[Section, ...] = ()


def read_file(path: str) -> ConfigFile:
    """The file at ``path``. Raises BootError, naming the line, when it cannot be used."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        status = os.EX_NOPERM if isinstance(error, PermissionError) else os.EX_NOINPUT
        raise BootError(f"{path}: {error.strerror}", status) from None
    if content.startswith(b"#!"):
        # spawn-fcgi's -f is the program to start.
        raise usage(f"{path}: -f takes a configuration file here, and this is a program")
    if b"\0" in content:
        raise usage(f"{path}: this is not a text file")
    # Paths are bytes in any encoding, and so may be the comments beside them.
    return parse_file(content.decode("utf-8-sig", "surrogateescape"), path)


def parse_file(text: str, path: str) -> ConfigFile:
    """As ``read_file``, of text; ``path`` is for the messages."""
    reader = _Reader(path)
    for number, line in enumerate(text.split("\n"), 1):
        reader.read_line(line.strip(), f"{path}:{number}")
    return ConfigFile(reader.main, tuple(reader.pools.values()))


def _nearest(word: str, known: Iterable[str]) -> str:
    """A hint at what was meant; '' when nothing is near."""
    found = difflib.get_close_matches(word.lower(), list(known), 1)
    return f"; did you mean {found[0]}?" if found else ""


class _Reader:
    """Takes one line after the other.

    Not configparser, whose form this is: it tells nobody in which line a key stood, and joins an
    indented line to the one before, which hides keys that were indented for beauty.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.main = Section()
        self.pools: Dict[str, Section] = {}
        self._section: Optional[Section] = None

    def read_line(self, line: str, place: str) -> None:
        if not line or line.startswith(("#", ";")):
            return
        if line.startswith("["):
            self._section = self._open_section(line, place)
            return
        key, equals, text = line.partition("=")
        if not equals:
            raise usage(f"{place}: this is neither [SECTION] nor KEY = VALUE")
        if self._section is None:
            raise usage(f"{place}: a section must come first, such as [{MAIN}]")
        _add(self._section, key.rstrip(), text.lstrip(), place)

    def _open_section(self, line: str, place: str) -> Section:
        match = re.fullmatch(r"\[([^\[\]]+)\]", line)
        if match is None:
            raise usage(f"{place}: {line} is not of the form [SECTION]")
        words = match[1].split()
        if words == [MAIN]:
            if self.main.place:
                raise usage(f"{place}: {line} has begun before, at {self.main.place}")
            self.main = Section("", place)
            return self.main
        if words[:1] != ["pool"]:
            hint = _nearest(match[1].split(" ")[0], (MAIN, "pool")).replace("pool?", "pool NAME?")
            raise usage(f"{place}: unknown section {line}{hint}")
        name = " ".join(words[1:])
        if not _POOL_NAME.fullmatch(name):
            raise usage(
                f"{place}: {line}: a pool has a name of letters, digits, '.', '_' and '-' that "
                "begins with a letter, as in [pool wiki]"
            )
        if name in self.pools:
            raise usage(f"{place}: {line} has begun before, at {self.pools[name].place}")
        self.pools[name] = Section(name, place)
        return self.pools[name]


def _add(section: Section, key: str, text: str, place: str) -> None:
    source = Source(Rank.POOL if section.name else Rank.FILE, place, key)
    target = section.settings
    if key.startswith("env["):
        match = _VARIABLE.fullmatch(key)
        if match is None:
            raise usage(f"{place}: {key} is not of the form env[NAME]")
        texts: tuple[str, ...] = (text,)
        target, name = section.variables, match[1]
    else:
        setting = _find(key, source)
        name, texts = setting.name, _texts(setting, text, source)
    if name in target:
        raise usage(f"{source.name}: this has been set before, at {target[name].source.place}")
    target[name] = Given(texts, source)


def _find(key: str, source: Source) -> Setting:
    known = _POOL_KEYS if source.rank is Rank.POOL else _MAIN_KEYS
    if key in known:
        return _KEYS[key]
    if key in _MAIN_KEYS:
        raise usage(f"{source.name}: this concerns all pools and belongs in [{MAIN}]")
    if key in _KEYS:
        raise usage(f"{source.name}: this is for the command line, not for a file")
    raise usage(f"{source.place}: unknown key {key!r}{_nearest(key, known)}")


def _texts(setting: Setting, text: str, source: Source) -> Tuple[str, ...]:
    try:
        texts = shlex.split(text) or [""] if setting.many else [text]
    except ValueError as error:
        raise usage(f"{source.name}: {str(error).lower()}") from None
    for one in texts:
        if _is_relative(setting, one):
            # The same file would mean something else from each directory it is used in.
            raise usage(f"{source.name}: {one!r}: in a file, a path must begin with '/'")
    return tuple(texts)


def _is_relative(setting: Setting, text: str) -> bool:
    if setting.parse is values.path:
        return bool(text) and not text.startswith("/")
    if setting.parse is values.socket_path or text.startswith("unix:") and setting.name == "listen":
        place = text[len("unix:") :] if text.startswith("unix:") else text
        return bool(place) and not place.startswith(("/", "@"))
    return False


# The other way


def write_file(master: Settings, pools: Iterable[Settings]) -> str:
    """The settings in force, each with where it came from: text that ``read_file`` understands.

    Defaults are comments: read again, they are what they are.
    """
    lines = [f"[{MAIN}]"]
    lines += _section_lines(master, (Scope.MASTER,))
    for pool in pools:
        lines += ["", f"[pool {pool.name}]"]
        lines += _section_lines(pool, (Scope.POOL, Scope.SINGLE_POOL))
        lines += _variable_lines(pool)
    return "\n".join(lines) + "\n"


def _section_lines(settings: Settings, scopes: Tuple[Scope, ...]) -> Iterator[str]:
    for setting in SETTINGS:
        if setting.scope not in scopes:
            continue
        value = getattr(settings, setting.name)
        if setting.name in settings.sources:
            yield from _commented(setting.file_key, setting.written(value), settings, setting.name)
        elif setting.is_set(value):
            yield f"# default: {setting.file_key} = {setting.written(value)}"
        else:
            yield f"# not set: {setting.file_key}"


def _variable_lines(pool: Settings) -> Iterator[str]:
    for name, value in pool.environment.items():
        key = f"env[{name}]"
        yield from _commented(key, value, pool, key)


def _commented(key: str, text: str, settings: Settings, name: str) -> List[str]:
    source = settings.sources[name]
    # Of a text with a line end, a file would make two lines, and it drops outer spaces.
    if text != text.strip() or "\n" in text or "\r" in text:
        return [f"# {source}; a file cannot hold this value", f"# {key} = {text!r}"]
    return [f"# {source}", f"{key} = {text}"]

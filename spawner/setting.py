"""One setting: a row of the table in settings.py, whom it concerns, where its value came from."""

from __future__ import annotations

import dataclasses
import enum
import shlex
from typing import Any, Callable, Tuple

from spawner import values


class Rank(enum.IntEnum):
    """Where a value can come from; the lowest number wins."""

    COMMAND_LINE = 0
    ENVIRONMENT = 1
    POOL = 2
    FILE = 3
    DEFAULT = 4

    def __str__(self) -> str:
        # For people, a pool's own section is the file as well.
        return "file" if self is Rank.POOL else self.name.lower().replace("_", " ")


class Scope(enum.Enum):
    """Whom a setting concerns, which says where in a file it can stand."""

    COMMAND = "what the command shall do; not in a file"
    MASTER = "the whole program; in [trac-spawn]"
    POOL = "each pool by itself; in [pool NAME], or for all of them in [trac-spawn]"
    SINGLE_POOL = "as POOL, but no two pools can have the same"


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a value came from: an option, a variable, or a ``key`` and its place in a file."""

    rank: Rank
    place: str
    key: str = ""

    @property
    def name(self) -> str:
        """As the beginning of a complaint."""
        return f"{self.place}: {self.key}" if self.key else self.place

    def __str__(self) -> str:
        return "default" if self.rank is Rank.DEFAULT else f"{self.rank} {self.place}"


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of the table. ``name`` is the attribute of ``Settings``."""

    name: str
    default: Any
    group: str
    help: str
    scope: Scope = Scope.POOL
    flags: Tuple[str, ...] = ()
    parse: Callable[[str], Any] = values.text
    metavar: str = ""
    show: Callable[[Any], str] = str
    default_text: str = ""
    variables_of_trac: Tuple[str, ...] = ()
    choices: Tuple[str, ...] = ()
    many: bool = False
    may_be_empty: bool = False

    @property
    def is_switch(self) -> bool:
        return self.parse in (values.boolean, values.negated)

    @property
    def key(self) -> str:
        """The name that people write: 'no_template' for the attribute ``template``."""
        return "no_" + self.name if self.parse is values.negated else self.name

    @property
    def file_key(self) -> str:
        """The name in a file: that of the long option."""
        return self.key.replace("_", "-")

    @property
    def option(self) -> str:
        return "--" + self.file_key

    @property
    def opposite(self) -> str:
        """The option that takes a switch back, whatever the environment or a file says."""
        name = self.name if self.parse is values.negated else "no_" + self.name
        return "--" + name.replace("_", "-")

    @property
    def variables(self) -> Tuple[str, ...]:
        """The environment variables that are read, the first that is not empty wins."""
        return ("TRAC_SPAWN_" + self.key.upper(), *self.variables_of_trac)

    def describe_default(self) -> str:
        if self.default_text:
            return self.default_text
        if self.is_switch or self.default is None or self.many:
            return ""
        return self.show(self.default)

    def is_set(self, value: Any) -> bool:
        """Whether there is a value at all."""
        return value is not None and value != ()

    def written(self, value: Any) -> str:
        """The value as a file has it: what ``parse`` turns into this value again."""
        if self.is_switch:
            return "yes" if value != (self.parse is values.negated) else "no"
        return shlex.join(value) if self.many else self.show(value)

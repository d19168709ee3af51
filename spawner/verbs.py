"""What a running master can be told: one table for the socket, the help and the manual page."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Callable, Mapping, Optional

from spawner.snippets.kinds import KINDS

#: What the master knows at once is there within milliseconds; a master that is short of processor
#: time, on a machine that swaps, may need seconds.
AT_ONCE = 10.0
#: Of each address; a pool that needs longer keeps visitors waiting as well.
SIGN_OF_LIFE = 5.0
#: Loading a Trac with many environments and plugins takes a minute on a slow machine, and a reload
#: may then wait for --stop-timeout (30 seconds unless set) until the last old worker has left.
AFTER_LOADING = 300.0

_WORKERS = re.compile(r"[+-]?[0-9]{1,4}")
_SLOT = re.compile(r"[0-9]{1,4}")


def _pool(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(f"{text!r} is not a name")
    return text


def _workers(text: str) -> str:
    if not _WORKERS.fullmatch(text):
        raise ValueError(f"{text!r} is neither a number, such as 8, nor a change, such as +2 or -2")
    return text


def _kind(text: str) -> str:
    if text not in KINDS:
        near = difflib.get_close_matches(text, list(KINDS), 1)
        hint = f"did you mean {near[0]}?" if near else _KNOWN_KINDS
        raise ValueError(f"there is none for {text!r}; {hint}")
    return text


def _slot(text: str) -> str:
    if not _SLOT.fullmatch(text) or int(text) == 0:
        raise ValueError(f"{text!r} is not the number of a slot, which 'status' shows")
    return text


@dataclass(frozen=True)
class Argument:
    """``check`` returns the text that it is given, or raises ValueError with a phrase that
    completes "argument: ..."."""

    name: str
    required: bool
    help: str
    check: Callable[[str], str]
    metavar: str = ""

    @property
    def shown(self) -> str:
        """As in a synopsis: "POOL", or "[POOL]" when it can be left out."""
        name = self.metavar or self.name.upper()
        return name if self.required else f"[{name}]"


@dataclass(frozen=True)
class VerbOption:
    """An option of one verb of the command; ``flag`` is a short form of it.

    Without a ``metavar`` it has no value: it is given or not.
    """

    name: str
    metavar: str
    help: str
    flag: str = ""


@dataclass(frozen=True)
class Verb:
    """``changes``: it is an order, not a question, so the master logs who gave it.

    ``patience`` is how long the command waits for the answer, in seconds, unless told otherwise.
    ``local`` is a verb of the command only, which asks the master for others, such as ``status``.
    Only such a verb can have ``options``, and with ``rest`` any more words behind them.
    """

    name: str
    help: str
    arguments: tuple[Argument, ...] = ()
    changes: bool = False
    patience: float = AT_ONCE
    local: bool = False
    options: tuple[VerbOption, ...] = ()
    rest: str = ""

    @property
    def synopsis(self) -> str:
        shown = [argument.shown for argument in self.arguments]
        rest = [f"[-- {self.rest}...]"] if self.rest else []
        return " ".join((self.name, *shown, *rest))


_KNOWN_KINDS = f"one of {', '.join(KINDS)}"
_ONE_POOL = Argument("pool", True, "the name of the pool", _pool)
_ANY_POOL = Argument("pool", False, "the name of a pool; all pools when left out", _pool)

VERBS: tuple[Verb, ...] = (
    Verb("status", "Show the master, its pools and what each worker does."),
    Verb(
        "top",
        "Watch the pools in a terminal: requests, memory, queues.",
        local=True,
        options=(
            VerbOption("sort", "ORDER", "Of the workers: slot, time, requests, memory or age."),
            VerbOption("interval", "TIME", "From one look to the next; a second unless given."),
        ),
    ),
    Verb(
        "ping",
        "Ask each pool for a sign of life, through its own sockets.",
        patience=SIGN_OF_LIFE,
        local=True,
    ),
    Verb(
        "reload",
        "Read the configuration again and replace all workers, losing no request.",
        (_ANY_POOL,),
        changes=True,
        patience=AFTER_LOADING,
    ),
    Verb(
        "upgrade",
        "Start the program anew, in whatever version it is now, and let it take over.",
        changes=True,
        patience=AFTER_LOADING,
    ),
    Verb("stop", "Answer what has been accepted or queued, then end.", changes=True, patience=AFTER_LOADING),
    Verb(
        "scale",
        "Set how many workers a pool shall have.",
        (
            _ONE_POOL,
            Argument("workers", True, "their number, or a change: 8, +2, -2", _workers, "N|+N|-N"),
        ),
        changes=True,
    ),
    Verb(
        "recycle",
        "Replace workers by fresh ones, losing no request.",
        (_ANY_POOL, Argument("slot", False, "of that pool, only the worker in this slot", _slot)),
        changes=True,
    ),
    Verb("reopen", "Open the log files again, after they have been rotated.", changes=True),
    Verb(
        "pause",
        "Retire all workers; the sockets stay open, and requests queue up.",
        (_ANY_POOL,),
        changes=True,
    ),
    Verb("resume", "Start the workers again after a pause.", (_ANY_POOL,), changes=True),
    Verb("config", "Show the settings in effect and where each came from."),
    Verb("last-deaths", "Show how the workers that died last came to their end.", (_ANY_POOL,)),
    Verb("leaks", "Show after which kinds of requests workers are larger than before.", (_ANY_POOL,)),
    Verb(
        "doctor",
        "Look at the whole site, and say what is wrong and what mends it.",
        local=True,
        options=(
            VerbOption("url", "URL", "The site as visitors know it, to look at it through the web server."),
            VerbOption("config", "FILE", "Settings of trac-spawn, instead of asking the master.", "-f"),
            VerbOption("web-user", "USER", "The user that the web server runs as."),
            VerbOption("wrapper", "FILE", "A trac.fcgi that Apache's suexec starts."),
            VerbOption("wrapper-user", "USER[:GROUP]", "Whom suexec starts it as."),
            VerbOption("docroot", "DIR", "The folder below which suexec starts programs."),
        ),
        rest="OPTION",
    ),
    Verb(
        "snippet",
        "Print configuration for a web server or an init system, made for a pool.",
        (Argument("kind", True, _KNOWN_KINDS, _kind),),
        local=True,
        options=(
            VerbOption("form", "FORM", "Another way to do it; see the manual."),
            VerbOption("pool", "POOL", "Which pool, where there are several."),
            VerbOption("config", "FILE", "Settings of trac-spawn, instead of asking the master.", "-f"),
            VerbOption("mount", "/PLACE", "Where Trac is in the URLs, / for the whole host."),
            VerbOption("http", "[HOST:]PORT", "Where the web server listens."),
            VerbOption("server-name", "NAME", "The host name of the site."),
            VerbOption("login", "FILE", "Ask for a password at /login; htpasswd has made the file."),
            VerbOption("deployed", "DIR", "Let the web server send static files from here."),
            VerbOption("xsendfile", "", "Let the web server send attachments."),
            VerbOption("wrapper", "PATH", "Where the trac.fcgi is that the web server starts."),
            VerbOption("conf-dir", "DIR", "Where the files are that an init script has instances for."),
            VerbOption("run-dir", "DIR", "Where an init script keeps its pid files."),
        ),
        rest="OPTION",
    ),
)

BY_NAME: Mapping[str, Verb] = {verb.name: verb for verb in VERBS}
#: Those that the master itself answers.
ON_THE_WIRE: Mapping[str, Verb] = {verb.name: verb for verb in VERBS if not verb.local}


def check_request(name: str, given: Mapping[str, object]) -> dict[str, str]:
    """The arguments of a request to the master, as text. Raises ValueError."""
    verb = ON_THE_WIRE.get(name)
    if verb is None:
        raise ValueError(f"there is no verb {name[:40]!r}; known are {', '.join(ON_THE_WIRE)}")
    return check_arguments(verb, given)


def check_arguments(verb: Verb, given: Mapping[str, object]) -> dict[str, str]:
    """The arguments of ``verb``, as text; None counts as not given. Raises ValueError."""
    known = {argument.name for argument in verb.arguments}
    for name in given:
        if name not in known:
            raise ValueError(f"{verb.name}: there is no argument {name!r}")
    checked: dict[str, str] = {}
    left_out = ""
    for argument in verb.arguments:
        value = given.get(argument.name)
        if value is None:
            if argument.required:
                raise ValueError(f"{verb.name}: {argument.name} is missing: {argument.help}")
            left_out = argument.name
        elif left_out:
            raise ValueError(f"{verb.name}: {argument.name} needs {left_out} as well")
        elif isinstance(value, (str, int)) and not isinstance(value, bool):
            try:
                checked[argument.name] = argument.check(str(value))
            except ValueError as error:
                raise ValueError(f"{verb.name}: {argument.name}: {error}") from None
        else:
            raise ValueError(f"{verb.name}: {argument.name}: neither a text nor a whole number")
    return checked


def wanted_workers(text: str, current: int) -> int:
    """What the argument of ``scale`` asks for; may be below zero: the pool judges that."""
    return current + int(text) if text[0] in "+-" else int(text)


def slot_number(arguments: Mapping[str, str]) -> Optional[int]:
    """The slot of ``recycle``, or None."""
    return int(arguments["slot"]) if "slot" in arguments else None

"""Every setting, defined once: name, type, default, help, section, short option.

The fields of ``Settings`` are the table. The command line, the environment, the help text and
the checks of the manual page are made from it, so a setting cannot be known to one of them only.
"""

from __future__ import annotations

import dataclasses
import enum
import os
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping, Optional, Tuple

from spawner import values
from spawner.checks import check_application as check_application
from workers.errors import BootError

if TYPE_CHECKING:
    from spawner.addresses import Address

LISTENING = "Listening"
APPLICATION = "Application"
WORKERS = "Workers"
REQUESTS = "Requests"
PRIVILEGES = "Privileges"
RUNNING = "Running"
GROUPS = (LISTENING, APPLICATION, WORKERS, REQUESTS, PRIVILEGES, RUNNING)

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


class Rank(enum.IntEnum):
    """Where a value can come from; the lowest number wins."""

    COMMAND_LINE = 0
    ENVIRONMENT = 1
    FILE = 2
    DEFAULT = 3

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a value came from; ``name`` is the option, the variable or the place in a file."""

    rank: Rank
    name: str

    def __str__(self) -> str:
        return "default" if self.rank is Rank.DEFAULT else f"{self.rank} {self.name}"


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of the table. ``name`` is the attribute of ``Settings``."""

    name: str
    default: Any
    group: str
    help: str
    flags: Tuple[str, ...] = ()
    parse: Callable[[str], Any] = values.text
    metavar: str = ""
    show: Callable[[Any], str] = str
    default_text: str = ""
    variables_of_trac: Tuple[str, ...] = ()
    choices: Tuple[str, ...] = ()
    many: bool = False

    @property
    def is_switch(self) -> bool:
        return self.parse in (values.boolean, values.negated)

    @property
    def key(self) -> str:
        """The name that people write: 'no_template' for the attribute ``template``."""
        return "no_" + self.name if self.parse is values.negated else self.name

    @property
    def option(self) -> str:
        return "--" + self.key.replace("_", "-")

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


def usable_cpus() -> int:
    return len(os.sched_getaffinity(0))


def _setting(group: str, *flags: str, default: Any = None, **columns: Any) -> Any:
    metadata = {"group": group, "flags": flags, **columns}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _switch(group: str, *flags: str, on: bool = False, **columns: Any) -> Any:
    parse = values.negated if on else values.boolean
    return _setting(group, *flags, default=on, parse=parse, **columns)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the program shall do. Times are seconds, sizes bytes, 0 means never or no limit.

    ``sources`` says for each setting that is not at its default where its value came from.
    """

    socket: Optional[str] = _setting(
        LISTENING, "-s", parse=values.socket_path, metavar="PATH",
        help="Listen on this Unix socket; @NAME is an abstract one.",
    )  # fmt: skip
    address: Optional[str] = _setting(
        LISTENING, "-a", metavar="HOST", default_text="127.0.0.1",
        help="Listen on this IPv4 or IPv6 address; needs --port.",
    )  # fmt: skip
    port: Optional[int] = _setting(
        LISTENING, "-p", parse=values.whole(0, 65535), metavar="PORT",
        help="Listen on this TCP port; 0 lets the kernel choose one.",
    )  # fmt: skip
    listen: Tuple[str, ...] = _setting(
        LISTENING, default=(), parse=values.listener, metavar="ADDRESS", many=True,
        help="Listen here as well: unix:/PATH, unix:@NAME, HOST:PORT, [V6]:PORT or fd://N; may be "
        "repeated (in the variable: separated by spaces).",
    )  # fmt: skip
    backlog: int = _setting(
        LISTENING, "-b", default=2048, parse=values.whole(1, 2**31 - 1), metavar="N",
        help="Connections that may wait to be accepted.",
    )  # fmt: skip
    socket_mode: int = _setting(
        LISTENING, "-M", default=0o660, parse=values.octal, metavar="MODE", show=values.show_octal,
        help="Permissions of Unix sockets, octal.",
    )  # fmt: skip
    socket_user: Optional[str] = _setting(
        LISTENING, "-U", metavar="USER", help="Owner of Unix sockets, a name or a number.",
    )  # fmt: skip
    socket_group: Optional[str] = _setting(
        LISTENING, "-G", metavar="GROUP", help="Group of Unix sockets, a name or a number.",
    )  # fmt: skip

    env: Optional[str] = _setting(
        APPLICATION, parse=values.path, metavar="PATH", variables_of_trac=("TRAC_ENV",),
        help="Serve this Trac environment.",
    )  # fmt: skip
    env_parent_dir: Optional[str] = _setting(
        APPLICATION, parse=values.path, metavar="PATH", variables_of_trac=("TRAC_ENV_PARENT_DIR",),
        help="Serve every Trac environment in this directory.",
    )  # fmt: skip
    app: Optional[str] = _setting(
        APPLICATION, parse=values.callable_name, metavar="MODULE:CALLABLE",
        help="Serve this WSGI application instead of Trac.",
    )  # fmt: skip
    env_index_template: Optional[str] = _setting(
        APPLICATION, parse=values.path, metavar="FILE",
        variables_of_trac=("TRAC_ENV_INDEX_TEMPLATE",),
        help="Template of the project list of --env-parent-dir.",
    )  # fmt: skip
    template_vars: Optional[str] = _setting(
        APPLICATION, parse=values.template_variables, metavar="NAME=VALUE,...",
        variables_of_trac=("TRAC_TEMPLATE_VARS",),
        help="Variables for the template of the project list.",
    )  # fmt: skip
    base_url: Optional[str] = _setting(
        APPLICATION, metavar="URL", variables_of_trac=("TRAC_BASE_URL",),
        help="URL of the site as visitors see it.",
    )  # fmt: skip

    workers: int = _setting(
        WORKERS, "-n", "-F", default=lambda: usable_cpus() + 1, parse=values.whole(1, 2048),
        metavar="N", default_text="usable CPUs + 1", help="Worker processes.",
    )  # fmt: skip
    max_requests: int = _setting(
        WORKERS, default=0, parse=values.whole(0), metavar="N", default_text="0, never",
        help="Replace a worker after this many requests.",
    )  # fmt: skip
    max_requests_jitter: float = _setting(
        WORKERS, default=0.10, parse=values.share, metavar="SHARE", show=values.show_share,
        help="Vary --max-requests by up to this share, so that workers do not retire together.",
    )  # fmt: skip
    max_memory: int = _setting(
        WORKERS, default=0, parse=values.size, metavar="SIZE", default_text="0, never",
        help="Replace a worker that has more private memory after a request (500M, 1.5G).",
    )  # fmt: skip
    hard_memory: int = _setting(
        WORKERS, default=0, parse=values.size, metavar="SIZE", default_text="0, never",
        help="Replace a worker that has more private memory at once, even during a request.",
    )  # fmt: skip
    max_age: float = _setting(
        WORKERS, default=0.0, parse=values.duration, metavar="TIME", default_text="0, never",
        help="Replace a worker that is older (30s, 10m, 2h, 1d).",
    )  # fmt: skip
    template: bool = _switch(
        WORKERS, on=True,
        help="Let each worker load the application by itself, instead of loading it once in a "
        "process from which they are forked.",
    )  # fmt: skip

    max_body: int = _setting(
        # As Apache's LimitRequestBody: above any attachment, yet the disk that holds the body
        # while it arrives cannot be filled by one visitor.
        REQUESTS, default=1 << 30, parse=values.size, metavar="SIZE", show=values.show_size,
        help="Largest request body; a larger one is answered with 413; 0 for no limit.",
    )  # fmt: skip
    receive_timeout: float = _setting(
        REQUESTS, default=60.0, parse=values.timeout, metavar="TIME", show=values.show_duration,
        help="Time for the web server to deliver a whole request.",
    )  # fmt: skip
    keep_alive_timeout: float = _setting(
        REQUESTS, default=60.0, parse=values.timeout, metavar="TIME", show=values.show_duration,
        help="Close a kept-open connection that has been idle for this long.",
    )  # fmt: skip

    user: Optional[str] = _setting(
        PRIVILEGES, "-u", metavar="USER",
        help="Run the application as this user, a name or a number (root only).",
    )  # fmt: skip
    group: Optional[str] = _setting(
        PRIVILEGES, "-g", metavar="GROUP", default_text="that of the user",
        help="Run the application with this group, a name or a number (root only).",
    )  # fmt: skip
    chroot: Optional[str] = _setting(
        PRIVILEGES, "-c", parse=values.path, metavar="DIR",
        help="Confine the application to this directory (root only).",
    )  # fmt: skip
    chdir: Optional[str] = _setting(
        PRIVILEGES, "-d", parse=values.path, metavar="DIR",
        help="Run the application in this directory.",
    )  # fmt: skip
    umask: Optional[int] = _setting(
        PRIVILEGES, parse=values.octal, metavar="MODE", show=values.show_octal,
        help="File mode creation mask of the application, octal.",
    )  # fmt: skip
    rlimit_files: Optional[int] = _setting(
        PRIVILEGES, parse=values.limit, metavar="N", help="Open files of a process, or unlimited.",
    )  # fmt: skip
    rlimit_core: Optional[int] = _setting(
        PRIVILEGES, parse=values.size_limit, metavar="SIZE",
        help="Size of a core dump, or unlimited.",
    )  # fmt: skip

    daemonize: bool = _switch(
        RUNNING, "-D", help="Go to the background once the workers are ready.",
    )  # fmt: skip
    pidfile: Optional[str] = _setting(
        RUNNING, "-P", parse=values.path, metavar="FILE", help="Write the process id here.",
    )  # fmt: skip
    log_file: Optional[str] = _setting(
        RUNNING, parse=values.path, metavar="FILE",
        default_text="standard error, or syslog with -D",
        help="Log to this file; USR1 reopens it.",
    )  # fmt: skip
    log_level: str = _setting(
        RUNNING, default="info", parse=values.one_of(*LOG_LEVELS), metavar="LEVEL",
        choices=LOG_LEVELS, help="Least severity that is logged: " + ", ".join(LOG_LEVELS) + ".",
    )  # fmt: skip
    stop_timeout: float = _setting(
        RUNNING, default=30.0, parse=values.duration, metavar="TIME", show=values.show_duration,
        help="Time for running requests to finish when stopping; then workers are killed.",
    )  # fmt: skip
    debug: bool = _switch(RUNNING, help="Show the traceback of an error at start-up.")
    check: bool = _switch(RUNNING, help="Check the configuration and exit.")
    demo: bool = _switch(
        RUNNING, help="Create a Trac environment to try out and show it on a local web page.",
    )  # fmt: skip

    sources: Mapping[str, Source] = dataclasses.field(default_factory=dict, compare=False)

    def source(self, name: str) -> Source:
        """Where the value of the setting ``name`` came from."""
        return self.sources.get(name, Source(Rank.DEFAULT, BY_NAME[name].option))

    def listeners(self) -> Tuple[Address, ...]:
        """All addresses to listen on, -s or -a/-p first.

        Raises BootError (EX_USAGE), naming the option or variable, for text that is no address.
        """
        from spawner.addresses import parse_address  # not needed for --version

        addresses = []
        for name, text in self._listening_texts():
            try:
                addresses.append(parse_address(text))
            except ValueError as error:
                raise BootError(f"{self.source(name).name}: {error}", os.EX_USAGE) from None
        return tuple(addresses)

    def _listening_texts(self) -> Iterable[Tuple[str, str]]:
        if self.socket is not None:
            yield "socket", "unix:" + self.socket
        if self.port is not None:
            host = self.address or "127.0.0.1"
            yield "port", f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        for text in self.listen:
            yield "listen", text


SETTINGS = tuple(
    Setting(
        name=field.name,
        default=field.default_factory()
        if field.default_factory is not dataclasses.MISSING
        else field.default,
        **field.metadata,
    )
    for field in dataclasses.fields(Settings)
    if field.metadata
)
BY_NAME = {setting.name: setting for setting in SETTINGS}

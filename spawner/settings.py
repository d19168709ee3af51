"""Every setting, defined once: name, type, default, help, section, scope, short option.

The fields of ``Settings`` are the table. The command line, the environment, the configuration
file, the help text and the checks of the manual pages are made from it, so a setting cannot be
known to one of them only.
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import TYPE_CHECKING, Any, Iterable, Mapping, Optional, Tuple

from spawner import values
from spawner.setting import Rank, Scope, Setting, Source
from workers.errors import BootError

if TYPE_CHECKING:
    from spawner.addresses import Address

LISTENING = "Listening"
APPLICATION = "Application"
WORKERS = "Workers"
REQUESTS = "Requests"
MONITORING = "Monitoring"
PRIVILEGES = "Privileges"
RUNNING = "Running"
GROUPS = (LISTENING, APPLICATION, WORKERS, REQUESTS, MONITORING, PRIVILEGES, RUNNING)

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS = ("text", "json")
ERROR_TARGETS = ("web-server", "log", "both")
PROCESS_MANAGERS = ("static", "dynamic", "ondemand")  # php-fpm's words
TRUST = ("always", "auth-type", "never")
DEFAULT_POOL = "trac"


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
    """What one pool, or the master, shall do. Times are seconds, sizes bytes, 0 means never or
    no limit. ``sources`` says for each value that is not a default where it came from.
    """

    socket: Optional[str] = _setting(
        LISTENING, "-s", scope=Scope.SINGLE_POOL, parse=values.socket_path, metavar="PATH",
        help="Listen on this Unix socket; @NAME is an abstract one.",
    )  # fmt: skip
    address: Optional[str] = _setting(
        LISTENING, "-a", scope=Scope.SINGLE_POOL, metavar="HOST", default_text="127.0.0.1",
        help="Listen on this IPv4 or IPv6 address; needs --port.",
    )  # fmt: skip
    port: Optional[int] = _setting(
        LISTENING, "-p", scope=Scope.SINGLE_POOL, parse=values.whole(0, 65535), metavar="PORT",
        help="Listen on this TCP port; 0 lets the kernel choose one.",
    )  # fmt: skip
    listen: Tuple[str, ...] = _setting(
        LISTENING, default=(), parse=values.listener, metavar="ADDRESS", many=True,
        scope=Scope.SINGLE_POOL,
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

    allow: Tuple[str, ...] = _setting(
        LISTENING, default=(), parse=values.network, metavar="ADDRESS", many=True,
        variables_of_trac=("FCGI_WEB_SERVER_ADDRS",),
        help="Over TCP, let only this address or network connect (192.0.2.7, 192.0.2.0/24, "
        "2001:db8::/32); may be repeated (in the variable: separated by spaces).",
    )  # fmt: skip
    allow_user: Tuple[str, ...] = _setting(
        LISTENING, default=(), metavar="USER", many=True,
        help="On Unix sockets, let only this user connect; may be repeated.",
    )  # fmt: skip
    allow_group: Tuple[str, ...] = _setting(
        LISTENING, default=(), metavar="GROUP", many=True,
        help="On Unix sockets, let only members of this group connect; may be repeated.",
    )  # fmt: skip

    env: Optional[str] = _setting(
        APPLICATION, parse=values.path, metavar="PATH", variables_of_trac=("TRAC_ENV",),
        scope=Scope.SINGLE_POOL,
        help="Serve this Trac environment.",
    )  # fmt: skip
    env_parent_dir: Optional[str] = _setting(
        APPLICATION, parse=values.path, metavar="PATH", variables_of_trac=("TRAC_ENV_PARENT_DIR",),
        scope=Scope.SINGLE_POOL,
        help="Serve every Trac environment in this directory.",
    )  # fmt: skip
    app: Optional[str] = _setting(
        APPLICATION, scope=Scope.SINGLE_POOL, parse=values.callable_name, metavar="MODULE:CALLABLE",
        help="Serve this WSGI application instead of Trac.",
    )  # fmt: skip
    env_from_params: Tuple[str, ...] = _setting(
        APPLICATION, default=(), parse=values.path, metavar="DIR", many=True,
        help="Let the web server name a Trac environment in this directory for each request, as the "
        "FastCGI parameter TRAC_ENV or TRAC_ENV_PARENT_DIR; may be repeated.",
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
        APPLICATION, scope=Scope.SINGLE_POOL, metavar="URL", variables_of_trac=("TRAC_BASE_URL",),
        help="URL of the site as visitors see it.",
    )  # fmt: skip
    script_name: Optional[str] = _setting(
        APPLICATION, parse=values.script_name, metavar="/PLACE", may_be_empty=True,
        show=values.show_script_name, default_text="what the web server says",
        help="Where the web server has put the application, / for the root: SCRIPT_NAME and "
        "PATH_INFO are then made from REQUEST_URI.",
    )  # fmt: skip
    trust_remote_user: str = _setting(
        APPLICATION, default="always", parse=values.one_of(*TRUST), metavar="WHEN", choices=TRUST,
        help="Believe the web server's REMOTE_USER: always, where there is an AUTH_TYPE, or never.",
    )  # fmt: skip
    warmup: Tuple[str, ...] = _setting(
        APPLICATION, default=(), parse=values.url_path, metavar="/PAGE", many=True,
        help="Request this page before visitors do, to fill caches; may be repeated (in the "
        "variable: separated by spaces).",
    )  # fmt: skip
    warmup_strict: bool = _switch(
        APPLICATION, help="Refuse to serve when a page of --warmup fails.",
    )  # fmt: skip
    static_files: bool = _switch(
        APPLICATION, on=True,
        help="Let Trac itself send the files of /chrome, with all that it does for a page.",
    )  # fmt: skip
    accelerate: bool = _switch(
        APPLICATION, on=True,
        help="Leave Trac as it is: replace no part of it by a faster one that comes to the same.",
    )  # fmt: skip
    clear_env: bool = _switch(
        APPLICATION, help="Keep the environment variables of the master from the application.",
    )  # fmt: skip

    workers: int = _setting(
        WORKERS, "-n", "-F", default=lambda: usable_cpus() + 1, parse=values.whole(1, 2048),
        metavar="N", default_text="usable CPUs + 1", help="Worker processes.",
    )  # fmt: skip
    pm: str = _setting(
        WORKERS, default="static", parse=values.one_of(*PROCESS_MANAGERS), metavar="KIND",
        choices=PROCESS_MANAGERS,
        help="How the number of workers follows the load: static is always --workers; dynamic "
        "keeps spare ones; ondemand starts one when a request comes.",
    )  # fmt: skip
    # 0 in the next four: to be derived, by ``spawner.sizes``.
    max_workers: int = _setting(
        WORKERS, default=0, parse=values.whole(1, 2048), metavar="N", default_text="--workers",
        help="Most workers that dynamic and ondemand start.",
    )  # fmt: skip
    start_workers: int = _setting(
        WORKERS, default=0, parse=values.whole(1, 2048), metavar="N",
        default_text="midway between --min-spare and --max-spare",
        help="Workers that dynamic starts with.",
    )  # fmt: skip
    min_spare: int = _setting(
        WORKERS, default=0, parse=values.whole(1, 2048), metavar="N",
        default_text="a quarter of --max-workers", help="Fewest idle workers that dynamic keeps.",
    )  # fmt: skip
    max_spare: int = _setting(
        WORKERS, default=0, parse=values.whole(1, 2048), metavar="N",
        default_text="half of --max-workers", help="Most idle workers that dynamic keeps.",
    )  # fmt: skip
    idle_timeout: float = _setting(
        WORKERS, default=10.0, parse=values.timeout, metavar="TIME", show=values.show_duration,
        help="Idle time after which ondemand ends a worker.",
    )  # fmt: skip
    max_surge: int = _setting(
        WORKERS, default=1, parse=values.whole(1, 2048), metavar="N",
        help="Workers beyond their number while others are being replaced.",
    )  # fmt: skip
    startup_timeout: float = _setting(
        WORKERS, default=60.0, parse=values.duration, metavar="TIME", show=values.show_duration,
        help="Time for loading the application, and for a worker to become ready; 0 for no limit.",
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
    pool_memory: int = _setting(
        WORKERS, default=0, parse=values.size, metavar="SIZE", default_text="0, no limit",
        help="Memory of all workers together beyond which the largest idle one is replaced and "
        "none is added.",
    )  # fmt: skip
    max_age: float = _setting(
        WORKERS, default=0.0, parse=values.duration, metavar="TIME", default_text="0, never",
        help="Replace a worker that is older (30s, 10m, 2h, 1d).",
    )  # fmt: skip
    gc_freezes: int = _setting(
        WORKERS, default=16, parse=values.whole(0), metavar="N",
        help="How often a worker may exempt what its requests have left in memory from garbage "
        "collection; 0 for never.",
    )  # fmt: skip
    ksm: bool = _switch(
        WORKERS,
        help="Let the kernel share pages again that have become equal, where its KSM runs.",
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
        REQUESTS, default=75.0, parse=values.timeout, metavar="TIME", show=values.show_duration,
        help="Close a kept-open connection that has been idle for this long.",
    )  # fmt: skip

    request_timeout: float = _setting(
        REQUESTS, default=0.0, parse=values.duration, metavar="TIME", default_text="0, never",
        help="Interrupt a request that takes longer, log its stack and replace the worker.",
    )  # fmt: skip
    kill_after: float = _setting(
        REQUESTS, default=5.0, parse=values.timeout, metavar="TIME", show=values.show_duration,
        help="Kill a worker that --request-timeout has interrupted in vain, or that is stopped by a "
        "signal, for this long.",
    )  # fmt: skip
    slow_after: float = _setting(
        REQUESTS, default=0.0, parse=values.duration, metavar="TIME", default_text="0, never",
        help="Log the stack of a request that takes longer, and let it go on.",
    )  # fmt: skip
    slow_log: Optional[str] = _setting(
        REQUESTS, parse=values.path, metavar="FILE", default_text="the ordinary log",
        help="Write what --slow-after finds to this file.",
    )  # fmt: skip

    access_log: Optional[str] = _setting(
        MONITORING, parse=values.log_target, metavar="FILE",
        help="Write a line for each request to this file, to syslog, or with - to standard output.",
    )  # fmt: skip
    access_format: str = _setting(
        MONITORING, default="combined", parse=values.access_format, metavar="FORMAT",
        help="Of those lines: combined, json, or php-fpm's directives.",
    )  # fmt: skip
    access_suppress: Tuple[str, ...] = _setting(
        MONITORING, default=(), parse=values.url_path, metavar="/PATH", many=True,
        help="Write no line for a mere GET of this path that succeeds; may be repeated (in the "
        "variable: separated by spaces).",
    )  # fmt: skip
    status_path: Optional[str] = _setting(
        MONITORING, parse=values.url_path, metavar="/PATH",
        help="Answer requests for this path with the pool's status, as php-fpm's status page.",
    )  # fmt: skip
    status_listen: Optional[str] = _setting(
        MONITORING, scope=Scope.MASTER, parse=values.listener, metavar="ADDRESS",
        help="Answer --status-path and --ping-path here too, apart from the pools, also when all "
        "workers are busy.",
    )  # fmt: skip
    metrics: Optional[str] = _setting(
        MONITORING, scope=Scope.MASTER, parse=values.listener, metavar="ADDRESS",
        help="Answer HTTP requests here: /metrics for Prometheus, and a page for people.",
    )  # fmt: skip
    ping_path: Optional[str] = _setting(
        MONITORING, parse=values.url_path, metavar="/PATH",
        help="Answer requests for this path with --ping-response.",
    )  # fmt: skip
    ping_response: str = _setting(
        MONITORING, default="pong", metavar="TEXT", help="What --ping-path answers.",
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
        PRIVILEGES, parse=values.limit, metavar="N", show=values.show_limit,
        scope=Scope.MASTER,
        help="Open files of a process, or unlimited.",
    )  # fmt: skip
    rlimit_core: Optional[int] = _setting(
        PRIVILEGES, parse=values.size_limit, metavar="SIZE", show=values.show_size_limit,
        scope=Scope.MASTER,
        help="Size of a core dump, or unlimited.",
    )  # fmt: skip

    config: Optional[str] = _setting(
        RUNNING, "-f", scope=Scope.COMMAND, parse=values.path, metavar="FILE",
        help="Read settings from this file, described in trac-spawn.conf(5).",
    )  # fmt: skip
    daemonize: bool = _switch(
        RUNNING, "-D", scope=Scope.MASTER, help="Go to the background once the workers are ready.",
    )  # fmt: skip
    pidfile: Optional[str] = _setting(
        RUNNING, "-P", parse=values.path, metavar="FILE",
        scope=Scope.MASTER,
        help="Write the process id here.",
    )  # fmt: skip
    log_file: Optional[str] = _setting(
        RUNNING, scope=Scope.MASTER, parse=values.log_target, metavar="FILE",
        default_text="standard error, or syslog with -D",
        help="Log to this file, to syslog, or with - to standard error; USR1 reopens it.",
    )  # fmt: skip
    log_format: str = _setting(
        RUNNING, default="text", parse=values.one_of(*LOG_FORMATS), metavar="FORMAT",
        scope=Scope.MASTER, choices=LOG_FORMATS,
        help="Lines of the log: text, or json, an object a line.",
    )  # fmt: skip
    capture_output: bool = _switch(
        RUNNING, help="Log what workers write to standard output and error, with who said it.",
    )  # fmt: skip
    wsgi_errors: str = _setting(
        RUNNING, default="web-server", parse=values.one_of(*ERROR_TARGETS), metavar="WHERE",
        choices=ERROR_TARGETS,
        help="Where what the application writes to wsgi.errors goes: to the web server's error log, "
        "to this program's log, or both.",
    )  # fmt: skip
    log_level: str = _setting(
        RUNNING, default="info", parse=values.one_of(*LOG_LEVELS), metavar="LEVEL",
        scope=Scope.MASTER,
        choices=LOG_LEVELS, help="Least severity that is logged: " + ", ".join(LOG_LEVELS) + ".",
    )  # fmt: skip
    control: Optional[str] = _setting(
        RUNNING, scope=Scope.MASTER, parse=values.path, metavar="PATH",
        default_text="beside the pid file, or in the runtime folder",
        help="Unix socket on which trac-spawnctl talks to the master.",
    )  # fmt: skip
    watch: bool = _switch(
        RUNNING, help="Reload when code, plugins, trac.ini or templates change.",
    )  # fmt: skip
    stop_timeout: float = _setting(
        RUNNING, default=30.0, parse=values.duration, metavar="TIME", show=values.show_duration,
        scope=Scope.MASTER,
        help="Time for running requests to finish when stopping; then workers are killed.",
    )  # fmt: skip
    debug: bool = _switch(RUNNING,
        scope=Scope.MASTER,
        help="Show the traceback of an error at start-up.")
    check: bool = _switch(RUNNING, scope=Scope.COMMAND, help="Check the configuration and exit.")
    print_config: bool = _switch(
        RUNNING, scope=Scope.COMMAND,
        help="Print the settings in force, and where each came from, as a file for -f; and exit.",
    )  # fmt: skip
    demo: bool = _switch(
        RUNNING,
        scope=Scope.COMMAND,
        help="Create a Trac environment to try out and show it on a local web page.",
    )  # fmt: skip

    #: Of the pool; what a file's section [pool NAME] says.
    name: str = DEFAULT_POOL
    #: The env[NAME] lines of a file, for the application.
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    sources: Mapping[str, Source] = dataclasses.field(default_factory=dict, compare=False)

    def source(self, name: str) -> Source:
        """Where the value of the setting ``name`` came from."""
        return self.sources.get(name, Source(Rank.DEFAULT, BY_NAME[name].option))

    def blame(self, message: str) -> str:
        """``message`` with the variable or line in place of a leading option, if that said it.

        Who looks at one value, such as a user's name, cannot know who gave it and names the option.
        """
        match = re.match("--([a-z-]+)(?=[: ])", message)
        name = match[1].replace("-", "_") if match else ""
        if match is None or name not in self.sources:
            return message
        return self.source(name).name + message[match.end() :]

    def listeners(self) -> Tuple[Address, ...]:
        """All addresses to listen on, -s or -a/-p first.

        Raises BootError (EX_USAGE), naming the option or variable, for text that is no address.
        """
        return tuple(address for _, address in self.named_listeners())

    def named_listeners(self) -> Tuple[Tuple[Source, Address], ...]:
        """As ``listeners``, each with where it was said."""
        from spawner.addresses import parse_address  # not needed for --version

        found = []
        for name, text in self._listening_texts():
            source = self.source(name)
            try:
                found.append((source, parse_address(text)))
            except ValueError as error:
                raise BootError(f"{source.name}: {error}", os.EX_USAGE) from None
        return tuple(found)

    def _listening_texts(self) -> Iterable[Tuple[str, str]]:
        if self.socket is not None:
            yield "socket", "unix:" + self.socket
        if self.port is not None:
            host = self.address or "127.0.0.1"
            yield "port", f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        for text in self.listen:
            yield "listen", text


#: Every row, by the name of the attribute.
BY_NAME = {
    field.name: Setting(
        name=field.name,
        default=field.default_factory()
        if field.default_factory is not dataclasses.MISSING
        else field.default,
        **field.metadata,
    )
    for field in dataclasses.fields(Settings)
    if field.metadata
}
#: What people can give.
SETTINGS = tuple(BY_NAME.values())

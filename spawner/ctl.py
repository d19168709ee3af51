"""The command trac-spawnctl: a verb to a request, the answer to text and an exit status."""

from __future__ import annotations

import difflib
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Callable, List, Mapping, NoReturn, Optional, Sequence, Tuple

import click

from spawner import __version__, report, verbs, wire
from spawner.addresses import parse_address
from spawner.asking import TIMEOUTS, ask, find_control, knock, occupation
from spawner.status import Pong, PoolStatus, Status
from spawner.values import timeout as parse_timeout
from spawner.verbs import VERBS, Verb
from workers.errors import BootError
from workers.fastcgi.records import RemoteProtocolError
from workers.text import printable

PROGRAM = "trac-spawnctl"
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


@dataclass
class Options:
    """What can stand before the verb or behind it."""

    control: Optional[str] = None
    as_json: bool = False
    timeout: Optional[float] = None

    def update(self, control: Optional[str], as_json: bool, timeout: Optional[str]) -> None:
        self.control = control or self.control
        self.as_json = as_json or self.as_json
        if timeout is not None:
            try:
                self.timeout = parse_timeout(timeout)
            except ValueError as error:
                raise click.UsageError(f"--timeout: {error}") from None


@dataclass
class Order:
    """A command line, understood."""

    verb: Verb
    arguments: dict[str, str]
    options: Options = field(default_factory=Options)
    #: Of the verb's own options, those that were given.
    own: dict[str, Any] = field(default_factory=dict)
    rest: Tuple[str, ...] = ()

    @property
    def patience(self) -> float:
        return self.options.timeout or self.verb.patience


# -- the command line ----------------------------------------------------------------------------


def _options(patience: str) -> List[click.Parameter]:
    return [
        click.Option(
            ["-s", "--control"],
            metavar="PATH",
            type=click.Path(readable=False),  # the socket itself says who may
            help="The control socket of the master.  [TRAC_SPAWN_CONTROL]",
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Print the answer as a line of JSON."),
        click.Option(
            ["--timeout"],
            metavar="TIME",
            help=f"How long to wait for the answer.  [default: {patience}]",
        ),
    ]


def _own_options(verb: Verb) -> List[click.Parameter]:
    return [
        click.Option(
            [f"--{one.name}", *filter(None, [one.flag])],
            metavar=one.metavar or None,
            type=click.Path() if one.metavar in ("FILE", "DIR") else str if one.metavar else None,
            is_flag=not one.metavar,
            default=None,
            help=one.help,
        )
        for one in verb.options
    ]


class _VerbCommand(click.Command):
    """One row of the table as a command of click's."""

    def __init__(self, verb: Verb) -> None:
        self.verb = verb
        arguments: List[click.Parameter] = [
            click.Argument([argument.name], required=argument.required, metavar=argument.shown)
            for argument in verb.arguments
        ]
        if verb.rest:
            rest = click.Argument(["rest"], nargs=-1, metavar=f"[-- {verb.rest}...]", required=False)
            arguments.append(rest)
        # The -2 of "scale trac -2" looks like an option. Only there, or typing errors would pass.
        lenient = any(argument.name == "workers" for argument in verb.arguments)
        super().__init__(
            verb.name,
            params=arguments + _own_options(verb) + _options(f"{verb.patience:g}s"),
            callback=self._understand,
            help=verb.help,
            context_settings={**HELP_OPTIONS, "ignore_unknown_options": lenient},
        )

    def _understand(
        self,
        control: Optional[str],
        as_json: bool,
        timeout: Optional[str],
        rest: Tuple[str, ...] = (),
        **given: Optional[str],
    ) -> Order:
        options = click.get_current_context().obj
        options.update(control, as_json, timeout)
        named = {one.name: given.pop(one.name.replace("-", "_")) for one in self.verb.options}
        own = {name: value for name, value in named.items() if value is not None}
        try:
            return Order(self.verb, verbs.check_arguments(self.verb, given), options, own, rest)
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.verb.arguments:
            with formatter.section("Arguments"):
                formatter.write_dl([(one.shown, one.help) for one in self.verb.arguments])
        super().format_options(ctx, formatter)


_KNOWN = f"known are {', '.join(verb.name for verb in VERBS)}"


class _Verbs(click.Group):
    """All rows of the table."""

    def parse_args(self, ctx: click.Context, args: List[str]) -> List[str]:
        if not (args or ctx.resilient_parsing):
            raise click.UsageError(f"which verb? {_KNOWN}; --help says more")
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: List[str]
    ) -> Tuple[Optional[str], Optional[click.Command], List[str]]:
        name = args[0]
        if name not in self.commands and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, list(self.commands), 1)
            hint = f"did you mean {near[0]!r}?" if near else _KNOWN
            raise click.UsageError(f"there is no verb {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb.synopsis, verb.help) for verb in VERBS])

    def list_commands(self, ctx: click.Context) -> List[str]:
        return list(self.commands)


def _print_version(ctx: click.Context, param: click.Parameter, given: bool) -> None:
    if given and not ctx.resilient_parsing:
        click.echo(f"{PROGRAM} {__version__}")
        ctx.exit()


@click.group(
    cls=_Verbs,
    no_args_is_help=False,
    context_settings=HELP_OPTIONS,
    subcommand_metavar="VERB [ARGUMENT]...",
    epilog="See trac-spawnctl(8).",
)
@click.option(
    "--version", "-V", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Show the version and exit.",
)  # fmt: skip
@click.pass_context
def command(ctx: click.Context, control: Optional[str], as_json: bool, timeout: Optional[str]) -> None:
    """Tell a running trac-spawn what to do, or ask it how it is.

    For example: trac-spawnctl status
    """
    ctx.obj = Options()
    ctx.obj.update(control, as_json, timeout)


# As an argument of the decorator, click 8.0 does not take them.
command.params[:0] = _options("as the verb needs it")
for _verb in VERBS:
    command.add_command(_VerbCommand(_verb))


# -- asking the pools ----------------------------------------------------------------------------


def ping(path: str, timeout: float) -> dict[str, List[Pong]]:
    """Ask every address of every pool, one after the other. Raises BootError."""
    status: Status = ask(path, "status", {}, verbs.AT_ONCE)
    return {
        "addresses": [
            _ping(pool, address["address"], timeout)
            for pool in status["pools"]
            for address in pool["addresses"]
        ]
    }


def _ping(pool: PoolStatus, address: str, timeout: float) -> Pong:
    start = time.monotonic()
    error = None
    try:
        knock(parse_address(address), timeout)
    except TIMEOUTS:
        error = f"no answer within {timeout:g} seconds: {occupation(pool)}"
    except (OSError, ValueError, RemoteProtocolError) as problem:
        error = getattr(problem, "strerror", None) or str(problem)
    answer = None if error else time.monotonic() - start
    return {"pool": pool["name"], "address": address, "answer_s": answer, "error": error}


# -- each verb's result and exit status ----------------------------------------------------------


def _ask(order: Order) -> Tuple[Any, int]:
    path = find_control(order.options.control)
    return ask(path, order.verb.name, order.arguments, order.patience), os.EX_OK


def _ping_all(order: Order) -> Tuple[Any, int]:
    result = ping(find_control(order.options.control), order.patience)
    answered = all(pong["error"] is None for pong in result["addresses"])
    return result, os.EX_OK if answered and result["addresses"] else os.EX_UNAVAILABLE


def _watch(order: Order) -> Tuple[Any, int]:
    # Only here: the other verbs do not need rich.
    from spawner import top

    path = find_control(order.options.control)
    sort = order.own.get("sort", "slot")
    if sort not in top.SORTS:
        raise BootError(f"top: --sort: {sort!r} is not one of {', '.join(top.SORTS)}", os.EX_USAGE)
    try:
        interval = parse_timeout(order.own.get("interval", "1s"))
    except ValueError as error:
        raise BootError(f"top: --interval: {error}", os.EX_USAGE) from None

    def look() -> Status:
        status: Status = ask(path, "status", {}, order.patience)
        for pool in status["pools"]:
            pool["workers"].sort(key=top.SORTS[sort])
        return status

    if order.options.as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return look(), os.EX_OK
    return top.watch(look, sort, interval), os.EX_OK


def _examine(order: Order) -> Tuple[Any, int]:
    # Only here: the other verbs need nothing of all that it looks at.
    from spawner.doctor import examination, site

    own = {name.replace("-", "_"): value for name, value in order.own.items()}
    file = own.pop("config", None)
    wish = site.Wish(**own, timeout=order.patience)
    return examination.run(wish, order.options.control, file, order.rest)


def _print_snippet(order: Order) -> Tuple[Any, int]:
    # Only here: the other verbs need neither the options of trac-spawn nor Jinja.
    from spawner.snippets import order as snippets

    own = {name.replace("-", "_"): value for name, value in order.own.items()}
    origin = snippets.Origin(
        own.pop("pool", None), own.pop("config", None), order.rest, order.options.control, order.patience
    )
    return {"text": snippets.text_for(order.arguments["kind"], origin, **own)}, os.EX_OK


#: What the command finds out by itself.
_LOCAL: Mapping[str, Callable[[Order], Tuple[Any, int]]] = {
    "top": _watch,
    "ping": _ping_all,
    "doctor": _examine,
    "snippet": _print_snippet,
}


# -- the program ---------------------------------------------------------------------------------


def carry_out(order: Order) -> int:
    """The exit status. Raises BootError."""
    result, status = _LOCAL.get(order.verb.name, _ask)(order)
    if order.options.as_json:
        sys.stdout.write(wire.success(result).decode())
        return status
    try:
        lines = list(report.REPORTS[order.verb.name](result))
    except (KeyError, TypeError, AttributeError) as error:
        raise BootError(
            f"the answer is not one that {PROGRAM} {__version__} understands; --json shows it",
            os.EX_PROTOCOL,
        ) from error
    for line in lines:
        click.echo(printable(line))
    return status


def run(arguments: Sequence[str]) -> int:
    """The exit status of ``trac-spawnctl ARGUMENTS``."""
    order = None
    try:
        order = command.main(list(arguments), prog_name=PROGRAM, standalone_mode=False)
        # After --help and --version it is an exit status.
        status = carry_out(order) if isinstance(order, Order) else order or os.EX_OK
        sys.stdout.flush()
        return status
    except click.ClickException as error:
        return _complain(error.format_message(), os.EX_USAGE)
    except (click.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has seen enough; what is left must not be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except BootError as error:
        if isinstance(order, Order) and order.options.as_json:
            answer = wire.failure(str(error), error.traceback, error.exit_code)
            sys.stdout.write(answer.decode())
            return error.exit_code
        for line in error.traceback.splitlines():
            click.echo(printable(line), err=True)
        return _complain(str(error), error.exit_code)


def _complain(message: str, status: int) -> int:
    click.echo(f"{PROGRAM}: {printable(' '.join(message.splitlines()))}", err=True)
    return status


def main() -> NoReturn:
    sys.exit(run(sys.argv[1:]))

"""The command trac-spawn: options to a ``Configuration``, errors to one line and an exit status."""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Any, Iterator, List, NoReturn, Optional, Sequence, Tuple, Union

import click
from click.types import StringParamType

from spawner import HANDOVER, __version__
from spawner.setting import Setting
from spawner.settings import BY_NAME, GROUPS, SETTINGS
from workers.errors import BootError

if TYPE_CHECKING:
    from spawner.configuration import Configuration
    from spawner.predecessor import Predecessor

PROGRAM = "trac-spawn"

# spawn-fcgi's -n takes no number and means "do not fork": its users meet this first.
WORKERS_NEED_A_NUMBER = (
    "-n takes a number here, that of the workers, as in -n 8; "
    f"{PROGRAM} already stays in the foreground unless -D is given"
)


class SettingOption(click.Option):
    """An option made from a row of the table. The text is left as it is: ``resolve`` reads it,
    the same way as a variable's or a file's."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        name = setting.option
        if setting.is_switch:
            name += "/" + setting.opposite
        super().__init__(
            [setting.key, name, *setting.flags],
            default=() if setting.many else None,
            is_flag=setting.is_switch,
            multiple=setting.many,
            metavar=setting.metavar or None,
            type=None if setting.is_switch else _type(setting),
        )

    def get_help_record(self, ctx: click.Context) -> Tuple[str, str]:
        setting = self.setting
        names = ", ".join((*setting.flags, setting.option))
        notes = [setting.describe_default(), *setting.variables]
        notes[0] = f"default: {notes[0]}" if notes[0] else ""
        return f"{names} {setting.metavar}".strip(), (
            f"{setting.help}  [{'; '.join(note for note in notes if note)}]"
        )


class _Words(StringParamType):
    """Free text as far as click is concerned, with words that a shell can complete."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> List[Any]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(word) for word in self._words if word.startswith(incomplete)]


def _type(setting: Setting) -> Union[click.Path, _Words]:
    if setting.metavar in ("PATH", "FILE"):
        # Whether it can be read is told where it is: a socket of another user's can be named.
        return click.Path(readable=False)
    if setting.metavar == "DIR":
        return click.Path(file_okay=False)
    return _Words(setting.choices)


def _lacks_number(arguments: Sequence[str]) -> bool:
    """Whether -n stands alone or in a bundle of letters; asked only when parsing failed."""
    following = (*arguments[1:], "")
    return any(
        re.match("-n[a-zA-Z]|-[a-zA-Z]+n$", argument) or (argument == "-n" and not after[:1].isdigit())
        for argument, after in zip(arguments, following)
    )


class Command(click.Command):
    """Help in sections, and -n as spawn-fcgi's users know it."""

    def parse_args(self, ctx: click.Context, args: List[str]) -> List[str]:
        typed = tuple(args)
        try:
            rest = super().parse_args(ctx, args)
        except click.UsageError:
            if _lacks_number(typed):
                raise click.UsageError(WORKERS_NEED_A_NUMBER) from None
            raise
        # Of "-n -D" and "-nD", click takes "-D" and "D" for the number.
        if not (ctx.params.get("workers") or "0")[0].isdigit() and _lacks_number(typed):
            raise click.UsageError(WORKERS_NEED_A_NUMBER)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for group in GROUPS:
            with formatter.section(group):
                formatter.write_dl(
                    [
                        option.get_help_record(ctx)
                        for option in self.params
                        if isinstance(option, SettingOption) and option.setting.group == group
                    ],
                    col_max=24,
                )
        with formatter.section("Other"):
            others = [one for one in self.get_params(ctx) if not isinstance(one, SettingOption)]
            records = [one.get_help_record(ctx) for one in others]
            formatter.write_dl([record for record in records if record is not None], col_max=24)


def _print_version(ctx: click.Context, param: click.Parameter, given: bool) -> None:
    if given and not ctx.resilient_parsing:
        click.echo(f"{PROGRAM} {__version__}")
        ctx.exit()


@click.command(
    cls=Command,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="A switch has its opposite (--no-daemonize, --template) to overrule a variable or file. "
    "The command line comes before the environment, and that before the file; an empty variable "
    "counts as unset. See trac-spawn(8).",
)
@click.option(
    "--version", "-V", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Show the version and exit.",
)  # fmt: skip
def command(**options: Any) -> Configuration:
    """Serve Trac over FastCGI with a pool of worker processes.

    For example: trac-spawn -n 8 -s /run/trac.sock --env /srv/trac
    """
    # Only here: --version and --help need nothing of it.
    from spawner import configuration, layers

    given = {setting.name: options[setting.key] for setting in SETTINGS}
    # A successor is started without LISTEN_FDS: it is given the sockets in another way. Who only
    # asks (``settings_of``) may say that there are some.
    sockets_given = "LISTEN_FDS" in os.environ or click.get_current_context().obj is not None
    return configuration.load(layers.read_command_line(given), os.environ, sockets_given)


# As an argument of the decorator, click 8.0 does not take them.
command.params.extend(SettingOption(setting) for setting in SETTINGS)


def settings_of(arguments: Sequence[str], sockets_given: bool) -> Configuration:
    """What ``trac-spawn ARGUMENTS`` would run. With ``sockets_given`` it may listen nowhere by itself:
    a web server may start it on a socket. Raises BootError and click.ClickException."""
    obj = True if sockets_given else None
    result = command.main(list(arguments), prog_name=PROGRAM, standalone_mode=False, obj=obj)
    if result is None or isinstance(result, int):  # of --help and --version
        raise BootError("only the settings of trac-spawn can stand behind --", os.EX_USAGE)
    configuration: Configuration = result
    return configuration


def start(configuration: Configuration, predecessor: Optional[Predecessor] = None) -> int:
    """Do what the configuration says; the exit status. Raises BootError."""
    wanted = configuration.master
    if wanted.check or not wanted.print_config:
        configuration.check()
    if wanted.print_config:
        from spawner.configfile import write_file

        click.echo(write_file(wanted, configuration.pools), nl=False)
        return os.EX_OK
    if wanted.check:
        click.echo("configuration OK")
        for line in essentials(configuration):
            click.echo(f"  {line}")
        return os.EX_OK
    if wanted.demo:
        from spawner import demo

        return demo.run(configuration.pools[0])
    # Only here: --print-config and --check need neither the master nor what it imports.
    from spawner import boot, upgrade

    return boot.run(configuration, upgrade.own_command(), predecessor)


def essentials(configuration: Configuration) -> Iterator[str]:
    """What is served, where, by how many and as whom, each with where that was said."""
    for pool in configuration.pools:
        indent = ""
        if len(configuration.pools) > 1:
            yield f"[pool {pool.name}]"
            indent = "  "
        for name in ("env", "env_parent_dir", "env_from_params", "app", "socket", "address", "port", "listen",
                     "workers", "user", "group", "chroot"):  # fmt: skip
            value = getattr(pool, name)
            if BY_NAME[name].is_set(value):
                shown = " ".join(value) if isinstance(value, tuple) else value
                yield f"{indent}{BY_NAME[name].file_key}: {shown} ({pool.source(name)})"


def run(arguments: Sequence[str]) -> int:
    """The exit status of ``trac-spawn ARGUMENTS``; errors are one line on stderr."""
    configuration: Optional[Configuration] = None
    predecessor = _predecessor()
    try:
        # click only parses: its handlers (KeyboardInterrupt, EPIPE) must not enclose the master.
        result = command.main(
            list(arguments), prog_name=PROGRAM, standalone_mode=False, obj=predecessor
        )
        if result is None or isinstance(result, int):
            return result or os.EX_OK  # of --help and --version
        configuration = result
        return start(configuration, predecessor)
    except click.ClickException as error:
        failure = BootError(error.format_message(), os.EX_USAGE)
    except (click.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except BootError as error:
        failure = _blame(error, configuration)
        if configuration is not None and configuration.master.debug:
            import traceback

            sys.stderr.write(error.traceback or traceback.format_exc())
    if predecessor is not None:
        predecessor.failed(failure)  # it says so, in the log and to whoever asked for the upgrade
        return failure.exit_code
    return _complain(str(failure), failure.exit_code)


def _predecessor() -> Optional[Predecessor]:
    """The master that has started this process to take its place."""
    if HANDOVER not in os.environ:
        return None
    from spawner.predecessor import Predecessor

    return Predecessor.from_environment(os.environ)


def _blame(error: BootError, configuration: Optional[Configuration]) -> BootError:
    """The error in terms of what people have written."""
    if configuration is None:
        return error
    message = str(error)
    # Who runs a pool alone need not say which pool an option is of.
    if len(configuration.pools) == 1:
        message = configuration.pools[0].blame(message)
    message = configuration.master.blame(message)
    return BootError(message, error.exit_code, error.traceback, error.unexpected)


def _complain(message: str, status: int) -> int:
    click.echo(f"{PROGRAM}: {' '.join(message.splitlines())}", err=True)
    return status


def main() -> NoReturn:
    sys.exit(run(sys.argv[1:]))

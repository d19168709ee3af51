"""From what people gave, on the command line, in the environment or a file, to a ``Settings``."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Dict, Mapping, Tuple

from spawner import values
from spawner.setting import Rank, Setting, Source
from spawner.settings import BY_NAME, DEFAULT_POOL, SETTINGS, Settings
from spawner.sizes import complete_sizes
from workers.errors import BootError


@dataclasses.dataclass(frozen=True)
class Given:
    """A value as somebody wrote it; several texts only for a setting that takes many."""

    texts: Tuple[str, ...]
    source: Source


Layer = Dict[str, Given]


def usage(message: str) -> BootError:
    return BootError(message, os.EX_USAGE)


def read_environment(environ: Mapping[str, str]) -> Layer:
    """The settings in the environment; an empty variable counts as unset."""
    layer: Layer = {}
    for setting in SETTINGS:
        for variable in setting.variables:
            text = environ.get(variable, "").strip()
            if text:
                if variable == "FCGI_WEB_SERVER_ADDRS":
                    text = text.replace(",", " ")  # FastCGI 1.0, section 3.2
                texts = tuple(text.split()) if setting.many else (text,)
                layer[setting.name] = Given(texts, Source(Rank.ENVIRONMENT, variable))
                break
    return layer


def read_command_line(options: Mapping[str, Any]) -> Layer:
    """The settings that were given as options: text, a tuple of texts, or whether a switch is on.

    ``options`` maps the attribute of ``Settings``; None or () is an option that was not given.
    """
    layer: Layer = {}
    for setting in SETTINGS:
        value = options.get(setting.name)
        if value is None or value == ():
            continue
        option = setting.option
        if isinstance(value, bool):
            option = setting.option if value else setting.opposite
            value = "yes" if value else "no"
        texts = tuple(value) if setting.many else (value,)
        layer[setting.name] = Given(texts, Source(Rank.COMMAND_LINE, option))
    return layer


def combine(*layers: Layer) -> Layer:
    """One layer out of several, the one that wins first."""
    given: Layer = {}
    for layer in reversed(layers):
        given.update(layer)
    return given


def parse(given: Layer) -> Settings:
    """The values alone. Raises BootError (EX_USAGE) for one that cannot be read."""
    parsed = {name: _parse(BY_NAME[name], value) for name, value in given.items()}
    return Settings(**parsed, sources={name: value.source for name, value in given.items()})


def resolve(
    *layers: Layer, name: str = DEFAULT_POOL, where: str = "", sockets_given: bool = False
) -> Settings:
    """The settings of the pool ``name`` that result from ``layers``, the one that wins first.

    ``where`` is the place of the pool's section in a file; with ``sockets_given`` there may be a
    socket for it that was opened before this program started. Raises BootError (EX_USAGE) for values
    that cannot be read, for contradictions, and for a pool that would serve nothing or nowhere.
    """
    given = combine(*layers)
    # One application, and one way to listen besides --listen: what the command line says
    # replaces another kind that the environment or a file has set.
    _keep_first(given, (("env",), ("env_parent_dir",), ("app",)), together=())
    _keep_first(given, (("socket",), ("address", "port"), ("listen",)), together=("listen",))
    settings = dataclasses.replace(complete_sizes(parse(given)), name=name)
    refuse_contradictions(settings, sockets_given)
    if not settings.demo:
        _refuse_gaps(settings, where, sockets_given)
    if settings.chroot is not None:
        _refuse_relative_paths(given)
    return settings


def _refuse_relative_paths(given: Layer) -> None:
    """These count inside the new root, where the directory we were started in means nothing."""
    for name in ("env", "env_parent_dir", "env_from_params", "env_index_template", "chdir"):
        if name in given and not all(text.startswith("/") for text in given[name].texts):
            raise usage(f"{given[name].source.name}: with --chroot, the path must begin with '/'")


def _keep_first(
    given: Layer, kinds: Tuple[Tuple[str, ...], ...], together: Tuple[str, ...]
) -> None:
    """Of ``kinds`` that exclude each other, keep those of the highest rank in ``given``.

    Two of the same rank are a mistake, unless one of them is in ``together``.
    """
    sources = {}
    for kind in kinds:
        found = [given[name].source for name in kind if name in given]
        if found:
            sources[kind] = min(found, key=lambda source: source.rank)
    if not sources:
        return
    best = min(source.rank for source in sources.values())
    for kind in [kind for kind, source in sources.items() if source.rank > best]:
        for name in kind:
            given.pop(name, None)
        del sources[kind]
    rivals = [source.name for kind, source in sources.items() if kind[0] not in together]
    if len(rivals) > 1:
        raise usage(f"{' and '.join(rivals)} exclude each other: give only one of them")


def _parse(setting: Setting, given: Given) -> Any:
    try:
        if not all(given.texts) and not setting.may_be_empty:
            raise ValueError("the value is empty")
        parsed = tuple(setting.parse(text) for text in given.texts)
    except ValueError as error:
        raise usage(f"{given.source.name}: {error}") from None
    return parsed if setting.many else parsed[-1]


def refuse_contradictions(settings: Settings, sockets_given: bool = False) -> None:
    """Raise BootError (EX_USAGE) for values that make no sense together."""
    origin = {name: settings.source(name).name for name in BY_NAME}
    if settings.address is not None and settings.port is None:
        raise usage(f"{origin['address']}: an address needs a port, add --port")
    if settings.max_memory and 0 < settings.hard_memory < settings.max_memory:
        raise usage(
            f"{origin['hard_memory']}: the hard limit {values.show_size(settings.hard_memory)} is "
            f"below that of {origin['max_memory']}, {values.show_size(settings.max_memory)}"
        )
    if settings.slow_log is not None and not settings.slow_after:
        raise usage(f"{origin['slow_log']}: say when a request is slow, add --slow-after")
    if 0 < settings.request_timeout <= settings.slow_after:
        raise usage(
            f"{origin['slow_after']}: no request is ever that slow, "
            f"{origin['request_timeout']} ends it before"
        )
    for name in ("allow_user", "allow_group"):
        if getattr(settings, name) and not (sockets_given or _may_have_unix_socket(settings)):
            raise usage(f"{origin[name]} is for Unix sockets, and there is none; for TCP, there is --allow")
    for name in ("log_file", "access_log"):
        if settings.daemonize and getattr(settings, name) == "-":
            raise usage(
                f"{origin[name]}: a daemon lets go of the output of whoever starts it: name a file, or"
                " syslog"
            )
    if settings.demo and settings.daemonize:
        raise usage(f"{origin['demo']} stays in the foreground: leave out --daemonize")


def _may_have_unix_socket(settings: Settings) -> bool:
    # What a descriptor is, only opening it tells.
    return settings.socket is not None or any(
        text.startswith(("unix:", "/", "@", "fd:")) for text in settings.listen
    )


def _refuse_gaps(settings: Settings, where: str, sockets_given: bool) -> None:
    prefix = f"{where}: " if where else ""
    if settings.env is settings.env_parent_dir is settings.app is None and not settings.env_from_params:
        remedy = (
            "add env, env-parent-dir or app"
            if where
            else "give --env, --env-parent-dir or --app, "
            "or set TRAC_ENV or TRAC_ENV_PARENT_DIR (--demo shows an example)"
        )
        raise usage(f"{prefix}there is nothing to serve: {remedy}")
    somewhere = settings.socket is not None or settings.port is not None or settings.listen
    if not (somewhere or sockets_given):
        remedy = (
            "add socket, port or listen"
            if where
            else "give --socket PATH, --port PORT or --listen ADDRESS"
        )
        raise usage(f"{prefix}there is nowhere to listen: {remedy}")

"""The whole configuration: what the master does, and each of its pools."""

from __future__ import annotations

import dataclasses
import os
from typing import Dict, List, Mapping, Tuple

from spawner.addresses import Address
from spawner.checks import check_all
from spawner.configfile import ConfigFile, Section, read_file
from spawner.layers import Given, Layer, combine, parse, read_environment, resolve, usage
from spawner.setting import Scope, Source
from spawner.settings import BY_NAME, DEFAULT_POOL, Settings
from workers.errors import BootError


@dataclasses.dataclass(frozen=True)
class Configuration:
    """``master`` has the settings of the whole program, each of ``pools`` all of one pool."""

    master: Settings
    pools: Tuple[Settings, ...]
    #: The command line, to which ``reload`` comes back.
    options: Layer = dataclasses.field(default_factory=dict, repr=False, compare=False)
    #: There are sockets that were opened before this program started: by socket activation, or by
    #: the master whose place it takes.
    sockets_given: bool = dataclasses.field(default=False, compare=False)

    def reload(self) -> Configuration:
        """The configuration as the file says now. Raises BootError as ``load`` does."""
        return load(self.options, os.environ, self.sockets_given)

    def check(self) -> None:
        """Look at users, paths, addresses and applications. Raises BootError for what is wrong."""
        for pool in self.pools:
            try:
                check_all(pool)
            except BootError as error:
                raise BootError(pool.blame(str(error)), error.exit_code, error.traceback) from None


def load(
    options: Layer, environ: Mapping[str, str], sockets_given: bool = False
) -> Configuration:
    """The configuration that the command line, the environment and a file make.

    Raises BootError: EX_USAGE for what is wrong in one of them, EX_NOINPUT or EX_NOPERM for a
    file that cannot be read.
    """
    variables = read_environment(environ)
    given = combine(options, variables)
    path = parse({name: one for name, one in given.items() if name == "config"}).config
    file = ConfigFile() if path is None else read_file(path)
    layers = (options, variables, file.main.settings)
    sections = file.pools or (Section(DEFAULT_POOL),)
    _refuse_ambiguity(layers, sections)
    whole = combine(*layers)
    # Each scope but that of the pools: the latter are parsed with each pool.
    master = parse({name: one for name, one in whole.items() if _is_for_master(name)})
    pools = tuple(_make_pool(layers, file.main, section, sockets_given) for section in sections)
    if master.demo and len(pools) > 1:
        raise usage(f"{master.source('demo').name} shows one pool, and the file has several")
    _refuse_shared_addresses(pools)
    return Configuration(master, pools, options, sockets_given)


def _is_for_master(name: str) -> bool:
    return BY_NAME[name].scope in (Scope.MASTER, Scope.COMMAND)


def _make_pool(
    layers: Tuple[Layer, ...], main: Section, section: Section, sockets_given: bool
) -> Settings:
    where = f"{section.place}: [pool {section.name}]" if section.place else ""
    options, variables, defaults = layers
    pool = resolve(
        options, variables, section.settings, defaults,
        name=section.name, where=where, sockets_given=sockets_given,
    )  # fmt: skip
    environment: Dict[str, Given] = {**main.variables, **section.variables}
    return dataclasses.replace(
        pool,
        environment={name: given.texts[0] for name, given in environment.items()},
        sources={
            **pool.sources,
            **{f"env[{name}]": given.source for name, given in environment.items()},
        },
    )


def _refuse_ambiguity(layers: Tuple[Layer, ...], sections: Tuple[Section, ...]) -> None:
    """With several pools, where to listen and what to serve cannot be said for all of them."""
    if len(sections) == 1:
        return
    for layer in layers:
        for name, given in layer.items():
            if BY_NAME[name].scope is Scope.SINGLE_POOL:
                raise usage(
                    f"{given.source.name}: the file has several pools, so this must be said in "
                    "the section of one"
                )


def _refuse_shared_addresses(pools: Tuple[Settings, ...]) -> None:
    taken: Dict[Address, Tuple[Settings, Source]] = {}
    for pool in pools:
        for source, address in pool.named_listeners():
            if address.kind in ("inet", "inet6") and address.port == 0:
                continue  # the kernel chooses another one each time
            if address in taken:
                raise _shared(address, [taken[address], (pool, source)])
            taken[address] = (pool, source)


def _shared(address: Address, both: List[Tuple[Settings, Source]]) -> BootError:
    (first, before), (second, again) = both
    if first is second:
        return usage(f"{again.name}: {address} has been given before, by {before.name}")
    return usage(
        f"{again.name}: {address} is taken; the pool {first.name} listens there, "
        f"according to {before.name}"
    )

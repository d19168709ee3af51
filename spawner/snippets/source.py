"""The settings that a snippet is made of: those of a running master, of a file or of options."""

from __future__ import annotations

import dataclasses
import os
from typing import Optional, Sequence, Tuple

from spawner import asking, cli
from spawner.addresses import Address, parse_address
from spawner.configuration import Configuration
from spawner.settings import Settings
from spawner.status import Config, Status
from workers.errors import BootError


@dataclasses.dataclass(frozen=True)
class Described:
    """One pool of a master, and where it can be reached; ``file`` and ``control`` if they are known."""

    master: Settings
    pool: Settings
    pools: Tuple[Settings, ...]
    addresses: Tuple[Address, ...]
    file: Optional[str] = None
    control: Optional[str] = None


def read(file: Optional[str], options: Sequence[str]) -> Configuration:
    """Of the file, or of options alone, which may be those of a pool that a web server starts.
    Raises BootError and click.ClickException as trac-spawn does."""
    words = ["-f", file, *options] if file is not None else options
    return cli.settings_of(words, sockets_given=file is None)


def any_pool() -> Described:
    """For what is the same for each."""
    return Described(Settings(), Settings(), (Settings(),), ())


def from_options(
    name: Optional[str], file: Optional[str], options: Sequence[str], whole: bool
) -> Described:
    """What trac-spawn would run with these. Raises BootError, click.ClickException.

    ``whole``: all pools are meant, so that none needs to be named.
    """
    configuration = read(file, options)
    pool = _choose(configuration.pools, name, whole)
    place = None if file is None else os.path.abspath(file)
    return Described(configuration.master, pool, configuration.pools, pool.listeners(), place)


def from_master(
    name: Optional[str], control: Optional[str], timeout: float, whole: bool
) -> Described:
    """What a master runs. Raises BootError."""
    try:
        path = asking.find_control(control)
        status: Status = asking.ask(path, "status", {}, timeout)
        config: Config = asking.ask(path, "config", {}, timeout)
    except BootError as error:
        raise BootError(
            f"{error}. Without a master, give -f FILE, or the options of trac-spawn behind --, as in: "
            "trac-spawnctl snippet nginx -- -s /run/trac/trac.sock --env /srv/trac",
            error.exit_code,
        ) from error
    rows = config["settings"]
    names = [one["name"] for one in status["pools"]]
    master = asking.told_settings(rows, [None])
    pools = tuple(dataclasses.replace(asking.told_settings(rows, [one]), name=one) for one in names)
    pool = _choose(pools, name, whole)
    # The master knows of inherited descriptors, and of ports that the kernel chose.
    told = next(one["addresses"] for one in status["pools"] if one["name"] == pool.name)
    addresses = tuple(parse_address(one["address"]) for one in told)
    return Described(master, pool, pools, addresses, control=path)


def _choose(pools: Sequence[Settings], name: Optional[str], whole: bool) -> Settings:
    names = ", ".join(pool.name for pool in pools)
    for pool in pools:
        if name == pool.name or name is None and (whole or len(pools) == 1):
            return pool
    problem = "which pool? Say it with --pool" if name is None else f"there is no pool {name!r}"
    raise BootError(f"{problem}; there are {names}", os.EX_USAGE)

"""What is to be examined: the pools' settings, and what the master and the caller say besides."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Tuple
from urllib.parse import urlsplit

from spawner import asking
from spawner.addresses import Address, parse_address
from spawner.doctor.account import Account, account_of, current_account
from spawner.doctor.webservers import WebServer
from spawner.settings import Settings
from spawner.status import PoolStatus, SettingStatus, Status


@dataclass(frozen=True)
class Wish:
    """What the caller says. ``timeout`` is for one request or process, in seconds."""

    url: Optional[str] = None
    web_user: Optional[str] = None
    wrapper: Optional[str] = None
    wrapper_user: Optional[str] = None
    docroot: Optional[str] = None
    timeout: float = 10.0


@dataclass(frozen=True)
class Site:
    """``pools`` is empty when neither a master nor the caller has told the settings."""

    wish: Wish
    pools: Tuple[Settings, ...] = ()
    status: Optional[Status] = None
    web_user: Optional[Account] = None
    web_servers: Sequence[WebServer] = field(default=())
    #: The master or the file that the settings are of; "" for options.
    told_by: str = ""

    @property
    def master_pid(self) -> Optional[int]:
        return None if self.status is None else self.status["master"]["pid"]

    def running(self, pool: Settings) -> Optional[PoolStatus]:
        """What the master says of the pool."""
        pools = self.status["pools"] if self.status is not None else []
        return next((one for one in pools if one["name"] == pool.name), None)

    def addresses(self, pool: Settings) -> Tuple[Address, ...]:
        """Where the pool listens: as the master says, which knows of inherited descriptors and of
        ports that the kernel chose; otherwise as the settings say."""
        running = self.running(pool)
        if running is not None:
            return tuple(parse_address(one["address"]) for one in running["addresses"])
        return tuple(_as_made(one) for one in pool.listeners() if one.kind != "fd")

    def places(self) -> Dict[str, str]:
        """The names in the lines of ``remedies``, as far as this site has one of each."""
        found: Dict[str, str] = {}
        if len(self.pools) == 1:
            (pool,) = self.pools
            sockets = [one.path for one in self.addresses(pool) if one.kind == "unix"]
            with contextlib.suppress(OSError):
                found.update(zip(("environment",), environments(pool, 1)))
            found.update(zip(("socket",), sockets))
        return found

    def named(self, pool: Settings) -> str:
        """Before what is said of a pool, where there are several."""
        return f"pool {pool.name}: " if len(self.pools) > 1 else ""

    @property
    def prefix(self) -> str:
        """Where the site is, as the URL says: "/trac", or "" for the root of the host."""
        return urlsplit(self.wish.url or "").path.rstrip("/")


def _as_made(address: Address) -> Address:
    """lighttpd calls the socket of the process that it starts itself (bin-path) PATH-0."""
    numbered = f"{address.path}-0"
    if address.kind == "unix" and os.path.exists(numbered) and not os.path.lexists(address.path):
        return dataclasses.replace(address, path=numbered)
    return address


def pool_user(pool: Settings) -> Account:
    """Whom the application runs as. Raises BootError EX_NOUSER."""
    if pool.user is None:
        return current_account()
    return account_of(pool.user, pool.group)


def settings_of_master(rows: Sequence[SettingStatus]) -> Tuple[Settings, ...]:
    """The pools' settings out of the answer to the verb ``config``, with what counts for all of them.
    Raises BootError."""
    names = dict.fromkeys(row["pool"] for row in rows if row["pool"] is not None)
    return tuple(
        dataclasses.replace(asking.told_settings(rows, (None, name)), name=name) for name in names
    )


def environments(pool: Settings, most: int) -> List[str]:
    """The Trac environments that a pool serves, up to a number, as its workers call them, be it behind
    --chroot. Raises OSError."""
    if pool.env is not None:
        return [pool.env]
    if pool.env_parent_dir is None:
        return []
    outside = (pool.chroot or "") + pool.env_parent_dir
    names = sorted(name for name in os.listdir(outside) if os.path.isfile(f"{outside}/{name}/VERSION"))
    return [os.path.join(pool.env_parent_dir, name) for name in names[:most]]

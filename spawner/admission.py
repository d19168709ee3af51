"""Who may connect to a pool, by its settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Iterable

from spawner import privileges
from workers.errors import BootError
from workers.peers import PeerRules, is_exposed, is_exposed_address, parse_network

if TYPE_CHECKING:
    from spawner.listeners import Listener
    from spawner.settings import Settings


def rules(settings: Settings) -> PeerRules:
    """Raises BootError (EX_NOUSER). To be asked in the master: behind --chroot there are no names,
    and what the application does to its environment must not open the door."""
    return PeerRules(
        tuple(map(parse_network, settings.allow)),
        frozenset(privileges.find_user(name, "--allow-user") for name in settings.allow_user),
        frozenset(privileges.find_group(name, "--allow-group") for name in settings.allow_group),
    )


def check_addresses(settings: Settings) -> None:
    """Raise BootError for an address that is open to other machines without --allow."""
    for source, address in settings.named_listeners():
        if not settings.allow and is_exposed_address(address.host):
            raise _exposed(f"{source.name}: {address}")


def check_listeners(settings: Settings, listeners: Iterable[Listener]) -> None:
    """The same of what has been opened: a host name or a descriptor may be such an address."""
    for listener in listeners:
        if not settings.allow and is_exposed(listener.socket):
            raise _exposed(str(listener.address))


def _exposed(where: str) -> BootError:
    return BootError(
        f"{where}: other machines can connect there, and whoever does can claim to be any user of Trac;"
        " name the web servers with --allow, or listen on 127.0.0.1 or on a Unix socket",
        os.EX_USAGE,
    )

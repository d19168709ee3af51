"""Listening sockets that the service manager opens for us, or keeps for us over a restart.

sd_listen_fds(3) hands over both. The one kind comes from a .socket unit: the manager listens there
itself, and starts us when somebody connects. The other kind is ours, put into the descriptor store
(systemd.service(5), FileDescriptorStoreMax=): those who connect while we restart wait in its queue.
"""

from __future__ import annotations

import logging
import os
import urllib.parse
from typing import Iterable, Mapping, Optional, Sequence

from spawner.addresses import Address, address_of, parse_address
from spawner.inheritance import Inheritance
from spawner.listeners import Listener, adopt_descriptor, resolve
from spawner.settings import Settings
from spawner.systemd import Notifier
from workers.errors import BootError

log = logging.getLogger("trac-spawn")

#: In ``Listener.others``.
SOCKET_UNIT, STORE = "socket unit", "descriptor store"
_STORED = "trac-spawn "
#: Of a descriptor's name there, sd_notify(3).
_LONGEST_NAME = 255


def sort_out(handed: Sequence[tuple[int, str]], pools: Sequence[Settings]) -> Inheritance:
    """Which pool each of the descriptors (with its name) is for: the one that is to listen at its
    address, else the one of its name, else the only one when its settings name no address.

    Raises BootError for one that is for none: who connects there would wait for ever.
    """
    inheritance = Inheritance()
    asked = {address: pool for pool in pools for address in pool.listeners()}
    for descriptor, name in handed:
        listener = adopt_descriptor(Address("fd", fd=descriptor))
        stored = _stored_address(name)
        if stored is not None:
            # One that no pool is to listen at any more is left over, and goes.
            _take_back(listener, stored, inheritance)
            continue
        listener.others.add(SOCKET_UNIT)
        listener.address = listener.asked = address_of(listener.socket)
        same = [address for address in asked if _is_at(listener.address, address)]
        if same:
            listener.asked = same[0]
        else:
            inheritance.additional.setdefault(_pool_for(name, listener, pools), []).append(listener.asked)
        inheritance.listeners[listener.asked] = listener
    return inheritance


def _is_at(found: Address, asked: Address) -> bool:
    if found.kind in ("unix", "abstract") or asked.kind not in ("inet", "inet6"):
        return found == asked
    return found.port == asked.port and resolve(asked)[1][:2] == (found.host, found.port)


def _pool_for(name: str, listener: Listener, pools: Sequence[Settings]) -> str:
    if name in [pool.name for pool in pools]:
        return name
    if len(pools) == 1 and not pools[0].listeners():
        return pools[0].name
    raise BootError(
        f"the service manager hands over a socket for {listener.address}, where no pool is to listen;"
        f" add --listen {listener.address}, or FileDescriptorName= with the name of a pool",
        os.EX_CONFIG,
    )


# -- sockets in the store --------------------------------------------------------------------------


def _stored_name(asked: Address) -> str:
    # A name may hold no colon and nothing beyond ASCII.
    return _STORED + urllib.parse.quote(str(asked), safe="/@")


def _stored_address(name: str) -> Optional[Address]:
    if not name.startswith(_STORED):
        return None
    try:
        return parse_address(urllib.parse.unquote(name[len(_STORED) :]))
    except ValueError:
        return None


def _take_back(listener: Listener, asked: Address, inheritance: Inheritance) -> None:
    listener.address, listener.asked = address_of(listener.socket), asked
    listener.owned = True
    listener.others.add(STORE)
    if listener.address.kind == "unix":
        listener.remember_name()
    inheritance.listeners[asked] = listener


class Store:
    """The copies of our own listening sockets that the service manager keeps.

    The variable FDSTORE says how many it takes: systemd sets it from version 254 on, before that
    the unit file has to. Without it nothing is stored, and a stop closes the sockets.
    """

    def __init__(self, notifier: Notifier, environ: Mapping[str, str] = os.environ) -> None:
        self._notifier = notifier
        room = environ.get("FDSTORE", "0")
        self._room = int(room) if notifier.active and room.isascii() and room.isdigit() else 0
        self._kept: dict[str, Listener] = {}

    def take_note(self, listeners: Iterable[Listener]) -> None:
        """Of those that we were given out of the store: they are still in it."""
        self._kept = {_stored_name(one.asked): one for one in listeners if STORE in one.others}

    def update(self, listeners: Iterable[Listener]) -> None:
        """Have these kept, those of our own, and no others."""
        wanted = {_stored_name(one.asked): one for one in listeners if one.owned} if self._room else {}
        for name in list(wanted)[self._room :] + [name for name in wanted if len(name) > _LONGEST_NAME]:
            listener = wanted.pop(name, None)
            if listener is not None:
                log.warning("%s is not kept over a restart: no room in the store", listener.address)
        for name in self._kept.keys() - wanted.keys():
            self._let_go(name)
        for name in wanted.keys() - self._kept.keys():
            self._notifier.store([wanted[name].socket.fileno()], name)
            wanted[name].others.add(STORE)
        self._kept = wanted

    def _let_go(self, name: str) -> None:
        self._notifier.remove(name)
        listener = self._kept[name]
        listener.others.discard(STORE)
        if listener.socket.fileno() < 0:
            listener.close()  # nobody serves it any more, so its name goes as well

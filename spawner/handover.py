"""What a master tells the one that takes its place: the sockets, and what it knows of each.

The messages of an upgrade, in their order: ``pool`` for each pool, ``listeners``, ``control`` and
``end`` from the old master; then ``ready`` or ``failed`` from the new one; ``take over``; and ``done``
or ``failed``. The end of the channel says that the other one is gone. Both may be of different
versions of this program: whoever changes the meaning of a message counts ``FORMAT`` up.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Mapping, Sequence

from spawner.addresses import parse_address
from spawner.inheritance import PREDECESSOR, Inheritance
from spawner.listeners import Listener
from spawner.supervisor import Supervisor
from workers.channel import Message
from workers.errors import BootError
from workers.handoff import FORMAT as HANDOFF_FORMAT
from workers.handoff import Handoff

FORMAT = 1


def pool_message(pool: Supervisor, additional: Sequence[object]) -> tuple[Message, list[int]]:
    """What a successor needs to know of a pool, and the descriptors beside it."""
    listeners = pool.workplace.listeners
    message = {
        "event": "pool",
        "format": FORMAT,
        "name": pool.workplace.settings.name,
        "handoff": HANDOFF_FORMAT,
        "additional": [str(address) for address in additional],
        "broken": None if pool.current.broken is None else sorted(pool.current.broken),
        "listeners": [_describe(listener) for listener in listeners],
    }
    descriptors = [*pool.workplace.handoff.descriptors()]
    return message, descriptors + [listener.socket.fileno() for listener in listeners]


def message_of(listeners: Sequence[Listener]) -> tuple[Message, list[int]]:
    """As above, of sockets that are no pool's."""
    described = [_describe(listener) for listener in listeners]
    message = {"event": "listeners", "format": FORMAT, "listeners": described}
    return message, [listener.socket.fileno() for listener in listeners]


def control_message(listener: Listener) -> tuple[Message, list[int]]:
    """As above, of the control socket."""
    message = {"event": "control", "format": FORMAT, "listener": _describe(listener)}
    return message, [listener.socket.fileno()]


def add(message: Message, descriptors: list[int], inheritance: Inheritance) -> None:
    """In the new master: what one of the messages above hands over.

    Raises BootError (EX_PROTOCOL) when the old master speaks another format.
    """
    if message.get("format") != FORMAT:
        raise BootError(
            "the running trac-spawn hands over in a way that this version does not know; "
            "restart it instead",
            os.EX_PROTOCOL,
        )
    if message["event"] == "control":
        inheritance.control = _adopt(message["listener"], descriptors[0])
        return
    if message["event"] == "pool":
        _add_pool(message, [descriptors.pop(0), descriptors.pop(0)], inheritance)
    for described, descriptor in zip(message["listeners"], descriptors):
        listener = _adopt(described, descriptor)
        inheritance.listeners[listener.asked] = listener


def _add_pool(message: Message, descriptors: Sequence[int], inheritance: Inheritance) -> None:
    handoff = Handoff.adopt(*descriptors)
    if message["handoff"] == HANDOFF_FORMAT:
        asked = frozenset(parse_address(one["asked"]) for one in message["listeners"])
        inheritance.handoffs[message["name"]], inheritance.homes[message["name"]] = handoff, asked
    else:
        handoff.close()
    additional = [parse_address(text) for text in message["additional"]]
    inheritance.additional[message["name"]] = additional
    if message["broken"] is not None:
        inheritance.broken[message["name"]] = frozenset(message["broken"])


def _describe(listener: Listener) -> dict[str, Any]:
    return {
        "asked": str(listener.asked),
        "address": str(listener.address),
        "owned": listener.owned,
        "inode": listener.inode,
        "others": sorted(listener.others),
    }


def _adopt(described: Mapping[str, Any], descriptor: int) -> Listener:
    inode = described["inode"]
    listener = Listener(
        socket.socket(fileno=descriptor),
        parse_address(described["address"]),
        described["owned"],
        (inode[0], inode[1]) if inode else None,
    )
    listener.asked = parse_address(described["asked"])
    # Until it has taken over, this master must not end what the old one serves.
    listener.others = {*described["others"], PREDECESSOR}
    return listener

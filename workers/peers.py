"""Who may connect: whoever does can claim to be any user of the application.

TCP has addresses for that (FastCGI 1.0, section 3.2), Unix sockets the credentials that the kernel
took down when the peer connected.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Callable, Optional, Union

log = logging.getLogger("trac-spawn")

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

#: Who is refused comes again, often many times a second: a line in the log for each of these spans.
LOG_AGAIN = 10.0
_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7): process, user, group
_SO_PEERGROUPS = 59  # socket(7); Python has no name for it
_GROUPS_BYTES = 1024  # the most that Python asks for: 256 groups


def parse_network(text: str) -> Network:
    """An address or a network such as 192.0.2.0/24, of IPv4 or IPv6. Raises ValueError."""
    address, percent, _ = text.partition("%")
    if percent:
        # accept() tells the interface too, and it is not compared.
        raise ValueError(f"{text!r} names an interface, and only addresses are compared: write {address}")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is neither an address nor a network such as 192.0.2.0/24") from None
    if "/" in text and network.network_address != ipaddress.ip_interface(text).ip:
        raise ValueError(f"{text!r} is an address in a network: write {network}, or the address alone")
    return network


def web_server_addresses(text: str) -> list[str]:
    """What FCGI_WEB_SERVER_ADDRS names."""
    return text.replace(",", " ").split()


@dataclass(frozen=True)
class PeerRules:
    """Nothing given for a kind of socket admits everybody who can reach it."""

    networks: tuple[Network, ...] = ()
    #: Numbers of users and groups. Either admits.
    users: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()

    def objection(self, sock: socket.socket, address: object) -> Optional[str]:
        """Who it is that must not connect; None for a welcome peer. ``address`` is accept()'s."""
        if isinstance(address, tuple):
            host = str(address[0])
            return host if self.networks and not self._names(host) else None
        if self.users or self.groups:
            return self._unknown_user(sock)
        return None

    def _names(self, host: str) -> bool:
        ip = _plain(host)
        return any(ip in network for network in self.networks)

    def _unknown_user(self, sock: socket.socket) -> Optional[str]:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, gid = _CREDENTIALS.unpack(raw)
        # Root may be anybody, and our own user could do worse to us than to connect.
        if uid in (0, os.geteuid()) or uid in self.users:
            return None
        if self.groups and self.groups & {gid, *_supplementary_groups(sock)}:
            return None
        return f"user {uid}, group {gid}, process {pid}"


def _supplementary_groups(sock: socket.socket) -> Iterable[int]:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:
        return ()  # there are more, or the kernel is older than 4.13
    return (number for (number,) in struct.iter_unpack("I", raw))


def _plain(host: str) -> Union[ipaddress.IPv4Address, ipaddress.IPv6Address]:
    """The address; as IPv4 where a socket for both kinds has it as ::ffff:192.0.2.1."""
    ip = ipaddress.ip_address(host)
    return (isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped) or ip


def is_exposed(listener: socket.socket) -> bool:
    """Whether other machines may be able to connect to this listening socket."""
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return is_exposed_address(str(listener.getsockname()[0]))


def is_exposed_address(host: str) -> bool:
    """The same of an address. A name says nothing before it is resolved: False."""
    try:
        return not _plain(host).is_loopback
    except ValueError:
        return False


class Doorkeeper:
    """Applies the rules at the door of one worker; ``refused`` counts those who are turned away."""

    def __init__(self, rules: PeerRules, refused: Callable[[], None]) -> None:
        self._rules = rules
        self._open = rules == PeerRules()
        self._refused = refused
        self._silent_until = 0.0
        self._unsaid = 0

    def admits(self, sock: socket.socket, address: object) -> bool:
        """Whether to go on with what accept() has returned."""
        if self._open:
            return True
        who = self._rules.objection(sock, address)
        if who is None:
            return True
        self._refused()
        self._note(who)
        return False

    def _note(self, who: str) -> None:
        now = time.monotonic()
        if now < self._silent_until:
            self._unsaid += 1
            return
        others = f" ({self._unsaid} more were refused before)" if self._unsaid else ""
        log.warning("refused a connection from %s: it is not on the list of who may connect%s", who, others)
        self._silent_until = now + LOG_AGAIN
        self._unsaid = 0

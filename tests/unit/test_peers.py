"""Who may connect."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import struct
from pathlib import Path
from typing import Any, Optional

import pytest

from spawner import admission
from spawner.settings import Settings
from workers import peers
from workers.errors import BootError
from workers.peers import Doorkeeper, PeerRules, is_exposed, is_exposed_address, parse_network


class Peer:
    """Stands for an accepted connection of a Unix socket."""

    def __init__(self, uid: int, gid: int = 0, groups: Optional[list[int]] = None) -> None:
        self.credentials = struct.pack("3i", 4711, uid, gid)
        self.groups = groups

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        if option == socket.SO_PEERCRED:
            return self.credentials
        if self.groups is None:
            raise OSError(34, "Numerical result out of range")
        return struct.pack(f"{len(self.groups)}I", *self.groups)


def tcp(rules: PeerRules, host: str) -> Optional[str]:
    unused: Any = None
    return rules.objection(unused, (host, 40000))


def unix(rules: PeerRules, peer: Any) -> Optional[str]:
    return rules.objection(peer, "")


def networks(*texts: str) -> PeerRules:
    return PeerRules(tuple(map(parse_network, texts)))


# -- addresses


@pytest.mark.parametrize(
    "allowed, host, admitted",
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("192.0.2.0/24", "192.0.2.255", True),
        ("192.0.2.0/24", "192.0.3.0", False),
        ("192.0.2.7", "::ffff:192.0.2.7", True),
        ("192.0.2.7", "::ffff:192.0.2.8", False),
        ("2001:db8::/32", "2001:db8:1::5", True),
        ("2001:db8::/32", "2001:db9::5", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("0.0.0.0/0", "::1", False),
        ("::/0", "127.0.0.1", False),
        ("::1", "::1", True),
    ],
)
def test_addresses(allowed: str, host: str, admitted: bool) -> None:
    assert (tcp(networks(allowed), host) is None) is admitted
    assert (tcp(networks("198.51.100.1", allowed), host) is None) is admitted


def test_without_rules_everybody_is_admitted() -> None:
    assert tcp(PeerRules(), "203.0.113.9") is None
    assert unix(PeerRules(), Peer(12345)) is None


def test_rules_for_one_kind_say_nothing_of_the_other() -> None:
    assert unix(networks("192.0.2.7"), Peer(12345)) is None
    assert tcp(PeerRules(users=frozenset([33])), "203.0.113.9") is None


def test_an_address_with_the_size_of_its_network() -> None:
    with pytest.raises(ValueError, match="write 192.0.2.0/24, or the address alone"):
        parse_network("192.0.2.1/24")
    assert parse_network("192.0.2.0/255.255.255.0") == parse_network("192.0.2.0/24")


@pytest.mark.parametrize("text", ["::1%lo", "fe80::/10%eth0", "fe80::1%"])
def test_an_interface_is_not_looked_at(text: str) -> None:
    address = text.partition("%")[0]
    with pytest.raises(ValueError, match=f"names an interface.*: write {address}$"):
        parse_network(text)


@pytest.mark.parametrize("text", ["", "localhost", "192.0.2.0/33", "1.2.3", "::1/129", "all"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match="neither an address nor a network"):
        parse_network(text)


@pytest.mark.parametrize(
    "host, exposed",
    [
        ("127.0.0.1", False), ("127.9.9.9", False), ("::1", False), ("::ffff:127.0.0.1", False),
        ("localhost", False), ("", False), ("0.0.0.0", True), ("::", True), ("10.0.0.1", True),
        ("::ffff:10.0.0.1", True), ("fe80::1", True),
    ],
)  # fmt: skip
def test_what_other_machines_can_reach(host: str, exposed: bool) -> None:
    assert is_exposed_address(host) is exposed


def test_listeners_that_other_machines_can_reach(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as local, socket.create_server(("", 0)) as open_to_all:
        assert not is_exposed(local)
        assert is_exposed(open_to_all)
    with socket.socket(socket.AF_UNIX) as unix_listener:
        unix_listener.bind(str(tmp_path / "s"))
        assert not is_exposed(unix_listener)


# -- users


def test_users_and_groups() -> None:
    rules = PeerRules(users=frozenset([33]), groups=frozenset([1000]))
    assert unix(rules, Peer(33, 33, [])) is None
    assert unix(rules, Peer(44, 1000, [])) is None
    assert unix(rules, Peer(44, 44, [7, 1000])) is None
    assert unix(rules, Peer(44, 33, [33])) == "user 44, group 33, process 4711"
    assert unix(rules, Peer(44, 44, None)) == "user 44, group 44, process 4711"
    assert unix(PeerRules(users=frozenset([33])), Peer(44, 33, [33])) is not None


def test_root_and_our_own_user_are_always_admitted() -> None:
    rules = PeerRules(users=frozenset([33]))
    assert unix(rules, Peer(0)) is None
    assert unix(rules, Peer(os.geteuid())) is None


def test_the_kernel_says_who_it_is() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert set(peers._supplementary_groups(ours)) == set(os.getgroups())
        assert PeerRules(users=frozenset([123])).objection(ours, "") is None  # it is ourselves


# -- the door


def test_who_is_refused_is_counted_and_logged_with_a_limit(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(peers.time, "monotonic", lambda: now)
    counted: list[None] = []
    door = Doorkeeper(networks("192.0.2.7"), lambda: counted.append(None))
    unused: Any = None
    with caplog.at_level(logging.WARNING, "trac-spawn"):
        assert door.admits(unused, ("192.0.2.7", 1))
        for _ in range(5):
            assert not door.admits(unused, ("203.0.113.9", 1))
        assert len(caplog.messages) == 1
        now += peers.LOG_AGAIN
        assert not door.admits(unused, ("203.0.113.8", 1))
    assert len(counted) == 6
    assert caplog.messages[0].startswith("refused a connection from 203.0.113.9")
    assert caplog.messages[1].endswith("203.0.113.8: it is not on the list of who may connect"
                                       " (4 more were refused before)")  # fmt: skip


# -- from settings


def test_rules_from_settings() -> None:
    found = admission.rules(Settings(allow=("192.0.2.0/24",), allow_user=("0",), allow_group=("root", "77")))
    assert found == PeerRules(
        (ipaddress.ip_network("192.0.2.0/24"),), frozenset([0]), frozenset([0, 77])
    )


@pytest.mark.parametrize("name", ["allow_user", "allow_group"])
def test_who_does_not_exist_cannot_be_admitted(name: str) -> None:
    with pytest.raises(BootError, match=f"--{name.replace('_', '-')}: there is no .* 'nobody-of-that-name'"):
        admission.rules(Settings(**{name: ("nobody-of-that-name",)}))


@pytest.mark.parametrize("listen", ["0.0.0.0:9000", "[::]:9000", "192.0.2.1:9000"])
def test_an_exposed_address_needs_allow(listen: str) -> None:
    with pytest.raises(BootError) as caught:
        admission.check_addresses(Settings(listen=(listen,)))
    assert caught.value.exit_code == os.EX_USAGE
    assert "claim to be any user" in str(caught.value) and "--allow" in str(caught.value)
    admission.check_addresses(Settings(listen=(listen,), allow=("10.0.0.0/8",)))


def test_others_do_not() -> None:
    admission.check_addresses(Settings(listen=("127.0.0.1:9000", "[::1]:9000", "unix:/x", "fd://3")))

"""What --listen takes, and what it says to everything else."""

from __future__ import annotations

import os
import socket

import pytest

from spawner.addresses import Address, address_of, parse_address


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("unix:/run/trac.sock", "unix:/run/trac.sock"),
        ("/run/trac.sock", "unix:/run/trac.sock"),
        ("/run/../tmp//trac.sock", "unix:/tmp/trac.sock"),
        ("unix:/run/with space:and:colons", "unix:/run/with space:and:colons"),
        ("unix:@trac", "unix:@trac"),
        ("@trac", "unix:@trac"),
        ("@a/../b", "unix:@a/../b"),
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("localhost:0", "localhost:0"),
        ("trac.example.org:65535", "trac.example.org:65535"),
        ("[::1]:9000", "[::1]:9000"),
        ("[fe80::1%eth0]:9000", "[fe80::1%eth0]:9000"),
        ("fd://0", "fd://0"),
        ("fd://17", "fd://17"),
    ],
)
def test_every_form_and_its_canonical_text(text: str, canonical: str) -> None:
    address = parse_address(text)
    assert str(address) == canonical
    assert parse_address(canonical) == address


def test_a_relative_path_counts_from_the_working_directory() -> None:
    assert parse_address("unix:trac.sock") == Address("unix", path=f"{os.getcwd()}/trac.sock")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "none of"),
        ("9000", "none of"),
        ("trac.sock", "none of"),
        ("unix:", "no name"),
        ("unix:@", "no name"),
        ("@", "no name"),
        ("unix:/a\0b", "NUL"),
        (":9000", "0.0.0.0:9000"),
        ("localhost:", "port"),
        ("localhost:http", "port"),
        ("localhost:-1", "port"),
        ("localhost:+1", "port"),
        ("localhost:65536", "port"),
        ("localhost:٣", "port"),
        ("::1:9000", "brackets"),
        ("[::1]", "IPv6"),
        ("[::1]9000", "IPv6"),
        ("[]:9000", "IPv6"),
        ("[localhost]:9000", "not an IPv6 address"),
        ("[127.0.0.1]:9000", "not an IPv6 address"),
        ("tcp://localhost:9000", "none of"),
        ("http:localhost:9000", "none of"),
        ("a b:9000", "none of"),
        ("fd://", "fd://"),
        ("fd://-1", "fd://"),
        ("fd://x", "fd://"),
    ],
)
def test_anything_else_is_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_address(text)


def test_the_length_of_a_name_is_counted_in_bytes() -> None:
    assert parse_address("/" + "x" * 106).path == "/" + "x" * 106
    assert parse_address("@" + "x" * 107).path == "x" * 107
    for name in ("/" + "x" * 107, "@" + "x" * 108, "/" + "ü" * 54):
        with pytest.raises(ValueError, match=r"\d+ bytes is too long .* 107 is the limit"):
            parse_address(name)


def test_addresses_of_inherited_sockets() -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"\0trac-test-{os.getpid()}")
        assert str(address_of(one)) == f"unix:@trac-test-{os.getpid()}"
        assert parse_address(str(address_of(one))) == address_of(one)
    with socket.socket(socket.AF_INET6) as one:
        one.bind(("::1", 0))
        assert str(address_of(one)) == f"[::1]:{one.getsockname()[1]}"

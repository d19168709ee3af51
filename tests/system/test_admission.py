"""Who may connect to a pool, seen from both sides of its door."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from workers.fastcgi import client

from .clients import params
from .control import ask
from .pools import Pool, Spawner
from .processes import PATIENCE

APP = ("--app", "tests.system.apps:application", "-n", 1)
#: Says what a peer gets to read: nothing but the end, when it is refused.
KNOCK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(30)
    sock.connect(sys.argv[1])
    try:
        sock.sendall(b"\\x01\\x09\\x00\\x00\\x00\\x10\\x00\\x00" + b"\\x0e\\x00FCGI_MAX_CONNS")
        print(len(sock.recv(100)) > 0)
    except (BrokenPipeError, ConnectionResetError):
        print(False)
"""


def admitted(pool: Pool, user: str, groups: list[int]) -> bool:
    entry = pwd.getpwnam(user)
    done = subprocess.run(
        [sys.executable, "-c", KNOCK, str(pool.socket)],
        user=entry.pw_uid, group=entry.pw_gid, extra_groups=groups, cwd="/", check=True,
        stdout=subprocess.PIPE, text=True, timeout=PATIENCE,
    )  # fmt: skip
    return done.stdout == "True\n"


@pytest.mark.parametrize("host, friend, stranger", [
    ("127.0.0.1", "127.0.0.2", "127.0.0.3"),
    # Linux takes the whole of 127.0.0.0/8 for its own, but of IPv6 only ::1.
    ("::1", "::1", ""),
])  # fmt: skip
def test_tcp(spawn: Spawner, host: str, friend: str, stranger: str) -> None:
    pool = spawn("-a", host, "-p", 0, *APP, "--allow", friend, "--allow", "2001:db8::/32", listen=False)
    port = int(pool.wait_for_line(r"listening on \S+:(\d+)")[1])
    with socket.create_connection((host, port), PATIENCE, source_address=(friend, 0)) as sock:
        assert client.request(sock, params("/echo?id=1")).status == 200
    if not stranger:
        return
    with socket.create_connection((host, port), PATIENCE, source_address=(stranger, 0)) as sock:
        assert sock.recv(1) == b""
    pool.wait_for_line(r"refused a connection from 127\.0\.0\.3: it is not on the list")
    assert ask(pool, "status")["pools"][0]["refused"] == 1


def test_ipv6_strangers(spawn: Spawner) -> None:
    pool = spawn("-a", "::1", "-p", 0, *APP, "--allow", "2001:db8::/32", listen=False)
    port = int(pool.wait_for_line(r"listening on \S+:(\d+)")[1])
    with socket.create_connection(("::1", port), PATIENCE) as sock:
        assert sock.recv(1) == b""
    pool.wait_for_line("refused a connection from ::1: ")


@pytest.mark.parametrize("options", [("-a", "0.0.0.0", "-p", 0), ("--listen", "[::]:0")])
def test_an_address_for_everybody_is_refused_at_the_start(spawn: Spawner, options: tuple[str, ...]) -> None:
    pool = spawn(*options, *APP, listen=False, ready=False)
    assert pool.wait_exit() == os.EX_USAGE
    assert "whoever does can claim to be any user of Trac" in pool.log
    assert "--allow" in pool.log and "listening on" not in pool.log


def test_so_is_one_that_is_handed_over(spawn: Spawner) -> None:
    with socket.create_server(("", 0)) as listener:
        number = listener.fileno()
        pool = spawn(
            "--listen", f"fd://{number}", *APP, listen=False, ready=False, pass_fds=(number,)
        )
        assert pool.wait_exit() == os.EX_USAGE
    assert f"fd://{number}: other machines can connect there" in pool.log


def test_an_address_for_everybody_with_a_list(spawn: Spawner) -> None:
    pool = spawn("-a", "0.0.0.0", "-p", 0, *APP, "--allow", "127.0.0.0/8", listen=False)
    port = int(pool.wait_for_line(r"listening on 0\.0\.0\.0:(\d+)")[1])
    assert client.request(("127.0.0.1", port), params("/echo?id=1")).status == 200


def test_users_and_groups_of_a_unix_socket(spawn_as_root: Spawner, other_user: str) -> None:
    pool = spawn_as_root(*APP, "-M", "0666", "--allow-user", other_user, "--allow-group", 54321)
    assert admitted(pool, other_user, [])
    assert not admitted(pool, "daemon", [])
    assert admitted(pool, "daemon", [54321])
    uid = pwd.getpwnam("daemon").pw_uid
    pool.wait_for_line(rf"refused a connection from user {uid}, group \d+, process \d+: ")
    # ... and root, whom the test runs as, whatever the list.
    assert client.request(str(pool.socket), params("/echo?id=1")).status == 200
    assert ask(pool, "status")["pools"][0]["refused"] == 1


def test_the_list_changes_with_a_reload(spawn: Spawner, tmp_path: Path) -> None:
    file = tmp_path / "pool.conf"
    text = "[pool trac]\nport = 0\napp = tests.system.apps:application\nworkers = 1\nallow = {}\n"
    file.write_text(text.format("192.0.2.1"))
    pool = spawn("-f", file, listen=False)
    port = int(pool.wait_for_line(r"listening on \S+:(\d+)")[1])
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        assert sock.recv(1) == b""
    file.write_text(text.format("192.0.2.1 127.0.0.1"))
    ask(pool, "reload")
    assert client.request(("127.0.0.1", port), params("/echo?id=1")).status == 200
    # The worker that refused is gone; what it has counted is not.
    assert ask(pool, "status")["pools"][0]["refused"] == 1

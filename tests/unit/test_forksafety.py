"""What stands against forking, looked for in this very process."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from spawner.forksafety import hazards, open_descriptors


@pytest.fixture
def known() -> Iterator[set[int]]:
    """What is open before the test opens anything; threads of others would spoil it."""
    before = open_descriptors()
    assert hazards(before) == []
    yield before
    assert hazards(before) == []


def test_a_thread(known: set[int]) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="cleaner")
    thread.start()
    try:
        assert hazards(known) == ["1 thread(s) are running: cleaner"]
    finally:
        end.set()
        thread.join()


def test_a_tcp_connection_and_where_it_leads(known: set[int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        listening = server.fileno()
        host, port = server.getsockname()
        with socket.create_connection((host, port)) as client:
            found = hazards(known | {listening})
            assert found == [
                f"a connection is open: descriptor {client.fileno()}, to {host} port {port}"
            ]


def test_a_unix_connection(known: set[int], tmp_path: Path) -> None:
    name = f"@trac-spawn-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("\0" + name[1:])
        server.listen()
        client.connect("\0" + name[1:])
        (found,) = hazards(known | {server.fileno()})
        assert name[1:] in found


def test_a_listening_socket_has_no_peer(known: set[int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        (found,) = hazards(known)
        assert re.fullmatch(
            rf"a connection is open: descriptor {server.fileno()}, socket:\[\d+\]", found
        )


def test_a_database(known: set[int], tmp_path: Path) -> None:
    path = tmp_path / "trac.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE ticket (id INTEGER)")
    try:
        assert f"a file is open for writing: {path}" in hazards(known)
    finally:
        connection.close()


def test_what_may_be_shared(known: set[int], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    log = open(path, "a")
    data = open(path)
    syslog, daemon = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    reading, writing = os.pipe()
    try:
        assert hazards(known) == []
    finally:
        for file in (log, data, syslog, daemon):
            file.close()
        os.close(reading)
        os.close(writing)


def test_what_was_open_before_is_the_masters(tmp_path: Path) -> None:
    with open(tmp_path / "pidfile", "w"):
        assert hazards(open_descriptors()) == []


def test_all_reasons_are_told(known: set[int], tmp_path: Path) -> None:
    with open(tmp_path / "one", "w"), open(tmp_path / "two", "w"):
        found = hazards(known)
    assert sorted(found) == [f"a file is open for writing: {tmp_path / n}" for n in ("one", "two")]

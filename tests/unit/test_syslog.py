"""workers/syslog.py with a daemon that goes, comes back, or stops reading."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from workers import syslog
from workers.syslog import Syslog


def daemon(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    return sock


def connected(path: Path) -> Syslog:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.connect(str(path))
    return Syslog(sock.detach())


def test_another_daemon_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    monkeypatch.setattr(syslog, "SYSLOG", str(path))
    with daemon(path):
        log = connected(path)
    with pytest.raises(ConnectionRefusedError):
        log.write(b"lost")
    path.unlink()
    with pytest.raises(FileNotFoundError):
        log.write(b"lost")
    with daemon(path) as other:
        log.write(b"kept")
        log.write(b"kept too")
        assert [other.recv(4096).partition(b"]: ")[2] for _ in range(2)] == [b"kept", b"kept too"]


def test_one_that_does_not_read_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog, "PATIENCE", 0.01)
    path = tmp_path / "log"
    with daemon(path) as other:
        log = connected(path)
        with pytest.raises(BlockingIOError):
            while True:
                log.write(b"x")
        with pytest.raises(BlockingIOError):
            log.write(b"lost")
        assert log._patience == 0
        other.recv(4096)
        log.write(b"again")
        assert log._patience == 0.01

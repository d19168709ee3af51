"""What one request may cost: sizes, numbers, times, disk; and what the visitor is told."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from workers.connection import BODY_IN_MEMORY, LINGER_BYTES
from workers.fastcgi import records
from workers.fastcgi.records import RecordType

from .peer import Peer, Reply, alarms
from .pools import Pool, Spawner
from .processes import wait_until

APP = "tests.system.apps:application"
MEBIBYTE = 1 << 20


@pytest.fixture
def pool(spawn: Spawner) -> Pool:
    return spawn("-n", 1, "--app", APP, "--max-body", "2M")


@pytest.fixture(params=["unix", "tcp"])
def address(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, list[object]]]:
    """What to listen on, as an option, and the bound socket."""
    family = socket.AF_UNIX if request.param == "unix" else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind(f"\0ts-{os.getpid()}-ceilings" if request.param == "unix" else ("127.0.0.1", 0))
        listener.listen()
        yield listener, ["--listen", f"fd://{listener.fileno()}"]


def still_serves(pool: Pool, pid: int) -> None:
    """One worker, the same one, which answers."""
    with Peer(pool.socket) as peer:
        assert f"pid={pid}\n".encode() in peer.get("/echo").body


def spooled(pid: int, directory: Path) -> list[str]:
    """Temporary files that the process has open: they have no name any more, or never had one."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith(str(directory)) and target.endswith("(deleted)"):
            found.append(target)
    return found


@pytest.mark.parametrize("length", ["abc", "-1", "5, 5", "+5", " 5", "0x10", "1e3", "5 "])
def test_a_content_length_that_is_no_number(pool: Pool, length: str) -> None:
    (worker,) = pool.workers()
    with Peer(pool.socket) as peer:
        peer.send(peer.begin("/digest", CONTENT_LENGTH=length), peer.fcgi.end_body())
        assert peer.reply().status == 400
        # Nothing of it is still to come, so the connection remains of use.
        assert peer.get("/echo").status == 200
    assert len(alarms(pool)) == 1
    still_serves(pool, worker.pid)


def test_an_empty_content_length_is_none(pool: Pool) -> None:
    with Peer(pool.socket) as peer:
        peer.send(peer.begin("/digest", CONTENT_LENGTH=""), peer.fcgi.end_body())
        assert peer.reply().body.startswith(b"0 ")


def test_a_short_body_is_an_upload_given_up(pool: Pool) -> None:
    with Peer(pool.socket) as peer:
        begin = peer.begin("/raise", CONTENT_LENGTH="10", REQUEST_METHOD="POST")
        peer.send(begin, peer.fcgi.body(b"short"), peer.fcgi.end_body())
        reply = peer.reply()
        assert reply.stdout == b"" and reply.ended is not None
        assert peer.get("/echo").status == 200
    pool.wait_for_line("given up by the visitor: 5 of 10 bytes: POST /raise")
    assert not alarms(pool)


def test_a_long_body_is_cut(pool: Pool) -> None:
    with Peer(pool.socket) as peer:
        begin = peer.begin("/digest", CONTENT_LENGTH="3")
        peer.send(begin, peer.fcgi.body(b"abcdef"), peer.fcgi.body(b"ghi"), peer.fcgi.end_body())
        assert peer.reply().body == f"3 {hashlib.sha256(b'abc').hexdigest()}\n".encode()


def test_a_body_without_a_length_is_what_came(pool: Pool) -> None:
    with Peer(pool.socket) as peer:
        sent = peer.fcgi.begin({"PATH_INFO": "/digest", "REQUEST_METHOD": "POST"})
        peer.send(sent, peer.fcgi.body(b"abc"), peer.fcgi.end_body())
        assert peer.reply().body.startswith(b"3 ")
        assert peer.closed()


class TestMaxBody:
    def test_what_is_allowed(self, pool: Pool) -> None:
        with Peer(pool.socket) as peer:
            peer.send(peer.request("/digest", b"x" * 2 * MEBIBYTE))
            assert peer.reply().body.startswith(b"2097152 ")

    def test_a_body_that_is_announced_too_large(self, pool: Pool) -> None:
        """Refused before any of it has come."""
        (worker,) = pool.workers()
        with Peer(pool.socket) as peer:
            peer.send(peer.begin("/digest", CONTENT_LENGTH=str(2 * MEBIBYTE + 1)))
            assert peer.reply().status == 413
            assert peer.closed()
        assert len(alarms(pool)) == 1
        still_serves(pool, worker.pid)

    def test_a_body_that_becomes_too_large(self, pool: Pool) -> None:
        with Peer(pool.socket) as peer:
            sent = peer.fcgi.begin({"PATH_INFO": "/digest", "REQUEST_METHOD": "POST"})
            peer.send(sent, peer.fcgi.body(b"x" * (2 * MEBIBYTE + 1)))
            assert peer.reply().status == 413
        assert len(alarms(pool)) == 1

    def test_a_length_beyond_all_measure(self, pool: Pool) -> None:
        with Peer(pool.socket) as peer:
            peer.send(peer.begin("/digest", CONTENT_LENGTH="9" * 5000))
            assert peer.reply().status == 413

    def test_the_answer_arrives_though_the_peer_sends_on(
        self, spawn: Spawner, address: tuple[socket.socket, list[object]]
    ) -> None:
        """Reset, it would be lost: 20 MiB are on their way when the connection is closed."""
        listener, options = address
        fd = listener.fileno()
        pool = spawn("-n", 1, "--app", APP, "--max-body", "2M", *options, pass_fds=(fd,))
        assert LINGER_BYTES > 20 * MEBIBYTE
        for _ in range(5):
            sock = socket.socket(listener.family)
            sock.connect(listener.getsockname())
            with Peer(sock) as peer:
                begin = peer.begin("/digest", CONTENT_LENGTH=str(20 * MEBIBYTE))
                peer.send(begin, peer.fcgi.body(b"x" * 20 * MEBIBYTE), peer.fcgi.end_body())
                reply = peer.reply()
                assert reply.status == 413 and reply.ended is not None
                assert peer.closed()
        assert len(alarms(pool)) == 5


class TestParams:
    def test_too_many_bytes(self, pool: Pool) -> None:
        (worker,) = pool.workers()
        with Peer(pool.socket) as peer:
            peer.send(peer.begin("/echo", HTTP_X="x" * 2 * MEBIBYTE), peer.fcgi.end_body())
            assert peer.reply().status == 431
        assert len(alarms(pool)) == 1
        still_serves(pool, worker.pid)

    def test_too_many_of_them(self, pool: Pool) -> None:
        with Peer(pool.socket) as peer:
            many = {f"HTTP_X_{number}": "" for number in range(2000)}
            peer.send(peer.fcgi.begin({"PATH_INFO": "/echo", **many}), peer.fcgi.end_body())
            assert peer.reply().status == 431

    def test_without_an_end(self, pool: Pool) -> None:
        """The answer comes when the ceiling is hit, and what follows does not fill the memory."""
        (worker,) = pool.workers()
        with Peer(pool.socket) as peer:
            peer.expect()
            peer.send(records.encode_begin_request(1))
            record = records.encode_record(RecordType.PARAMS, 1, b"\x01\x84" + b"x" * 60_000)
            peer.send(record * 20)
            assert peer.reply().status == 431
            peer.send(record * 20)
        still_serves(pool, worker.pid)

    def test_a_pair_longer_than_what_holds_it(self, pool: Pool) -> None:
        with Peer(pool.socket) as peer:
            peer.expect()
            peer.send(records.encode_begin_request(1))
            peer.send(records.encode_record(RecordType.PARAMS, 1, b"\xff\xff\xff\xff\x05name"))
            peer.send(records.encode_record(RecordType.PARAMS, 1))
            assert peer.closed()
        assert len(alarms(pool)) == 1


class TestSpool:
    def test_a_large_body_goes_to_a_file_that_is_removed(self, spawn: Spawner, tmp_path: Path) -> None:
        pool = spawn("-n", 1, "--app", APP, env={"TMPDIR": str(tmp_path)})
        (worker,) = pool.workers()
        before = sorted(os.listdir(tmp_path))
        body = os.urandom(BODY_IN_MEMORY * 5)
        with Peer(pool.socket) as peer:
            request = peer.request("/digest", body)
            peer.send(request[: len(request) // 2])
            wait_until(lambda: spooled(worker.pid, tmp_path), what="temporary file")
            peer.send(request[len(request) // 2 :])
            expected = f"{len(body)} {hashlib.sha256(body).hexdigest()}\n"
            assert peer.reply().body == expected.encode()
            wait_until(lambda: not spooled(worker.pid, tmp_path), what="end of the temporary file")
        assert sorted(os.listdir(tmp_path)) == before

    def test_it_is_removed_when_the_upload_is_given_up(self, spawn: Spawner, tmp_path: Path) -> None:
        pool = spawn("-n", 1, "--app", APP, env={"TMPDIR": str(tmp_path)})
        (worker,) = pool.workers()
        body = b"x" * BODY_IN_MEMORY * 2
        with Peer(pool.socket) as kept, Peer(pool.socket) as gone:
            for peer in (kept, gone):
                peer.send(peer.begin("/digest", CONTENT_LENGTH="9999999"), peer.fcgi.body(body))
            wait_until(lambda: len(spooled(worker.pid, tmp_path)) == 2, what="two temporary files")
            kept.send(kept.fcgi.abort())
            assert kept.reply().ended is not None
            gone.reset()
            wait_until(lambda: not spooled(worker.pid, tmp_path), what="end of the temporary files")

    def test_a_full_disk(self, spawn: Spawner, tmp_path: Path) -> None:
        assert os.geteuid() == 0, "only root can mount a small file system"
        small = tmp_path / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
        try:
            pool = spawn("-n", 1, "--app", APP, env={"TMPDIR": str(small)})
            (worker,) = pool.workers()
            body = b"x" * 4 * MEBIBYTE
            for _ in range(3):
                with Peer(pool.socket) as peer:
                    peer.send(peer.request("/digest", body))
                    reply = peer.reply()
                    assert reply.status == 500 and b"could not be stored" in reply.body
            # A body that does fit is served, so nothing of the others is left.
            with Peer(pool.socket) as peer:
                peer.send(peer.request("/digest", b"x" * (MEBIBYTE // 2)))
                assert peer.reply().status == 200
            still_serves(pool, worker.pid)
            pool.wait_for_line("cannot keep the body of a request: .*No space left")
            pool.stop()
        finally:
            subprocess.run(["umount", small], check=True)


class TestTimes:
    def test_a_slow_upload_keeps_nobody_waiting_and_arrives(self, pool: Pool) -> None:
        with Peer(pool.socket) as slow:
            request = slow.request("/digest", b"abcdefgh" * 10)
            for position in range(len(request)):
                slow.send(request[position : position + 1])
                if position % 20 == 0:
                    with Peer(pool.socket) as other:
                        assert other.get("/echo", keep=False).status == 200
            assert slow.reply().body.startswith(b"80 ")

    def test_a_request_that_does_not_end(self, spawn: Spawner) -> None:
        """The time is for the whole of it: bytes that trickle in gain none."""
        pool = spawn("-n", 1, "--app", APP, "--receive-timeout", "1s", "--keep-alive-timeout", "60s")
        (worker,) = pool.workers()
        with Peer(pool.socket) as peer:
            peer.send(peer.begin("/digest", CONTENT_LENGTH="1000000"))
            peer.sock.settimeout(0.05)

            def trickle() -> Optional[Reply]:
                with contextlib.suppress(TimeoutError):
                    peer.send(peer.fcgi.body(b"x"))
                    return peer.reply()
                return None

            assert wait_until(trickle, what="end of it").status == 408
        assert len(alarms(pool)) == 1
        still_serves(pool, worker.pid)

    def test_connections_that_say_little_or_nothing(self, spawn: Spawner) -> None:
        pool = spawn("-n", 1, "--app", APP, "--receive-timeout", "0.5s")
        with Peer(pool.socket) as silent, Peer(pool.socket) as partial, Peer(pool.socket) as params:
            partial.send(records.encode_begin_request(1)[:5])
            params.send(params.begin("/echo")[:100])
            assert silent.closed()
            assert partial.closed()
            assert params.reply().status == 408

    def test_an_idle_connection_is_closed_after_its_time(self, spawn: Spawner) -> None:
        pool = spawn("-n", 1, "--app", APP, "--keep-alive-timeout", "0.5s")
        with Peer(pool.socket) as peer:
            for _ in range(3):
                assert peer.get("/echo").status == 200
            assert peer.closed()
        assert not alarms(pool)

    def test_what_came_during_a_long_request_is_not_too_late(self, spawn: Spawner) -> None:
        """The only worker was busy for longer than both time-outs: that is not the peers' fault."""
        timeouts = ("--receive-timeout", "1s", "--keep-alive-timeout", "1s")
        pool = spawn("-n", 1, "--app", APP, *timeouts)
        with Peer(pool.socket) as long, Peer(pool.socket) as idle, Peer(pool.socket) as upload:
            assert idle.get("/echo").status == 200
            request = upload.request("/digest", b"x" * 500_000)
            upload.send(request[:1000])
            long.send(long.request("/sleep?seconds=2.5"))
            pool.wait_workers(1, "busy")
            idle.send(idle.request("/echo"))
            upload.send(request[1000:])
            assert long.reply().status == 200
            assert idle.reply().status == 200
            assert upload.reply().body.startswith(b"500000 ")
        assert not alarms(pool)

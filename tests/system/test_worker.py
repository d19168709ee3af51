"""No input from the socket makes a worker die, hang, or grow without bound."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workers.fastcgi import records
from workers.fastcgi.client import Stdout

from .clients import fcgi_load
from .peer import Peer, alarms
from .pools import Pool, Spawner
from .processes import wait_until

APP = "tests.system.apps:application"
STREAMS = "tests.system.streams:application"


def cpu_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    """Bytes resident."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def pids(pool: Pool) -> list[int]:
    return [worker.pid for worker in pool.workers()]


class TestPeersThatVanish:
    @pytest.fixture(params=["unix", "tcp"])
    def where(self, request: pytest.FixtureRequest, spawn: Spawner, tmp_path: Path) -> tuple[Pool, object]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            fd = listener.fileno()
            options = ("-n", 1, "--app", STREAMS, "--listen", f"fd://{fd}")
            pool = spawn(*options, env={"TEST_MARKS": str(tmp_path)}, pass_fds=(fd,))
            return pool, listener.getsockname() if request.param == "tcp" else pool.socket

    def test_before_and_within_a_request(self, where: tuple[Pool, Path]) -> None:
        pool, address = where
        before = pids(pool)
        open_before = descriptors(before[0])
        with Peer(address) as pattern:
            whole = pattern.request("/", b"x" * 1000)
        for cut in (0, 5, 16, 100, len(whole) - 500, len(whole) - 8, len(whole)):
            for reset in (True, False):
                with Peer(address) as peer:
                    peer.send(whole[:cut])
                    if reset:
                        peer.reset()
        with Peer(address) as peer:
            assert peer.get("/").status == 200
        wait_until(lambda: descriptors(before[0]) <= open_before, what="end of the connections")
        assert pids(pool) == before
        assert not alarms(pool)

    def test_during_the_answer(self, where: tuple[Pool, Path], tmp_path: Path) -> None:
        """Its close() is called, once, and not more than a line is said about it."""
        pool, address = where
        before = pids(pool)
        with Peer(address) as peer:
            peer.send(peer.request("/stream?count=1000000&size=10000"))
            assert isinstance(peer.event(), Stdout)
            peer.reset()
        with Peer(address) as peer:
            assert peer.get("/").status == 200
        assert (tmp_path / "closed").read_text() == "x"
        assert pids(pool) == before
        assert len(alarms(pool)) <= 1

    def test_before_the_answer(self, where: tuple[Pool, Path], tmp_path: Path) -> None:
        pool, address = where
        before = pids(pool)
        with Peer(address) as peer:
            peer.send(peer.request("/hold"))
            wait_until((tmp_path / "held").exists)
            peer.reset()
        (tmp_path / "release").touch()
        with Peer(address) as peer:
            assert peer.get("/").status == 200
        assert pids(pool) == before
        assert len(alarms(pool)) <= 1

    def test_instead_of_reading_replies(self, where: tuple[Pool, Path]) -> None:
        """Who asks and asks and never reads the answers is hung up on."""
        pool, address = where
        before = pids(pool)
        for kind in (9, 77):
            with Peer(address) as peer:
                question = records.encode_record(kind, 0, records.encode_pairs([("FCGI_MAX_REQS", "")]))
                with pytest.raises(OSError):
                    for _ in range(1000):
                        peer.send(question * 2000)
        for refused in (peer.fcgi.begin({}, 2, role=3), peer.request("/")[:16], b""):
            with Peer(address) as peer:
                peer.send(peer.begin("/"), refused * 10)
                peer.reset()
        with Peer(address) as peer:
            assert peer.get("/").status == 200
        assert pids(pool) == before
        assert len(alarms(pool)) <= 2


class TestGarbage:
    def test_a_flood_of_it(self, spawn: Spawner) -> None:
        pool = spawn("-n", 2, "--app", APP)
        before = pids(pool)
        dice = random.Random(11)
        self.flood(pool, dice, 300)
        used = [memory(pid) for pid in before]
        self.flood(pool, dice, 2500)
        assert pids(pool) == before
        for pid, was in zip(before, used):
            assert memory(pid) < was + (16 << 20)
        with Peer(pool.socket) as peer:
            assert peer.get("/echo").status == 200
        assert "Traceback" not in pool.log

    @staticmethod
    def flood(pool: Pool, dice: random.Random, connections: int) -> None:
        pattern = Peer(socket.socket())
        request = pattern.request("/digest", b"x" * 100)
        pattern.sock.close()
        for _ in range(connections):
            kind = dice.randrange(3)
            if kind == 0:
                data = dice.randbytes(dice.randrange(200))
            elif kind == 1:  # records that are well formed, of any type and id
                data = b"".join(
                    records.encode_record(dice.randrange(13), dice.randrange(3), dice.randbytes(8))
                    for _ in range(8)
                )
            else:  # a request with some bytes of it changed
                mutable = bytearray(request)
                for _ in range(dice.randrange(1, 5)):
                    mutable[dice.randrange(len(mutable))] = dice.randrange(256)
                data = bytes(mutable)
            with Peer(pool.socket) as peer:
                try:
                    peer.send(data)
                except OSError:
                    pass  # hung up on already

    def test_one_line_for_each_connection_at_most(self, spawn: Spawner) -> None:
        pool = spawn("-n", 1, "--app", APP)
        for _ in range(20):
            with Peer(pool.socket) as peer:
                peer.send(b"\x80" * 1000)
                assert peer.closed()
        assert len(alarms(pool)) == 20


class TestDescriptors:
    def test_more_idle_connections_than_there_is_room_for(self, spawn: Spawner) -> None:
        """The one that has been idle the longest makes room; whoever has work to do is served."""
        pool = spawn("-n", 1, "--app", APP, "--rlimit-files", 60)
        (worker,) = pool.workers()
        peers = []
        try:
            for _ in range(100):
                peers.append(Peer(pool.socket))
                assert peers[-1].get("/echo").status == 200
            assert descriptors(worker.pid) < 45
            assert peers[0].closed()
            assert peers[-1].get("/echo").status == 200
        finally:
            for peer in peers:
                peer.sock.close()
        assert pids(pool) == [worker.pid]
        assert len(alarms(pool)) == 1

    def test_more_uploads_than_there_is_room_for(self, spawn: Spawner) -> None:
        """They wait in the queue, without the worker spinning, and are served when others end."""
        pool = spawn("-n", 1, "--app", APP, "--rlimit-files", 60)
        (worker,) = pool.workers()
        peers = [Peer(pool.socket) for _ in range(40)]
        try:
            # Accepted or not: a web server that has connected is about to send.
            for peer in peers:
                peer.send(peer.begin("/digest", CONTENT_LENGTH="3"))
            pool.wait_for_line("cannot accept: too many connections .*--rlimit-files")
            before = cpu_time(worker.pid)
            peers[-1].sock.settimeout(1)
            with pytest.raises(TimeoutError):
                peers[-1].event()
            assert cpu_time(worker.pid) - before < 0.5
            peers[-1].sock.settimeout(20)
            for peer in peers:
                peer.send(peer.fcgi.body(b"abc"), peer.fcgi.end_body())
                # Those that wait in the queue are accepted when there is room.
                assert peer.reply().body.startswith(b"3 ")
                peer.sock.close()
        finally:
            for peer in peers:
                peer.sock.close()
        assert pids(pool) == [worker.pid]
        assert len(alarms(pool)) == 1

    def test_no_descriptors_left_at_all(self, spawn: Spawner) -> None:
        pool = spawn("-n", 1, "--app", APP)
        (worker,) = pool.workers()
        soft, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (3, hard))
        with Peer(pool.socket) as peer:
            peer.send(peer.request("/echo"))
            pool.wait_for_line("cannot accept: Too many open files")
            before = cpu_time(worker.pid)
            peer.sock.settimeout(1)
            with pytest.raises(TimeoutError):
                peer.event()
            assert cpu_time(worker.pid) - before < 0.5
            resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (soft, hard))
            peer.sock.settimeout(20)
            assert peer.reply().status == 200
        assert len(alarms(pool)) == 1
        assert pids(pool) == [worker.pid]


class TestLeaving:
    def test_a_connection_without_its_request_yet_is_waited_for(self, spawn: Spawner) -> None:
        """A web server that has connected is about to send."""
        pool = spawn("-n", 1, "--app", APP)
        with Peer(pool.socket) as fresh, Peer(pool.socket) as first:
            assert first.get("/echo").status == 200  # so the other one has been accepted
            pool.signal(signal.SIGTERM)
            # The socket's path goes first: from now on the workers are told.
            wait_until(lambda: not pool.socket.exists())
            fresh.send(fresh.request("/echo?id=late"))
            assert b"id=late" in fresh.reply().body
        assert pool.wait_exit() == 0
        assert not alarms(pool)

    def test_requests_half_received_are_finished(self, spawn: Spawner) -> None:
        pool = spawn("-n", 1, "--app", APP)
        with Peer(pool.socket) as peer, Peer(pool.socket) as first:
            request = peer.request("/digest", b"x" * 1000)
            peer.send(request[:500])
            assert first.get("/echo").status == 200
            pool.signal(signal.SIGTERM)
            wait_until(lambda: not pool.socket.exists())
            assert first.closed()
            peer.send(request[500:])
            assert peer.reply().body.startswith(b"1000 ")
        assert pool.wait_exit() == 0

    def test_a_worker_that_is_retired_under_load_loses_nothing(self, spawn: Spawner) -> None:
        pool = spawn("-n", 2, "--app", APP, "--max-requests", 20)
        with fcgi_load(pool.socket) as load:
            load.wait_for(600)
        load.check(at_least=600)
        assert not alarms(pool)

    def test_orphans_leave_while_connections_idle(self, spawn: Spawner) -> None:
        pool = spawn("-n", 2, "--app", APP)
        workers = pids(pool)
        peers = [Peer(pool.socket) for _ in range(10)]
        for peer in peers:
            assert peer.get("/echo").status == 200
        pool.signal(signal.SIGKILL)
        begun = time.monotonic()
        for peer in peers:
            assert peer.closed()
        wait_until(lambda: not any(Path(f"/proc/{pid}/fd/0").exists() for pid in workers))
        assert time.monotonic() - begun < 5

    def test_the_signal_of_the_masters_end_may_come_while_its_channel_is_being_closed(self) -> None:
        script = (
            "import signal\n"
            "from workers.application import Application\n"
            "from workers.channel import Channel\n"
            "from workers.scoreboard import Scoreboard\n"
            "from workers.worker import Worker, WorkerConfig\n"
            "class Told(Channel):\n"
            "    def close(self):\n"
            "        super().close()\n"
            "        signal.raise_signal(signal.SIGTERM)\n"
            "ours, theirs = Channel.pair()\n"
            "slot, channel = Scoreboard(1).slot(1), Told(theirs.socket)\n"
            "ours.close()\n"
            "Worker(Application(None), (), WorkerConfig(), slot=slot, name='x', channel=channel).run()\n"
        )
        subprocess.run([sys.executable, "-c", script], check=True, timeout=60)

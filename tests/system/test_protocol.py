"""FastCGI 1.0 from the other end: what a web server may send, and what none should."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest

from workers.fastcgi import records
from workers.fastcgi.client import RequestEnded, Stdout, UnknownType, Values, split_head
from workers.fastcgi.records import ProtocolStatus, RecordType, Role

from .clients import params
from .peer import Peer, alarms
from .pools import Pool, Spawner
from .processes import wait_gone

APP = "tests.system.apps:application"
STREAMS = "tests.system.streams:application"


@pytest.fixture
def pool(spawn: Spawner) -> Pool:
    return spawn("-n", 1, "--app", APP)


@pytest.fixture
def streams(spawn: Spawner, tmp_path: Path) -> Pool:
    return spawn("-n", 1, "--app", STREAMS, env={"TEST_MARKS": str(tmp_path)})


def test_records_are_understood_wherever_they_are_split(pool: Pool) -> None:
    body = bytes(range(256)) * 3
    with Peer(pool.socket) as peer:
        whole = Peer(peer.sock).request("/digest", body)
        for cut in (1, 7, 8, 9, 15, 16, 17, 24, 25, len(whole) - 9, len(whole) - 1):
            peer.expect()
            peer.send(whole[:cut])
            peer.send(whole[cut:])
            assert peer.reply().body.startswith(b"768 ")
        peer.expect()
        for position in range(len(whole)):
            peer.send(whole[position : position + 1])
        assert peer.reply().body.startswith(b"768 ")
        split = random.Random(7)
        for _ in range(20):
            rest = whole
            peer.expect()
            while rest:
                size = split.randint(1, 200)
                peer.send(rest[:size])
                rest = rest[size:]
            assert peer.reply().body.startswith(b"768 ")


def test_streams_in_many_small_padded_records(pool: Pool) -> None:
    pairs = records.encode_pairs(params("/digest", "POST", CONTENT_LENGTH="300").items())
    with Peer(pool.socket) as peer:
        peer.expect(9)
        sent = [records.encode_begin_request(9)]
        for start in range(0, len(pairs), 5):
            part = pairs[start : start + 5]
            sent.append(records.encode_record(RecordType.PARAMS, 9, part, padding=start % 256))
        sent.append(records.encode_record(RecordType.PARAMS, 9, padding=255))
        sent += [records.encode_record(RecordType.STDIN, 9, b"abc", padding=1)] * 100
        sent.append(records.encode_record(RecordType.STDIN, 9))
        peer.send(*sent)
        assert peer.reply().body.startswith(b"300 ")
        assert peer.closed()


def test_every_id_that_there_is(pool: Pool) -> None:
    with Peer(pool.socket) as peer:
        for id in (1, 2, 255, 256, 32768, 65535):
            reply = peer.get("/echo?id=x", id=id)
            assert reply.ended == RequestEnded(id, 0, ProtocolStatus.REQUEST_COMPLETE)
            assert b"id=x" in reply.body


def test_the_connection_is_kept_when_asked_for_and_closed_when_not(pool: Pool) -> None:
    with Peer(pool.socket) as peer:
        assert peer.get("/echo").status == 200
        assert peer.get("/nothing").status == 404
        assert peer.get("/raise").status == 500
        assert peer.get("/echo", keep=False).status == 200
        assert peer.closed()


def test_a_second_request_at_once_is_refused_and_the_first_goes_on(pool: Pool) -> None:
    with Peer(pool.socket) as peer:
        peer.send(peer.begin("/digest", id=1, REQUEST_METHOD="POST", CONTENT_LENGTH="3"))
        peer.send(peer.request("/echo", id=2))
        assert peer.event() == RequestEnded(2, 0, ProtocolStatus.CANT_MPX_CONN)
        peer.send(peer.fcgi.body(b"abc"), peer.fcgi.end_body())
        assert peer.reply().body.startswith(b"3 ")
        assert peer.get("/echo", id=2).status == 200


@pytest.mark.parametrize("role", [Role.AUTHORIZER, Role.FILTER, 0, 65535])
def test_another_role_is_refused_and_the_connection_goes_on(pool: Pool, role: int) -> None:
    with Peer(pool.socket) as peer:
        peer.send(peer.fcgi.begin({}, 5, role=role, keep_connection=True), peer.fcgi.end_body(5))
        assert peer.event() == RequestEnded(5, 0, ProtocolStatus.UNKNOWN_ROLE)
        assert peer.get("/echo").status == 200


def test_management_records_are_answered_at_any_time(pool: Pool) -> None:
    names = [records.FCGI_MAX_CONNS, records.FCGI_MAX_REQS, records.FCGI_MPXS_CONNS, "OTHER"]
    expected = Values({names[0]: "1", names[1]: "1", names[2]: "0"})
    with Peer(pool.socket) as peer:
        peer.send(peer.fcgi.get_values(names))
        assert peer.event() == expected
        begin = peer.request("/digest", b"abc")
        peer.send(begin[:-8], peer.fcgi.get_values(names), records.encode_record(77, 0, b"?"))
        assert peer.event() == expected
        assert peer.event() == UnknownType(77)
        peer.send(begin[-8:])
        assert peer.reply().body.startswith(b"3 ")


def test_records_for_an_inactive_id_and_of_unknown_type_are_passed_over(pool: Pool) -> None:
    with Peer(pool.socket) as peer:
        strays = [
            records.encode_record(kind, 7, b"stray")
            for kind in (RecordType.STDIN, RecordType.PARAMS, RecordType.DATA, RecordType.ABORT_REQUEST, 99)
        ]
        request = peer.request("/digest", b"abc")
        peer.send(*strays, request[:-8], *strays, request[-8:])
        assert peer.reply().body.startswith(b"3 ")
        assert peer.get("/echo").status == 200


@pytest.mark.parametrize(
    "record",
    [
        records.encode_record(RecordType.BEGIN_REQUEST, 1, b"\0\1\1"),
        b"\2" + records.encode_begin_request(1)[1:],
        b"\0" + records.encode_begin_request(1)[1:],
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["short BEGIN", "version 2", "version 0", "HTTP"],
)
def test_what_is_not_fastcgi_ends_the_connection(pool: Pool, record: bytes) -> None:
    (worker,) = pool.workers()
    with Peer(pool.socket) as peer:
        assert peer.get("/echo").status == 200
        peer.send(record)
        assert peer.closed()
    with Peer(pool.socket) as peer:
        assert f"pid={worker.pid}\n".encode() in peer.get("/echo").body
    (line,) = alarms(pool)
    assert "does not speak FastCGI" in line


class TestAbort:
    def test_before_the_parameters_are_complete(self, pool: Pool) -> None:
        with Peer(pool.socket) as peer:
            peer.send(peer.begin("/echo")[:40])
            peer.send(peer.begin("/echo")[40:-8], peer.fcgi.abort())
            self.check_ended(peer)

    def test_before_the_body(self, pool: Pool) -> None:
        with Peer(pool.socket) as peer:
            peer.send(peer.begin("/echo"), peer.fcgi.abort())
            self.check_ended(peer)

    def test_within_the_body(self, pool: Pool) -> None:
        with Peer(pool.socket) as peer:
            peer.send(peer.begin("/digest", CONTENT_LENGTH="3000000"), peer.fcgi.body(b"x" * 2_000_000))
            peer.send(peer.fcgi.abort())
            self.check_ended(peer)
            peer.send(peer.fcgi.body(b"late"), peer.fcgi.end_body(), peer.fcgi.abort())
            assert peer.get("/echo").status == 200

    def test_together_with_the_end_of_the_body(self, pool: Pool) -> None:
        with Peer(pool.socket) as peer:
            peer.send(peer.request("/echo"), peer.fcgi.abort())
            self.check_ended(peer)

    def test_after_the_answer(self, pool: Pool) -> None:
        with Peer(pool.socket) as peer:
            assert peer.get("/echo").status == 200
            peer.send(peer.fcgi.abort(), peer.fcgi.abort(2))
            assert peer.get("/echo").status == 200

    def test_of_a_connection_that_is_not_kept(self, pool: Pool) -> None:
        with Peer(pool.socket) as peer:
            peer.send(peer.begin("/echo", keep=False), peer.fcgi.abort())
            assert peer.reply().ended == RequestEnded(1, 0, ProtocolStatus.REQUEST_COMPLETE)
            assert peer.closed()

    def test_during_a_long_answer(self, streams: Pool, tmp_path: Path) -> None:
        """The answer ends at once, but properly, and the connection can be used again."""
        with Peer(streams.socket) as peer:
            peer.send(peer.request("/stream?count=1000000&steps=1"))
            while b"xxxxxxxxxx" not in (event := peer.event()).data:  # type: ignore[union-attr]
                assert isinstance(event, Stdout)
            # With more behind it, which must not stay unread for ever.
            peer.send(peer.fcgi.abort(), peer.fcgi.get_values([records.FCGI_MPXS_CONNS]))
            (tmp_path / "go1").touch()
            assert isinstance(peer.event(), Values)
            assert peer.reply().ended == RequestEnded(1, 0, ProtocolStatus.REQUEST_COMPLETE)
            assert (tmp_path / "closed").read_text() == "x"
            assert peer.get("/").status == 200
        assert not alarms(streams)

    def test_during_one_large_block(self, pool: Pool) -> None:
        """An application that hands out everything at once is stopped between two pieces of it."""
        size = 64 << 20
        with Peer(pool.socket) as peer:
            peer.send(peer.request(f"/large?bytes={size}"))
            assert isinstance(peer.event(), Stdout)
            peer.send(peer.fcgi.abort())
            reply = peer.reply()
            assert reply.ended == RequestEnded(1, 0, ProtocolStatus.REQUEST_COMPLETE)
            assert len(reply.stdout) < size // 2
            assert peer.get("/echo").status == 200

    @staticmethod
    def check_ended(peer: Peer) -> None:
        reply = peer.reply()
        assert (reply.stdout, reply.stderr) == (b"", b"")
        assert reply.ended == RequestEnded(1, 0, ProtocolStatus.REQUEST_COMPLETE)
        assert peer.get("/echo").status == 200


class TestAnswers:
    def test_the_error_stream_goes_to_the_web_server(self, streams: Pool) -> None:
        with Peer(streams.socket) as peer:
            reply = peer.get("/errors?text=w%C3%B6rd%0A")
            assert reply.stderr == "w\u00f6rd\n".encode()
            assert reply.status == 200
            assert peer.get("/").stderr == b""

    def test_the_first_block_does_not_wait_for_the_second(self, streams: Pool, tmp_path: Path) -> None:
        with Peer(streams.socket) as peer:
            peer.send(peer.request("/stream?count=2&steps=1&length=20"))
            event = peer.event()
            assert isinstance(event, Stdout) and event.data.endswith(b"\r\n\r\nxxxxxxxxxx")
            (tmp_path / "go1").touch()
            assert peer.reply().stdout == b"xxxxxxxxxx"

    def test_an_answer_shorter_than_announced_has_no_end(self, streams: Pool, tmp_path: Path) -> None:
        with Peer(streams.socket) as peer:
            reply = peer.get("/stream?count=2&length=21")
            assert reply.ended is None and reply.body == b"x" * 20
        assert (tmp_path / "closed").read_text() == "x"
        (line,) = alarms(streams)
        assert "1 bytes shorter than its Content-Length" in line

    def test_an_answer_longer_than_announced_is_cut(self, streams: Pool, tmp_path: Path) -> None:
        with Peer(streams.socket) as peer:
            reply = peer.get("/stream?count=1000000&length=15")
            assert reply.ended is not None and reply.body == b"x" * 15
            assert peer.get("/").status == 200
        assert (tmp_path / "closed").read_text() == "x"

    def test_an_exception_in_mid_answer_leaves_it_without_an_end(self, streams: Pool) -> None:
        with Peer(streams.socket) as peer:
            reply = peer.get("/fail")
            assert reply.ended is None and reply.body == b"half of it"

    def test_sys_exit_ends_the_request_alone(self, streams: Pool) -> None:
        (worker,) = streams.workers()
        with Peer(streams.socket) as peer:
            assert peer.get("/exit").status == 500
            assert peer.get("/").body == f"pid={worker.pid}\n".encode()

    def test_a_large_answer_to_a_slow_reader(self, pool: Pool) -> None:
        size = 8 << 20
        with Peer(pool.socket) as peer:
            peer.read_size = 4000
            reply = peer.get(f"/large?bytes={size}")
            assert reply.ended is not None and reply.body == b"x" * size

    @pytest.mark.parametrize("keep", [True, False])
    def test_a_slow_reader_keeps_nobody_from_being_served(self, pool: Pool, keep: bool) -> None:
        """As Apache and nginx without buffering are: they read as their visitor does."""
        size = 8 << 20
        with Peer(pool.socket) as slow, Peer(pool.socket) as other:
            slow.send(slow.request(f"/large?bytes={size}", keep=keep))
            first = slow.event()
            assert isinstance(first, Stdout)
            for _ in range(10):
                assert other.get("/echo").status == 200
            pool.wait_workers(1, "idle")
            reply = slow.reply()
            assert len(split_head(first.data + reply.stdout)[1]) == size and reply.ended is not None
            if keep:
                assert slow.get("/echo").status == 200
            else:
                assert slow.closed()
        assert not alarms(pool)

    def test_a_worker_that_leaves_takes_its_slow_readers_to_the_end(self, spawn: Spawner) -> None:
        pool = spawn("-n", 1, "--app", APP, "--max-requests", 2, "--max-requests-jitter", 0)
        (first,) = pool.workers()
        size = 8 << 20
        with Peer(pool.socket) as slow:
            slow.send(slow.request(f"/large?bytes={size}"))
            start = slow.event()
            assert isinstance(start, Stdout)
            with Peer(pool.socket) as other:
                while b"pid=%d\n" % first.pid in other.get("/echo").body:
                    pass
            reply = slow.reply()
            assert len(split_head(start.data + reply.stdout)[1]) == size and reply.ended is not None
        wait_gone([first.pid])
        assert not alarms(pool)

    def test_an_answer_of_more_buffers_than_one_write_takes(self, pool: Pool) -> None:
        size = 80 << 20  # over IOV_MAX (1024) records with a header and a content each
        with Peer(pool.socket) as peer:
            reply = peer.get(f"/large?bytes={size}")
            assert len(reply.body) == size and reply.ended is not None

    @pytest.mark.parametrize("kind", ["unix", "tcp"])
    def test_it_is_not_reset_when_the_peer_sends_on(self, spawn: Spawner, kind: str) -> None:
        """What is unread when a socket is closed would reset the connection."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            fd = listener.fileno()
            pool = spawn("-n", 1, "--listen", f"fd://{fd}", "--app", APP, pass_fds=(fd,))
            where = pool.socket if kind == "unix" else listener.getsockname()
        size = 3_000_000
        with Peer(where) as peer:
            peer.send(peer.request(f"/large?bytes={size}", keep=False))
            first = peer.event()
            assert isinstance(first, Stdout)
            peer.send(peer.fcgi.body(b"?" * 100_000))
            reply = peer.reply()
            assert len(first.data + reply.stdout) > size and reply.ended is not None
            assert peer.closed()
        assert not alarms(pool)


def test_idle_connections_move_when_their_worker_leaves(spawn: Spawner) -> None:
    """Each request of a kept-open connection is answered, however often the workers change."""
    pool = spawn("-n", 2, "--app", APP, "--max-requests", 7, "--max-requests-jitter", 0)
    peers = [Peer(pool.socket) for _ in range(20)]
    pids = set()
    try:
        for round in range(30):
            for number, peer in enumerate(peers):
                reply = peer.get(f"/echo?id={number}x{round}y")
                assert f"id={number}x{round}y ".encode() in reply.body
                pids.add(reply.body.split(b"pid=")[1])
    finally:
        for peer in peers:
            peer.sock.close()
    assert len(pids) > 8
    assert not alarms(pool)


def test_two_hundred_idle_connections_cost_nothing(spawn: Spawner) -> None:
    pool = spawn("-n", 1, "--app", APP)
    (worker,) = pool.workers()
    peers = [Peer(pool.socket) for _ in range(200)]
    try:
        for peer in peers:
            assert peer.get("/echo").status == 200
        pool.wait_workers(1, "idle")
        before = switches(worker.pid)
        with pytest.raises(TimeoutError):
            peers[0].sock.settimeout(1)
            peers[0].event()
        assert switches(worker.pid) - before <= 2
        with Peer(pool.socket) as other:
            assert other.get("/echo").status == 200
        for peer in peers[::20]:
            peer.sock.settimeout(20)
            assert peer.get("/echo").status == 200
    finally:
        for peer in peers:
            peer.sock.close()


def switches(pid: int) -> int:
    """How often the process has gone to sleep."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    raise AssertionError("not Linux")


def test_a_connection_wakes_one_worker(spawn: Spawner) -> None:
    """Not the whole pool, of which all but one would find nothing."""
    pool = spawn("-n", 16, "--app", APP)
    workers = pool.wait_workers(16, "idle")
    before = sum(switches(worker.pid) for worker in workers)
    for _ in range(200):
        with Peer(pool.socket) as peer:
            assert peer.get("/echo", keep=False).status == 200
    # One for the connection, another for a request that comes later, a third for the title.
    assert sum(switches(worker.pid) for worker in workers) - before < 200 * 4


def test_a_peer_that_has_half_closed_gets_its_answer(pool: Pool) -> None:
    with Peer(pool.socket) as peer:
        peer.send(peer.request("/large?bytes=3000000"))
        peer.sock.shutdown(socket.SHUT_WR)
        assert len(peer.reply().body) == 3_000_000
        assert peer.closed()

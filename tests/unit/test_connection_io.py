"""workers/connection.py between two sockets of this process: reading never waits; writing."""

from __future__ import annotations

import io
import logging
import socket
import tempfile
import time
from collections.abc import Iterator
from typing import Optional

import pytest

from workers import connection as module
from workers import outgoing
from workers.answer import PIECE, AnswerOutput
from workers.connection import BODY_IN_MEMORY, Ceilings, Connection
from workers.environ import BadRequest
from workers.fastcgi.client import ClientConnection, RequestEnded, Stderr, Stdout, Values
from workers.fastcgi.connection import NEED_DATA, PeerClosed
from workers.fastcgi.records import RemoteProtocolError
from workers.wsgi import PeerGone

PARAMS = {"REQUEST_METHOD": "POST", "REQUEST_URI": "/here"}
COMPLETE = RequestEnded(1, 0, 0)


class Ends:
    """Both ends of a connection: ``ours`` under test, ``theirs`` by hand."""

    def __init__(self, ceilings: Ceilings, network: bool = True) -> None:
        theirs, ours = socket.socketpair()
        self.sock = theirs
        self.theirs = ClientConnection()
        self.ours = Connection(ours, ceilings, network)

    def begin(self, keep: bool = True, **more: str) -> bytes:
        return self.theirs.begin({**PARAMS, **more}, keep_connection=keep)

    def request(self, body: bytes = b"", keep: bool = True) -> bytes:
        more = {"CONTENT_LENGTH": str(len(body))} if body else {}
        return self.begin(keep, **more) + self.theirs.body(body) + self.theirs.end_body()

    def feed(self, *data: bytes) -> bool:
        """Send all of it while the other end receives; what its last receive() said."""
        self.sock.setblocking(False)
        rest = memoryview(b"".join(data))
        complete = False
        while rest:
            try:
                rest = rest[self.sock.send(rest) :]
            except BlockingIOError:
                pass
            complete = self.ours.receive()
        while self.waiting():
            complete = self.ours.receive()
        self.sock.setblocking(True)
        return complete

    def waiting(self) -> bool:
        try:
            return bool(self.ours.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def events(self) -> list[object]:
        """What has been said to the peer so far."""
        found: list[object] = []
        while True:
            try:
                self.theirs.receive_data(self.sock.recv(1 << 20, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return found
            try:
                while (event := self.theirs.next_event()) is not NEED_DATA:
                    found.append(event)
                    if isinstance(event, PeerClosed):
                        return found
            except RemoteProtocolError:
                return [*found, CUT]


#: The mark of an answer that is cut off: bytes that are no record.
CUT = "cut"


@pytest.fixture
def ceilings() -> Ceilings:
    return Ceilings(max_body=BODY_IN_MEMORY * 4)


@pytest.fixture
def ends(ceilings: Ceilings) -> Iterator[Ends]:
    ends = Ends(ceilings)
    yield ends
    ends.sock.close()
    ends.ours.close()


def test_a_whole_request_at_once(ends: Ends) -> None:
    assert ends.ours.fresh and ends.ours.idle
    assert ends.feed(ends.request(b"body"))
    assert not ends.ours.fresh and not ends.ours.idle
    assert ends.ours.params["REQUEST_URI"] == "/here"
    assert ends.ours.body.read() == b"body"
    AnswerOutput(ends.ours).send([b"Status: 200 OK\r\n\r\n"], True)
    ends.ours.finish(True)
    assert ends.events() == [Stdout(1, b"Status: 200 OK\r\n\r\n"), COMPLETE]
    assert ends.ours.idle and not ends.ours.closed


def test_byte_by_byte(ends: Ends) -> None:
    whole = ends.request(b"body")
    for position in range(len(whole) - 1):
        assert not ends.feed(whole[position : position + 1])
        assert not ends.ours.idle
    assert ends.feed(whole[-1:])


@pytest.mark.parametrize("default", [None, 60.0])
def test_receiving_never_waits(default: Optional[float]) -> None:
    """Not even when a plugin has called socket.setdefaulttimeout()."""
    socket.setdefaulttimeout(default)
    try:
        theirs, ours = socket.socketpair()
    finally:
        socket.setdefaulttimeout(None)
    with theirs, ours:
        connection = Connection(ours, Ceilings())
        assert not connection.receive()
        assert not connection.closed


def test_what_arrives_later_gains_a_request_no_time(ends: Ends) -> None:
    before = time.monotonic()
    ends.feed(ends.begin(CONTENT_LENGTH="100"))
    deadline = ends.ours.deadline
    assert deadline >= before + ends.ours.ceilings.receive_timeout
    ends.feed(ends.theirs.body(b"x"))
    assert ends.ours.deadline == deadline


def test_a_body_beyond_the_memory_is_in_a_file(ends: Ends) -> None:
    body = bytes(range(256)) * (BODY_IN_MEMORY // 100)
    assert ends.feed(ends.request(body))
    assert not isinstance(ends.ours.body, io.BytesIO)
    spool = ends.ours.body
    assert spool.read() == body
    AnswerOutput(ends.ours).send([b"\r\n"], True)
    ends.ours.finish(True)
    assert spool.closed
    assert isinstance(ends.ours.body, io.BytesIO)


def test_nothing_of_one_body_is_seen_by_the_next_request(ends: Ends) -> None:
    for body in (b"first, long", b"", b"third"):
        assert ends.feed(ends.request(body))
        assert ends.ours.body.read() == body
        AnswerOutput(ends.ours).send([b"\r\n"], True)
        ends.ours.finish(True)
    assert ends.feed(ends.begin(CONTENT_LENGTH="9"), ends.theirs.abort()) is False
    assert ends.feed(ends.request(b"fourth"))
    assert ends.ours.body.read() == b"fourth"


def test_the_disk_is_full(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full fails as such a disk does, also when the file is closed."""
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda prefix: open("/dev/full", "w+b"))
    body = b"x" * BODY_IN_MEMORY * 2
    begin = ends.begin(CONTENT_LENGTH=str(len(body)))
    assert ends.feed(begin, ends.theirs.body(body)[: BODY_IN_MEMORY + 65536])
    assert ends.ours.refusal is not None
    ends.ours.refuse(ends.ours.refusal)
    first, *rest = ends.events()
    assert isinstance(first, Stdout) and b"could not be stored" in first.data
    assert rest[0] == COMPLETE
    assert ends.ours.lingering


@pytest.mark.parametrize("keep", [True, False])
def test_a_refusal_within_a_request_lingers(ends: Ends, keep: bool) -> None:
    announced = str(BODY_IN_MEMORY * 9)
    assert ends.feed(ends.begin(keep, CONTENT_LENGTH=announced), ends.theirs.body(b"x" * 1000))
    assert ends.ours.refusal is not None and ends.ours.refusal.status.startswith("413")
    ends.ours.refuse(ends.ours.refusal)
    assert ends.ours.lingering and not ends.ours.closed
    assert not ends.feed(ends.theirs.body(b"x" * 3_000_000))
    assert not ends.ours.closed
    stdout, ended, closed = ends.events()
    assert isinstance(stdout, Stdout) and ended == COMPLETE and isinstance(closed, PeerClosed)
    ends.sock.close()
    ends.ours.receive()
    assert ends.ours.closed


def test_lingering_has_a_bound(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_BYTES", 100_000)
    ends.feed(ends.begin(CONTENT_LENGTH=str(BODY_IN_MEMORY * 9)))
    ends.ours.refuse(BadRequest("413 Content Too Large", "so"))
    ends.feed(b"x" * 100_000)
    assert not ends.ours.closed
    ends.feed(b"x")
    assert ends.ours.closed


def test_a_refusal_of_a_whole_request_keeps_the_connection(ends: Ends) -> None:
    assert ends.feed(ends.begin(CONTENT_LENGTH="x"), ends.theirs.end_body())
    assert ends.ours.refusal is not None
    ends.ours.refuse(ends.ours.refusal)
    assert ends.ours.idle and not ends.ours.lingering
    assert ends.feed(ends.request())
    assert ends.ours.refusal is None


def test_a_refusal_never_waits_for_the_peer(ends: Ends) -> None:
    ends.feed(ends.begin(CONTENT_LENGTH="5"))
    ends.ours.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            ends.ours.socket.send(b"x" * 100_000)
    ends.ours.refuse(BadRequest("408 Request Timeout", "too slow"))
    assert ends.ours.closed


def test_a_connection_over_a_network_waits_for_the_peer_to_close(ends: Ends) -> None:
    assert ends.feed(ends.request(keep=False))
    AnswerOutput(ends.ours).send([b"\r\n"], True)
    ends.ours.finish(True)
    assert ends.ours.lingering and not ends.ours.closed
    ends.feed(b"whatever")
    assert not ends.ours.closed
    ends.sock.close()
    ends.ours.receive()
    assert ends.ours.closed


def test_another_is_closed_after_its_answer() -> None:
    ends = Ends(Ceilings(), network=False)
    with ends.sock, ends.ours.socket:
        assert ends.feed(ends.request(keep=False))
        AnswerOutput(ends.ours).send([b"\r\n"], True)
        ends.ours.finish(True)
        assert ends.ours.closed


def test_an_expired_connection(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    ends.ours.expire()
    assert ends.ours.closed and not caplog.records


def test_an_expired_request(ends: Ends) -> None:
    ends.feed(ends.begin(CONTENT_LENGTH="5"))
    refusal = ends.ours.expire()
    assert refusal is not None and not ends.ours.closed
    size = ends.ours.refuse(refusal, "its-id")
    stdout = ends.events()[0]
    assert isinstance(stdout, Stdout)
    head, _, body = stdout.data.partition(b"\r\n\r\n")
    assert head.startswith(b"Status: 408 Request Timeout\r\nX-Request-Id: its-id\r\n")
    assert len(body) == size
    assert ends.ours.expire() is None and ends.ours.closed


def test_an_expired_record(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    ends.feed(b"\x01\x01\x00")
    ends.ours.expire()
    assert ends.ours.closed and len(caplog.records) == 1


def test_an_abort_between_two_blocks(ends: Ends) -> None:
    assert ends.feed(ends.request())
    output = AnswerOutput(ends.ours)
    output.send([b"\r\n", b"one"], False)
    ends.sock.send(ends.theirs.abort() + ends.theirs.get_values([]))
    with pytest.raises(PeerGone):
        output.send([b"two"], False)
    # An application that does not mind is told again.
    with pytest.raises(PeerGone):
        output.send([b"three"], True)
    ends.ours.finish(False)
    events = ends.events()
    assert events[0] == Stdout(1, b"\r\none") and events[-1] == COMPLETE
    assert ends.ours.idle and not ends.ours.closed
    assert ends.feed(ends.request())


def take_all(ends: Ends) -> bytes:
    """Read slowly, while the rest of the answer is sent on."""
    received = bytearray()
    while True:
        for event in ends.events():
            if event == COMPLETE:
                assert not ends.ours.sending
                return bytes(received)
            assert isinstance(event, Stdout)
            received.extend(event.data)
        ends.ours.send_on()


def test_a_large_block_does_not_wait_for_its_reader(ends: Ends) -> None:
    assert ends.feed(ends.request())
    data = bytes(range(251)) * (PIECE * 3 // 250)
    AnswerOutput(ends.ours).send([b"\r\n", data], True)
    ends.ours.finish(True)
    assert ends.ours.sending and not ends.ours.idle and not ends.ours.closed
    assert take_all(ends) == b"\r\n" + data
    assert ends.ours.idle and not ends.ours.closed
    assert ends.feed(ends.request())


def begin_large_answer(ends: Ends, keep: bool = True) -> None:
    assert ends.feed(ends.request(keep=keep))
    AnswerOutput(ends.ours).send([b"x" * PIECE], True)
    ends.ours.finish(True)
    assert ends.ours.sending and not ends.ours.closed


def test_a_connection_is_closed_only_after_the_rest(ceilings: Ceilings) -> None:
    ends = Ends(ceilings, network=False)
    begin_large_answer(ends, keep=False)
    assert take_all(ends) == b"x" * PIECE
    assert ends.ours.closed
    ends.sock.close()
    ends.ours.close()


def test_what_is_said_during_an_answer_follows_it(ends: Ends) -> None:
    assert ends.feed(ends.request())
    output = AnswerOutput(ends.ours)
    output.send([b"x" * PIECE], False)
    ends.sock.send(ends.theirs.get_values([]))
    output.send([b"y"], False)
    output.abandon()
    ends.ours.finish(False)
    assert ends.ours.sending and not ends.ours.closed
    events: list[object] = []
    while not ends.ours.closed:
        events += ends.events()
        ends.ours.send_on()
    events += ends.events()
    kinds = [type(event) for event in events]
    assert kinds.index(Values) > 0 and kinds[-2:] == [Stdout, str]
    assert b"".join(e.data for e in events if isinstance(e, Stdout)) == b"x" * PIECE + b"y"


def test_a_reader_that_leaves_during_the_rest(ends: Ends) -> None:
    begin_large_answer(ends)
    ends.sock.close()
    ends.ours.send_on()
    assert ends.ours.closed


def test_a_reader_has_a_time_for_each_byte_and_one_for_all(ends: Ends) -> None:
    begin_large_answer(ends)
    ends.ours.deadline = 0.0
    ends.ours.send_on()
    assert ends.ours.deadline == 0.0
    assert ends.events()
    ends.ours.send_on()
    assert ends.ours.deadline > time.monotonic()
    ends.ours.farewell = 1.0
    assert ends.events()
    ends.ours.send_on()
    assert ends.ours.deadline == 1.0
    ends.ours.expire()
    assert ends.ours.closed


def test_nothing_is_written_after_a_failed_write(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one may have ended inside a record."""
    monkeypatch.setattr(outgoing, "SEND_TIMEOUT", 0.01)
    monkeypatch.setattr(outgoing, "IN_FILE", 0)
    assert ends.feed(ends.request())
    output = AnswerOutput(ends.ours)
    with pytest.raises(PeerGone, match="taken"):
        output.send([b"x" * PIECE], False)
    while ends.events():
        pass
    with pytest.raises(PeerGone):
        output.send([b"more"], True)
    output.error("not for the peer")
    ends.ours.finish(False)
    assert ends.events() == [] and ends.ours.closed


def test_an_abandoned_answer_is_not_ended(ends: Ends) -> None:
    assert ends.feed(ends.request())
    output = AnswerOutput(ends.ours)
    output.send([b"\r\n"], False)
    output.abandon()
    with pytest.raises(PeerGone):
        output.send([b"the rest"], True)
    ends.ours.finish(False)
    assert ends.ours.closed
    events = ends.events()
    # Not a mere end of the stream: nginx takes that for the end of a whole answer.
    assert COMPLETE not in events and events[-1] == CUT


def test_the_error_stream(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    assert ends.feed(ends.request())
    output = AnswerOutput(ends.ours)
    output.error("w\u00f6rd \udcff\n")
    output.send([b"\r\n"], True)
    output.error("late\n")
    assert ends.events()[0] == Stderr(1, "w\u00f6rd \\udcff\n".encode())
    assert [record.getMessage() for record in caplog.records] == ["late"]


@pytest.mark.parametrize("cut", [0, 3, 20, -8])
def test_a_peer_that_leaves(ends: Ends, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    ends.feed(ends.request(b"body")[:cut])
    ends.sock.close()
    with caplog.at_level(logging.INFO):
        assert not ends.ours.receive()
    assert ends.ours.closed and len(caplog.records) <= 1


def test_a_description_cannot_forge_a_log_line(ends: Ends) -> None:
    ends.feed(ends.begin(REQUEST_URI="/a\nb\x1b[0m"))
    assert ends.ours.describe_request() == "POST /a\\nb\\x1b[0m"


def test_the_progress_of_a_long_answer_is_told(ends: Ends) -> None:
    told: list[int] = []
    ends.feed(ends.request())
    output = AnswerOutput(ends.ours, progress=told.append)
    output.send([b"Status: 200 OK\r\n\r\n", b"x" * 10], False)
    output.send([b"y" * 5], True)
    assert told == [28]


def test_an_id_is_added_but_not_beside_the_applications(ends: Ends) -> None:
    for head, sent in (
        (b"Status: 200 OK\r\n\r\n", b"Status: 200 OK\r\nX-Request-Id: an-id\r\n\r\n"),
        (b"Status: 200 OK\r\nx-request-ID: own\r\n\r\n",) * 2,
    ):
        ends.feed(ends.request())
        AnswerOutput(ends.ours, "an-id").send([head], True)
        ends.ours.finish(True)
        assert ends.events() == [Stdout(1, sent), COMPLETE]

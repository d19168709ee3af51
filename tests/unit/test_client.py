"""The web server's end, against the application's end: in memory, and over real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Callable, Iterator, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.fastcgi import client, connection, records
from workers.fastcgi.client import (
    ClientConnection,
    IncompleteResponse,
    RequestEnded,
    Stderr,
    Stdout,
    UnknownType,
    Values,
)
from workers.fastcgi.connection import NEED_DATA, PeerClosed
from workers.fastcgi.records import (
    LocalProtocolError,
    ProtocolStatus,
    RecordType,
    RemoteProtocolError,
    Role,
)

ANSWER = b"Status: 201 Created\r\nContent-Type: text/plain\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello"
DEADLINE = 20.0


def events_of(end: ClientConnection) -> list[client.Event]:
    events: list[client.Event] = []
    while (event := end.next_event()) is not NEED_DATA:
        events.append(event)
    return events


def opened(*request_ids: int) -> ClientConnection:
    end = ClientConnection()
    for request_id in request_ids:
        end.begin({}, request_id)
    return end


# What an application may send

CASES: dict[str, tuple[bytes, list[client.Event]]] = {
    "an answer": (
        records.encode_record(RecordType.STDOUT, 1, b"abc")
        + records.encode_record(RecordType.STDERR, 1, b"oops")
        + records.encode_record(RecordType.STDOUT, 1, b"", 7)
        + records.encode_record(RecordType.STDERR, 1)
        + records.encode_end_request(1, 5, 0),
        [Stdout(1, b"abc"), Stderr(1, b"oops"), RequestEnded(1, 5, 0)],
    ),
    "two answers, interleaved": (
        records.encode_record(RecordType.STDOUT, 2, b"two")
        + records.encode_record(RecordType.STDOUT, 1, b"one")
        + records.encode_end_request(2, 0, 0)
        + records.encode_end_request(1, 0, ProtocolStatus.OVERLOADED),
        [Stdout(2, b"two"), Stdout(1, b"one"), RequestEnded(2, 0, 0), RequestEnded(1, 0, 2)],
    ),
    "answers to management records": (
        records.encode_record(
            RecordType.GET_VALUES_RESULT, 0, records.encode_pairs([("FCGI_MAX_REQS", "1")])
        )
        + records.encode_unknown_type(42),
        [Values({"FCGI_MAX_REQS": "1"}), UnknownType(42)],
    ),
}

BROKEN = {
    "a wrong version": b"\x00" * 8,
    "a record of no request": records.encode_record(RecordType.STDOUT, 3, b"abc"),
    "a record after the end": records.encode_end_request(1, 0, 0)
    + records.encode_record(RecordType.STDOUT, 1, b"abc"),
    "a record for the other direction": records.encode_record(RecordType.STDIN, 1, b"abc"),
    "a management record for the other direction": records.encode_record(RecordType.GET_VALUES, 0),
    "a short END": records.encode_record(RecordType.END_REQUEST, 1, bytes(7)),
    "a short UNKNOWN_TYPE": records.encode_record(RecordType.UNKNOWN_TYPE, 0),
    "values that end in a pair": records.encode_record(RecordType.GET_VALUES_RESULT, 0, b"\x05"),
}


@pytest.mark.parametrize("name", CASES)
def test_case_whole_in_bytes_and_with_trailing_bytes(name: str) -> None:
    wire, expected = CASES[name]
    for pieces in ([wire], [bytes((byte,)) for byte in wire], [wire + b"\x01\x06"]):
        end = opened(1, 2)
        found: list[client.Event] = []
        for piece in pieces:
            end.receive_data(piece)
            found += events_of(end)
        assert found == expected
        end.receive_data(b"")
        assert events_of(end) == [PeerClosed()]
        assert events_of(end) == []
        with pytest.raises(LocalProtocolError):
            end.receive_data(b"x")


@pytest.mark.parametrize("name", BROKEN)
def test_broken_case(name: str) -> None:
    wire = BROKEN[name]
    for pieces in ([wire], [bytes((byte,)) for byte in wire], [wire + b"more"]):
        end = opened(1)
        with pytest.raises(RemoteProtocolError):
            for piece in pieces:
                end.receive_data(piece)
                events_of(end)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=10))
def test_random_bytes(pieces: list[bytes]) -> None:
    end = opened(0, 1)
    try:
        for piece in filter(None, pieces):
            end.receive_data(piece)
            events_of(end)
    except RemoteProtocolError:
        pass


# Both ends, no socket


@settings(deadline=None)
@given(
    st.dictionaries(st.text(st.characters(max_codepoint=255)), st.text(max_size=9).map(ascii)),
    st.binary(max_size=500),
    st.binary(max_size=500),
    st.integers(1, 65535),
    st.booleans(),
)
def test_both_ends_understand_each_other(
    params: dict[str, str], body: bytes, answer: bytes, request_id: int, keep: bool
) -> None:
    web, app = ClientConnection(), connection.ServerConnection()
    app.receive_data(web.begin(params, request_id, keep_connection=keep))
    app.receive_data(web.body(body, request_id) + web.end_body(request_id))
    assert app.next_event() == connection.RequestParams(request_id, params, keep)
    if body:
        assert app.next_event() == connection.RequestBody(body)
    assert app.next_event() == connection.EndOfBody()
    web.receive_data(b"".join(app.stdout(answer) + app.stderr(b"log") + app.end_request(9)))
    events = events_of(web)
    assert events[-2:] == [Stderr(request_id, b"log"), RequestEnded(request_id, 9, 0)]
    assert events[:-2] == ([Stdout(request_id, answer)] if answer else [])


def test_refusals_and_values_between_both_ends() -> None:
    web, app = ClientConnection(), connection.ServerConnection()
    for wire in (
        web.begin({}, 1, role=Role.FILTER),
        web.begin({}, 2),
        web.begin({}, 3),
        web.get_values(["FCGI_MPXS_CONNS", "X"]),
        records.encode_record(77, 0),
    ):
        app.receive_data(wire)
        event = app.next_event()
        assert event in (NEED_DATA, connection.RequestParams(2, {}, False))
        assert app.next_event() is NEED_DATA
    web.receive_data(app.data_to_send())
    assert events_of(web) == [
        RequestEnded(1, 0, ProtocolStatus.UNKNOWN_ROLE),
        RequestEnded(3, 0, ProtocolStatus.CANT_MPX_CONN),
        Values({"FCGI_MPXS_CONNS": "0"}),
        UnknownType(77),
    ]
    app.receive_data(web.abort(2))
    assert app.next_event() == connection.RequestAborted()
    web.receive_data(b"".join(app.end_request()))
    assert events_of(web) == [RequestEnded(2, 0, 0)]


# CGI heads


@pytest.mark.parametrize(
    ("answer", "status", "reason", "headers", "body"),
    [
        (b"Content-Type: a\r\n\r\nx", 200, "OK", [("Content-Type", "a")], b"x"),
        (b"Status: 404 Not Found\n\n\r\n\r\n", 404, "Not Found", [], b"\r\n\r\n"),
        (b"status:  204\r\nA:\tb \r\nA: c\r\n\r\n", 204, "", [("A", "b"), ("A", "c")], b""),
        (b"A: x\x85y\x1cz\r\n\r\n", 200, "OK", [("A", "x\x85y\x1cz")], b""),
        (b"A: 1\r\n\r\nB: 2\n\n", 200, "OK", [("A", "1")], b"B: 2\n\n"),
    ],
)
def test_head(
    answer: bytes, status: int, reason: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    head, rest = client.split_head(answer)
    assert client.parse_head(head) == (status, reason, headers)
    assert rest == body


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"A: 1\r\n",
        b"\r\n\r\nbody",
        b"no colon\r\n\r\n",
        b": no name\r\n\r\n",
        b"A : space\r\n\r\n",
        b" A: space\r\n\r\n",
        b"Status: OK\r\n\r\n",
        b"Status: 20\xb2 OK\r\n\r\n",
        b"Status: 2000 OK\r\n\r\n",
    ],
)
def test_bad_head(answer: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        client.parse_head(client.split_head(answer)[0])


# Over sockets: an application in a thread, one connection at a time

App = Callable[[socket.socket], None]


@contextlib.contextmanager
def serving(listener: socket.socket, app: App) -> Iterator[None]:
    """Runs app on one connection; its errors are the test's."""
    errors: list[BaseException] = []

    def serve() -> None:
        try:
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(DEADLINE)
                app(peer)
        except BaseException as error:
            errors.append(error)

    listener.settimeout(DEADLINE)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join(DEADLINE)
        listener.close()
    assert not thread.is_alive()
    assert errors == []


def listen(where: Union[str, tuple[str, int]]) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
    listener.bind(where)
    listener.listen()
    return listener


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "s")


def take_request(peer: socket.socket, app: connection.ServerConnection) -> tuple[object, bytes]:
    """Params and body of one request."""
    params: object = None
    body = b""
    while True:
        event = app.next_event()
        if event is NEED_DATA:
            app.receive_data(peer.recv(65536))
        elif isinstance(event, connection.RequestParams):
            params = event.params
        elif isinstance(event, connection.RequestBody):
            body += event.data
        elif isinstance(event, connection.EndOfBody):
            return params, body
        else:
            raise AssertionError(event)


def echo(peer: socket.socket) -> None:
    app = connection.ServerConnection()
    params, body = take_request(peer, app)
    buffers = app.stdout(ANSWER + body) + app.stderr(repr(params).encode()) + app.end_request(4)
    peer.sendall(b"".join(buffers))


@pytest.mark.parametrize("kind", ["path", "abstract", "tcp"])
def test_request_to_an_address(kind: str, path: str) -> None:
    address: client.Address = path
    if kind == "tcp":
        listener = listen(("127.0.0.1", 0))
        address = listener.getsockname()
    elif kind == "abstract":
        listener = listen("\0" + path)
        address = "@" + path
    else:
        listener = listen(path)
    with serving(listener, echo):
        response = client.request(address, {"A": "b"}, b" world")
    assert (response.status, response.reason) == (201, "Created")
    assert response.headers == [("Content-Type", "text/plain"), ("X-A", "1"), ("x-a", "2")]
    assert response.header("content-type") == "text/plain"
    assert response.header("x-a") == "1"
    assert response.header("Status") is None
    assert response.body == b"hello world"
    assert response.stderr == repr({"A": "b", "CONTENT_LENGTH": "6"}).encode()
    assert (response.app_status, response.protocol_status) == (4, 0)


def test_the_callers_content_length_is_kept(path: str) -> None:
    with serving(listen(path), echo):
        response = client.request(path, {"CONTENT_LENGTH": "2"}, b"four")
    assert response.stderr == repr({"CONTENT_LENGTH": "2"}).encode()


def test_requests_on_a_kept_connection(path: str) -> None:
    def app(peer: socket.socket) -> None:
        app = connection.ServerConnection()
        for number in range(3):
            take_request(peer, app)
            assert app.keep_connection
            peer.sendall(b"".join(app.stdout(b"N: %d\n\n" % number) + app.end_request()))

    with serving(listen(path), app), client.connect(path, DEADLINE) as sock:
        for number in range(3):
            response = client.request(sock, {}, request_id=number + 1, keep_connection=True)
            assert response.header("n") == str(number)
        assert sock.gettimeout() == DEADLINE


def test_a_large_request_and_a_large_answer_at_once(path: str) -> None:
    """An application that echoes as it reads: one side that only wrote would wait for ever."""

    def app(peer: socket.socket) -> None:
        app = connection.ServerConnection()
        while True:
            event = app.next_event()
            if event is NEED_DATA:
                app.receive_data(peer.recv(65536))
            elif isinstance(event, connection.RequestParams):
                peer.sendall(b"".join(app.stdout(b"A: b\n\n")))
            elif isinstance(event, connection.RequestBody):
                peer.sendall(b"".join(app.stdout(event.data)))
            else:
                break
        peer.sendall(b"".join(app.end_request()))

    body = bytes(range(256)) * 40_000
    with serving(listen(path), app):
        assert client.request(path, {}, body, timeout=DEADLINE).body == body


@pytest.mark.parametrize("keep", [False, True])
def test_an_early_answer_to_a_large_request(path: str, keep: bool) -> None:
    answered = threading.Event()

    def app(peer: socket.socket) -> None:
        app = connection.ServerConnection()
        app.receive_data(peer.recv(65536))
        assert isinstance(app.next_event(), connection.RequestParams)
        peer.sendall(b"".join(app.stdout(b"Status: 413 No\n\n") + app.end_request()))
        if not keep:
            assert answered.wait(DEADLINE)
            return
        # The rest of the first request comes before the second one and is passed over.
        assert take_request(peer, app) == ({"N": "2"}, b"")
        peer.sendall(b"".join(app.stdout(b"Status: 200 OK\n\n") + app.end_request()))

    with serving(listen(path), app), client.connect(path, DEADLINE) as sock:
        response = client.request(sock, {}, bytes(4_000_000), keep_connection=keep)
        answered.set()
        assert response.status == 413
        if keep:
            assert client.request(sock, {"N": "2"}, keep_connection=True).status == 200


def test_a_truncated_answer_is_not_a_response(path: str) -> None:
    def app(peer: socket.socket) -> None:
        app = connection.ServerConnection()
        take_request(peer, app)
        peer.sendall(b"".join(app.stdout(ANSWER) + app.stderr(b"oops")))

    with serving(listen(path), app), pytest.raises(IncompleteResponse) as caught:
        client.request(path, {})
    assert (caught.value.stdout, caught.value.stderr) == (ANSWER, b"oops")


@pytest.mark.parametrize("status", [0, ProtocolStatus.OVERLOADED])
def test_an_end_without_an_answer_has_status_0(path: str, status: int) -> None:
    def app(peer: socket.socket) -> None:
        take_request(peer, connection.ServerConnection())
        peer.sendall(records.encode_end_request(1, 0, status))

    with serving(listen(path), app):
        response = client.request(path, {})
    assert (response.status, response.headers, response.body) == (0, [], b"")
    assert response.protocol_status == status


def test_no_answer_in_time(path: str) -> None:
    done = threading.Event()

    def app(peer: socket.socket) -> None:
        assert done.wait(DEADLINE)

    with serving(listen(path), app):
        with pytest.raises(TimeoutError):
            client.request(path, {}, bytes(4_000_000), timeout=0.05)
        done.set()


def test_nobody_there(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        client.request(path, {})
    listener = listen(path)
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        client.request(path, {})


def test_a_full_queue_is_waited_for(path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(0)
    with listener, client.connect(path, DEADLINE):
        with pytest.raises(TimeoutError, match="queue"):
            client.connect(path, 0.05)
        accepting = threading.Timer(0.05, lambda: listener.accept()[0].close())
        accepting.start()
        try:
            client.connect(path, DEADLINE).close()
        finally:
            accepting.join(DEADLINE)

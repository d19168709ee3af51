"""The HTTP connection: bytes in, events out."""

from __future__ import annotations

import pytest

from workers.fastcgi.connection import NEED_DATA, EndOfBody, Event, ParamsTooLarge, RequestParams
from workers.fastcgi.records import RemoteProtocolError
from workers.http import MAX_HEAD, HttpConnection

REQUEST = b"GET /a%20b?c=d HTTP/1.1\r\nHost: x\r\nAccept: text/plain, a/b \r\n\r\n"


def events_of(connection: HttpConnection) -> list[Event]:
    found: list[Event] = []
    while (event := connection.next_event()) is not NEED_DATA:
        found.append(event)
    return found


@pytest.mark.parametrize("size", [1, 7, len(REQUEST), 1000])
def test_a_request_in_pieces_of_any_size(size: int) -> None:
    data = REQUEST + b"a body that nobody reads" * (size == 1000)
    connection = HttpConnection()
    found: list[Event] = []
    for start in range(0, len(data), size):
        connection.receive_data(data[start : start + size])
        found += events_of(connection)
    begun, end = found
    assert isinstance(begun, RequestParams) and isinstance(end, EndOfBody)
    assert begun.params["PATH_INFO"] == "/a b" and begun.params["QUERY_STRING"] == "c=d"
    assert begun.params["REQUEST_URI"] == "/a%20b?c=d"
    assert begun.params["HTTP_ACCEPT"] == "text/plain, a/b" and not begun.keep_connection


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x01\x01\x00\x01", b"get / HTTP/1.1\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n", b"GET /\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nno field\r\n\r\n",
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n", b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n", b"\x16\x03\x01\x02\x00",
    ],
)  # fmt: skip
def test_what_is_not_http(garbage: bytes) -> None:
    connection = HttpConnection()
    connection.receive_data(garbage)
    with pytest.raises(RemoteProtocolError):
        events_of(connection)


def test_a_head_without_end() -> None:
    connection = HttpConnection()
    connection.receive_data(b"GET / HTTP/1.1\r\nA: ")
    assert events_of(connection) == [] and connection.buffered
    connection.receive_data(b"x" * MAX_HEAD)
    (refused,) = events_of(connection)
    assert isinstance(refused, ParamsTooLarge)
    connection.receive_data(b"x" * MAX_HEAD)
    assert events_of(connection) == []


def test_the_answer_has_the_status_in_its_first_line() -> None:
    connection = HttpConnection()
    connection.receive_data(REQUEST)
    events_of(connection)
    assert connection.stdout(b"X-Request-Id: 1\r\nStatus: 404 Not ") == []
    (sent,) = connection.stdout(b"Found\r\nA: b\r\n\r\nbody")
    assert sent == b"HTTP/1.1 404 Not Found\r\nX-Request-Id: 1\r\nA: b\r\nConnection: close\r\n\r\nbody"
    assert connection.stdout(b"more") == [b"more"]
    assert connection.end_request() == [] and connection.request_id is None

"""The preview's gateway against a FastCGI server that the test controls."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

import pytest

from spawner import preview
from workers.fastcgi import connection as fastcgi

OK = b"Content-Type: text/plain\r\n\r\nhello"
DEADLINE = 10.0


class FakePool:
    """Answers every request with ``answer``, and remembers what it was asked."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.answer = OK
        self.requests: list[tuple[dict[str, str], bytes]] = []
        #: Requests for these paths are answered only once the event is set.
        self.held = {"/held": threading.Event()}
        #: Close the connection instead of ending the request.
        self.breaks_off = False
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for event in self.held.values():
            event.set()
        # Wakes accept(), which close() alone does not.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            server = fastcgi.ServerConnection()
            params: dict[str, str] = {}
            body = b""
            while True:
                event = server.next_event()
                if isinstance(event, fastcgi.RequestParams):
                    params = event.params
                elif isinstance(event, fastcgi.RequestBody):
                    body += event.data
                elif isinstance(event, fastcgi.EndOfBody):
                    self.requests.append((params, body))
                    self._answer(client, server, params)
                    return
                elif isinstance(event, fastcgi.PeerClosed):
                    return
                else:
                    client.sendall(server.data_to_send())
                    server.receive_data(client.recv(65536))

    def _answer(
        self, client: socket.socket, server: fastcgi.ServerConnection, params: dict[str, str]
    ) -> None:
        hold = self.held.get(params["PATH_INFO"])
        if hold is not None:
            hold.wait(DEADLINE)
        parts = server.stdout(self.answer)
        if not self.breaks_off:
            parts += server.end_request()
        # The gateway may have lost its patience.
        with contextlib.suppress(BrokenPipeError):
            client.sendall(b"".join(parts))


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[FakePool]:
    pool = FakePool(tmp_path / "s")
    yield pool
    pool.close()


@pytest.fixture
def gateway(pool: FakePool) -> Iterator[preview.Preview]:
    with preview.Preview(preview.bind(), pool.path) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def connect(gateway: preview.Preview) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", gateway.server_port, timeout=DEADLINE)


def ask(
    gateway: preview.Preview,
    method: str = "GET",
    path: str = "/",
    body: Optional[bytes] = None,
    headers: Optional[dict[str, str]] = None,
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = connect(gateway)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def raw(gateway: preview.Preview, request: bytes) -> bytes:
    """Everything that comes back for these bytes, to the end of the connection."""
    address = ("127.0.0.1", gateway.server_port)
    with socket.create_connection(address, DEADLINE) as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while data := sock.recv(65536):
            answer += data
        return answer


def test_the_variables_of_a_request(gateway: preview.Preview, pool: FakePool) -> None:
    response, content = ask(gateway, path="/wiki/a%20b/%C3%A9%2Fx?q=1%202&r=%C3%A9")
    assert (response.status, response.reason, content) == (200, "OK", b"hello")
    ((params, body),) = pool.requests
    assert body == b""
    assert params["SCRIPT_NAME"] == ""
    assert params["PATH_INFO"] == "/wiki/a b/\xc3\xa9/x"
    assert params["REQUEST_URI"] == "/wiki/a%20b/%C3%A9%2Fx?q=1%202&r=%C3%A9"
    assert params["QUERY_STRING"] == "q=1%202&r=%C3%A9"
    assert params["REQUEST_METHOD"] == "GET"
    assert params["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert params["SERVER_NAME"] == "127.0.0.1"
    assert params["SERVER_PORT"] == str(gateway.server_port)
    assert params["REMOTE_ADDR"] == "127.0.0.1"
    assert params["REQUEST_SCHEME"] == "http"
    assert params["CONTENT_LENGTH"] == ""
    assert params["HTTP_HOST"] == f"127.0.0.1:{gateway.server_port}"


def test_headers_become_variables_but_not_all(gateway: preview.Preview, pool: FakePool) -> None:
    raw(
        gateway,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nProxy: http://evil/\r\n"
        b"X-One: 1\r\nX-One: 2\r\nCookie: a=1\r\nCookie: b=2\r\nRemote_User: admin\r\n"
        b"Accept-Language: de\r\nContent-Type: text/plain\r\n\r\n",
    )
    ((params, _),) = pool.requests
    assert {name: value for name, value in params.items() if name.startswith("HTTP_")} == {
        "HTTP_HOST": "localhost",
        "HTTP_X_ONE": "1, 2",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_ACCEPT_LANGUAGE": "de",
    }
    assert params["CONTENT_TYPE"] == "text/plain"
    assert "REMOTE_USER" not in params


def test_the_absolute_form_of_a_target(gateway: preview.Preview, pool: FakePool) -> None:
    raw(gateway, b"GET http://localhost/wiki?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert pool.requests[0][0]["REQUEST_URI"] == "/wiki?x=1"
    assert pool.requests[0][0]["PATH_INFO"] == "/wiki"


def test_a_large_body_up_and_down(gateway: preview.Preview, pool: FakePool) -> None:
    data = bytes(range(256)) * 4096 * 5
    pool.answer = b"Content-Type: application/octet-stream\r\n\r\n" + data[::-1]
    response, content = ask(gateway, "POST", "/upload", data)
    assert content == data[::-1]
    assert response.headers["Content-Length"] == str(len(data))
    ((params, body),) = pool.requests
    assert body == data
    assert params["CONTENT_LENGTH"] == str(len(data))


def test_status_and_headers_come_back(gateway: preview.Preview, pool: FakePool) -> None:
    pool.answer = (
        b"Status: 303 See Other\r\nLocation: http://localhost/x\r\nSet-Cookie: a=1\r\n"
        b"Set-Cookie: b=2\r\nConnection: upgrade\r\n\r\n"
    )
    response, content = ask(gateway)
    assert (response.status, response.reason, content) == (303, "See Other", b"")
    assert response.headers["Location"] == "http://localhost/x"
    assert response.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
    assert response.headers["Content-Length"] == "0"
    assert response.headers["Connection"] is None
    assert response.headers["Date"]


@pytest.mark.parametrize(
    ("method", "answer", "length"),
    [
        ("HEAD", b"Content-Type: text/plain\r\nContent-Length: 5\r\n\r\n", "5"),
        ("HEAD", OK, None),
        ("GET", b"Status: 304 Not Modified\r\n\r\nnot sent", None),
        ("GET", b"Status: 204 No Content\r\n\r\nnot sent", None),
    ],
)
def test_answers_without_a_body_keep_the_connection_usable(
    gateway: preview.Preview, pool: FakePool, method: str, answer: bytes, length: Optional[str]
) -> None:
    connection = connect(gateway)
    pool.answer = answer
    connection.request(method, "/")
    response = connection.getresponse()
    assert response.read() == b""
    assert response.headers["Content-Length"] == length
    pool.answer = OK
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"hello"
    connection.close()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Transfer-Encoding: chunked", b"411 "),
        (b"Content-Length: 5, 5", b"400 "),
        (b"Content-Length: -1", b"400 "),
        (b"Content-Length: +5", b"400 "),
        (b"Content-Length: 1\r\nContent-Length: 2", b"400 "),
        (b"Content-Length: 999999999999", b"413 "),
        (b"Host: localhost", b"400 "),
    ],
)
def test_bodies_and_hosts_that_are_refused(
    gateway: preview.Preview, pool: FakePool, header: bytes, status: bytes
) -> None:
    request = b"POST / HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    answer = raw(gateway, request)
    assert answer.startswith(b"HTTP/1.1 " + status)
    # What follows is not taken for another request.
    assert answer.count(b"HTTP/1.1") == 1
    assert pool.requests == []


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "LocalHost.", "127.0.0.1:1", "[::1]:8000"]
)
def test_names_of_the_loopback_interface_are_answered(
    gateway: preview.Preview, pool: FakePool, host: str
) -> None:
    response, _ = ask(gateway, headers={"Host": host})
    assert response.status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example:8000", "evil.example:80@localhost.x", "[::2]", "[x", ""],
)
def test_other_names_are_refused(gateway: preview.Preview, pool: FakePool, host: str) -> None:
    response, content = ask(gateway, headers={"Host": host})
    assert response.status == 421
    assert b"answers only to the names localhost" in content
    assert pool.requests == []


def test_an_upload_that_breaks_off_is_not_passed_on(
    gateway: preview.Preview, pool: FakePool
) -> None:
    request = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nonly this"
    assert raw(gateway, request) == b""
    assert pool.requests == []


def test_no_pool_is_a_502_that_says_so(gateway: preview.Preview, pool: FakePool) -> None:
    gateway.pool = pool.path + "-gone"
    response, content = ask(gateway)
    assert response.status == 502
    assert b"s-gone gave no usable answer" in content


def break_off(pool: FakePool) -> None:
    pool.breaks_off = True


def say_nothing(pool: FakePool) -> None:
    pool.answer = b""


def say_nonsense(pool: FakePool) -> None:
    pool.answer = b"no headers at all"


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        (break_off, b"mid-answer"),
        (say_nothing, b"without an answer"),
        (say_nonsense, b"headers"),
    ],
)
def test_no_usable_answer_is_a_502_that_says_why(
    gateway: preview.Preview,
    pool: FakePool,
    misbehave: Callable[[FakePool], None],
    reason: bytes,
) -> None:
    misbehave(pool)
    response, content = ask(gateway)
    assert response.status == 502
    assert reason in content


def test_a_pool_that_does_not_answer_is_a_504(gateway: preview.Preview, pool: FakePool) -> None:
    gateway.answer_timeout = 0.1
    response, content = ask(gateway, path="/held")
    assert response.status == 504
    assert b"no answer within 0.1 seconds" in content


def test_a_slow_answer_does_not_keep_others_waiting(
    gateway: preview.Preview, pool: FakePool
) -> None:
    slow = connect(gateway)
    slow.request("GET", "/held")
    assert ask(gateway)[1] == b"hello"
    pool.held["/held"].set()
    assert slow.getresponse().read() == b"hello"
    slow.close()


def test_the_next_free_port_is_taken() -> None:
    with preview.bind() as first, preview.bind(first.getsockname()[1]) as second:
        assert second.getsockname()[0] == "127.0.0.1"
        assert second.getsockname()[1] > first.getsockname()[1]


def test_readiness_is_an_answer_not_a_socket(tmp_path: Path) -> None:
    """A pool's socket takes connections long before a worker does."""
    path = tmp_path / "s"
    ready = threading.Event()

    def wait() -> None:
        preview.wait_ready(str(path))
        ready.set()

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        client, _ = listener.accept()
        with client:
            assert client.recv(1)[0] == 1
            assert not ready.is_set()
        # Closed without an answer: it asks again.
        client, _ = listener.accept()
        with client:
            server = fastcgi.ServerConnection()
            server.receive_data(client.recv(65536))
            server.next_event()
            client.sendall(server.data_to_send())
            assert ready.wait(DEADLINE)
    waiter.join(DEADLINE)

"""The control socket at the master's end, above all what clients must not be able to do to it."""

from __future__ import annotations

import json
import os
import resource
import selectors
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from spawner import calls, control, verbs, wire
from spawner.control import Call, Control, open_control
from workers.errors import BootError

DEADLINE = 10.0
STATUS = b'{"verb": "status"}\n'


class Master:
    """The loop around a Control; its clock moves only when told to."""

    def __init__(self, path: Path, allowed: Optional[frozenset[int]] = None) -> None:
        self.path = str(path)
        self.now = 1000.0
        self.selector = selectors.DefaultSelector()
        #: What came in and has not been answered: handlers answer at once unless ``defer``.
        self.calls: list[Call] = []
        self.handled: list[tuple[str, dict[str, str]]] = []
        self.handler: Callable[[Call], None] = lambda call: call.reply({"done": call.verb})
        self.control = Control(
            open_control(self.path),
            self.selector,
            {name: self._handle for name in verbs.ON_THE_WIRE},
            allowed,
            lambda: self.now,
        )
        self.clients: list[socket.socket] = []

    def _handle(self, call: Call) -> None:
        self.handled.append((call.verb, dict(call.arguments)))
        self.handler(call)

    def defer(self) -> None:
        """From now on calls are kept, not answered."""
        self.handler = self.calls.append

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        self.clients.append(client)
        client.connect(self.path)
        client.setblocking(False)
        return client

    def round(self, wait: float = 0.0) -> int:
        """One round of the loop; how many callbacks it made."""
        events = self.selector.select(wait)
        for key, _ in events:
            key.data()
        return len(events)

    def until(self, happened: Callable[[], Any]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not happened():
            assert time.monotonic() < deadline, "did not happen in time"
            self.round(0.01)

    def settle(self) -> None:
        """Until there is nothing to do; fails when that never comes, as in a busy loop."""
        deadline = time.monotonic() + DEADLINE
        while self.round():
            assert time.monotonic() < deadline, "the loop never comes to rest"

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.control.check_clock()

    def lines(self, client: socket.socket, count: int = 1) -> list[dict[str, Any]]:
        """The next answers on ``client``."""
        received = bytearray()

        def complete() -> bool:
            try:
                data = client.recv(65536)
            except BlockingIOError:
                return False
            assert data, f"closed after {bytes(received)!r}"
            received.extend(data)
            return received.count(b"\n") == count

        self.until(complete)
        assert received.endswith(b"\n")
        return [json.loads(line) for line in received.splitlines()]

    def ask(self, client: socket.socket, request: bytes = STATUS) -> dict[str, Any]:
        client.sendall(request)
        (answer,) = self.lines(client)
        return answer

    def is_closed(self, client: socket.socket) -> bool:
        """Whether the master has closed this connection, once all is read."""
        self.settle()
        try:
            while client.recv(1 << 20):
                pass
            return True
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.control.close()
        self.selector.close()


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    master = Master(tmp_path / "c")
    yield master
    master.close()


# The socket


def test_the_socket_is_private_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "c"
    listener = open_control(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listener.close()
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    open_control(str(path)).close()
    path.write_text("mine")
    with pytest.raises(BootError, match="is not a socket"):
        open_control(str(path))
    assert path.read_text() == "mine"


def test_another_master_keeps_its_socket(master: Master) -> None:
    with pytest.raises(BootError, match="the control socket: .* is in use") as raised:
        open_control(master.path)
    assert raised.value.exit_code == os.EX_UNAVAILABLE
    master.settle()  # the connection that looked has gone again
    assert master.ask(master.connect())["ok"] is True


def test_a_path_that_is_too_long_is_an_error_of_usage(tmp_path: Path) -> None:
    with pytest.raises(BootError, match="--control: .* too long") as raised:
        open_control(str(tmp_path / ("c" * 108)))
    assert raised.value.exit_code == os.EX_USAGE


def test_a_child_closes_its_copies_and_the_socket_stays(master: Master) -> None:
    client = master.connect()
    assert master.ask(client)["ok"]
    before = set(os.listdir("/proc/self/fd"))
    pid = os.fork()
    if pid == 0:
        master.control.forget()
        os._exit(len(before) - len(set(os.listdir("/proc/self/fd"))))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2  # the listener and the client
    assert os.path.exists(master.path)
    assert master.ask(client)["ok"]


def test_a_handler_for_each_verb_of_the_table(tmp_path: Path) -> None:
    listener = open_control(str(tmp_path / "c"))
    with selectors.DefaultSelector() as selector, pytest.raises(ValueError, match="status"):
        Control(listener, selector, {})
    listener.close()


# Requests and answers


def test_a_request_and_its_answer(master: Master) -> None:
    client = master.connect()
    request = b'{"verb": "scale", "arguments": {"pool": "trac", "workers": "+2"}}\n'
    assert master.ask(client, request) == {"ok": True, "result": {"done": "scale"}}
    assert master.handled == [("scale", {"pool": "trac", "workers": "+2"})]
    # And again on the same connection.
    assert master.ask(client) == {"ok": True, "result": {"done": "status"}}


def test_byte_by_byte(master: Master) -> None:
    client = master.connect()
    for byte in STATUS[:-1]:
        client.send(bytes([byte]))
        master.settle()
    assert master.handled == []
    assert master.ask(client, b"\n")["ok"] is True


@pytest.mark.parametrize("request_", [STATUS, STATUS[:-1]])
def test_a_client_that_has_closed_its_sending_side_is_answered(
    master: Master, request_: bytes
) -> None:
    """So does "echo ... | socat", and the line may lack its end."""
    master.defer()
    client = master.connect()
    client.sendall(request_)
    client.shutdown(socket.SHUT_WR)
    master.until(lambda: master.calls)
    master.settle()
    master.calls[0].reply({})
    assert master.lines(client) == [{"ok": True, "result": {}}]
    assert master.is_closed(client)


def test_several_requests_at_once_are_answered_in_order(master: Master) -> None:
    client = master.connect()
    client.sendall(b'{"verb": "config"}\n' + STATUS + b'{"verb": "reopen"}\n')
    answers = master.lines(client, 3)
    assert [answer["result"]["done"] for answer in answers] == ["config", "status", "reopen"]


def test_an_answer_may_come_later(master: Master) -> None:
    slow = master.connect()
    master.defer()
    slow.sendall(b'{"verb": "reload"}\n')
    master.until(lambda: master.calls)
    master.handler = lambda call: call.reply(None)
    # Others are served meanwhile, and waiting for us has no limit of ours.
    assert master.ask(master.connect())["ok"] is True
    master.pass_time(3600.0)
    call = master.calls[0]
    assert not call.answered
    call.fail("it does not load", "Traceback: ...", os.EX_CONFIG)
    assert call.answered
    assert master.lines(slow) == [
        {"ok": False, "error": "it does not load", "details": "Traceback: ...", "status": os.EX_CONFIG}
    ]


def test_only_the_first_answer_counts(master: Master) -> None:
    master.defer()
    client = master.connect()
    client.sendall(STATUS)
    master.until(lambda: master.calls)
    master.calls[0].reply(1)
    master.calls[0].reply(2)
    master.calls[0].fail("three")
    assert master.lines(client) == [{"ok": True, "result": 1}]
    master.settle()
    with pytest.raises(BlockingIOError):
        client.recv(1)


def test_an_answer_to_nobody_does_nothing(master: Master) -> None:
    master.defer()
    for _ in range(2):
        client = master.connect()
        client.sendall(STATUS)
        client.close()
    master.until(lambda: len(master.calls) == 2)
    master.settle()
    master.calls[0].reply({"large": "x" * 1_000_000})
    master.calls[1].fail("too late")
    master.settle()
    assert master.control.next_deadline() == float("inf")  # no client is left


def test_the_answer_is_on_its_way_before_the_loop_goes_on(master: Master) -> None:
    """After "stop" it may never do so."""
    master.defer()
    client = master.connect()
    client.sendall(b'{"verb": "stop"}\n')
    master.until(lambda: master.calls)
    master.calls[0].reply({})
    assert json.loads(client.recv(4096))["ok"] is True


def test_closing_fails_what_has_not_been_answered(master: Master) -> None:
    master.defer()
    client = master.connect()
    client.sendall(b'{"verb": "reload"}\n')
    master.until(lambda: master.calls)
    master.control.close()
    assert json.loads(client.recv(4096))["status"] == os.EX_UNAVAILABLE
    assert client.recv(4096) == b""
    assert not os.path.exists(master.path)
    master.calls[0].reply({})  # in vain, but harmless


# Failures


def test_an_error_for_people_is_passed_on(master: Master) -> None:
    def refuse(call: Call) -> None:
        raise BootError("no pool 'x'", os.EX_USAGE, "where")

    master.handler = refuse
    assert master.ask(master.connect()) == {
        "ok": False, "error": "no pool 'x'", "details": "where", "status": os.EX_USAGE,
    }  # fmt: skip


def test_a_handler_that_fails_is_told_and_logged(
    master: Master, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(call: Call) -> None:
        raise ZeroDivisionError("oops")

    master.handler = fail
    client = master.connect()
    answer = master.ask(client)
    assert answer["status"] == os.EX_SOFTWARE
    assert "oops" in answer["error"] and "Traceback" in answer["details"]
    assert "Traceback" in caplog.text
    master.handler = lambda call: call.reply(None)
    assert master.ask(client)["ok"] is True


@pytest.mark.parametrize("result", [object(), "x" * wire.MAX_ANSWER], ids=["no JSON", "too long"])
def test_an_answer_that_cannot_be_sent(
    master: Master, result: object, caplog: pytest.LogCaptureFixture
) -> None:
    master.handler = lambda call: call.reply(result)
    answer = master.ask(master.connect())
    assert answer["status"] == os.EX_SOFTWARE
    assert "cannot be sent" in answer["error"] and "cannot be sent" in caplog.text


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b'{"verb": "relaod"}', "no verb 'relaod'"),
        (b'{"verb": "ping"}', "no verb 'ping'"),
        (b'{"verb": "status", "arguments": {"pool": "a"}}', "no argument 'pool'"),
        (b'{"verb": "scale", "arguments": {"pool": "a"}}', "workers is missing"),
        (b'{"verb": "scale", "arguments": {"pool": "a", "workers": "two"}}', "neither a number"),
        (b'{"verb": "recycle", "arguments": {"pool": ["a"]}}', "neither a text"),
    ],
)
def test_a_wrong_request_is_told_and_the_next_one_served(
    master: Master, request_: bytes, words: str
) -> None:
    client = master.connect()
    answer = master.ask(client, request_ + b"\n")
    assert answer["status"] == os.EX_USAGE and words in answer["error"]
    assert master.handled == []
    assert master.ask(client)["ok"] is True


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"status\n",
        b"\x00\xff\xfe\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + STATUS,
        b"[" * 8000 + b"\n",
        b"9" * 8000 + b"\n",
        b"[]\n",
        b'{"verb": 5}\n',
        b'{"verb": "status", "arguments": []}\n',
        b'{"verb": "status", "more": 1}\n',
        b"x" * (wire.MAX_REQUEST + 1),
        b'{"verb": "status", "arguments": {"x": "' + b"x" * 100_000,
    ],
    ids=lambda garbage: repr(garbage[:20]),
)
def test_garbage_is_answered_once_and_ends_the_connection(master: Master, garbage: bytes) -> None:
    client = master.connect()
    client.send(garbage)  # as much of it as the kernel takes
    (answer,) = master.lines(client)
    assert answer["ok"] is False and answer["status"] == os.EX_USAGE
    assert master.is_closed(client)
    assert master.handled == []
    assert master.ask(master.connect())["ok"] is True


# Who may


def test_other_users_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    master = Master(tmp_path / "c", allowed=frozenset({os.geteuid() + 1}))
    client = master.connect()
    (answer,) = master.lines(client)
    assert answer["status"] == os.EX_NOPERM
    assert master.is_closed(client)
    assert master.handled == []
    assert f"refused: uid {os.geteuid()}, process {os.getpid()}" in caplog.text
    master.close()


def test_root_and_the_owner_are_the_default(master: Master, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    client = master.connect()
    master.ask(client)
    assert caplog.text == ""  # a question is no news
    master.ask(client, b'{"verb": "recycle", "arguments": {"pool": "a", "slot": 3}}\n')
    assert f"control: recycle a 3 (uid {os.geteuid()}, process {os.getpid()})" in caplog.text


# Hanging, slow and greedy clients


def test_a_client_that_sends_nothing_is_closed(master: Master) -> None:
    client = master.connect()
    master.settle()
    assert master.control.next_deadline() == master.now + calls.PATIENCE
    master.pass_time(calls.PATIENCE - 1)
    assert not master.is_closed(client)
    master.pass_time(1)
    assert master.is_closed(client)
    assert master.control.next_deadline() == float("inf")


def test_a_request_that_does_not_end_is_closed_however_busy_it_looks(master: Master) -> None:
    client = master.connect()
    for _ in range(10):
        client.send(b" ")
        master.settle()
        master.pass_time(calls.PATIENCE / 10)
    (answer,) = master.lines(client)
    assert "not complete" in answer["error"]
    assert master.is_closed(client)


def test_time_counts_anew_after_an_answer(master: Master) -> None:
    client = master.connect()
    for _ in range(3):
        assert master.ask(client)["ok"]
        master.pass_time(calls.PATIENCE - 1)
    assert not master.is_closed(client)


def test_a_client_that_reads_nothing_gets_one_answer_and_is_closed(master: Master) -> None:
    master.handler = lambda call: call.reply("x" * 3_000_000)
    greedy = master.connect()
    greedy.sendall(STATUS * 100)
    master.until(lambda: master.handled)
    master.settle()
    # The next request waits until the answer has been read.
    assert len(master.handled) == 1
    master.handler = lambda call: call.reply(None)
    assert master.ask(master.connect())["ok"] is True
    master.pass_time(calls.PATIENCE)
    assert master.is_closed(greedy)


def test_a_slow_reader_gets_all_of_it(master: Master) -> None:
    master.handler = lambda call: call.reply("x" * 1_000_000)
    client = master.connect()
    client.sendall(STATUS)
    received = bytearray()

    def complete() -> bool:
        try:
            received.extend(client.recv(50_000))
        except BlockingIOError:
            pass
        return received.endswith(b"\n")

    master.until(complete)
    assert len(json.loads(received)["result"]) == 1_000_000


def test_a_client_that_sends_on_while_it_waits_is_not_read(master: Master) -> None:
    master.defer()
    client = master.connect()
    client.sendall(b'{"verb": "reload"}\n')
    master.until(lambda: master.calls)
    sent = 0
    blocked = 0
    while blocked < 3:
        try:
            sent += client.send(STATUS * 100)
            blocked = 0
        except BlockingIOError:
            blocked += 1
        master.settle()
    # What it could send fills the kernel's buffers, which do not grow.
    assert sent < 2_000_000
    assert len(master.calls) == 1
    master.handler = lambda call: call.reply(None)
    master.calls[0].reply("first")
    assert master.lines(client)[0]["result"] == "first"


def test_a_client_that_sends_faster_than_it_is_served_is_read_at_its_turn(master: Master) -> None:
    client = master.connect()
    sent = 0
    for _ in range(500):
        try:
            sent += client.send(STATUS * 100)
        except BlockingIOError:
            pass
        master.round(0.01)
        try:
            client.recv(65536)
        except BlockingIOError:
            pass
    assert len(master.handled) > 400
    # The rest is in the kernel's buffers; read as it comes, it would be four times as much.
    assert sent < 500_000


def test_nobody_gets_two_turns_in_a_row(master: Master) -> None:
    greedy, modest = master.connect(), master.connect()
    master.settle()
    greedy.sendall(STATUS * 100)
    modest.sendall(b'{"verb": "config"}\n')
    master.until(lambda: ("config", {}) in master.handled)
    assert len(master.handled) <= 3


def test_the_silent_make_room(master: Master) -> None:
    silent = []
    for _ in range(control.MAX_CLIENTS):
        silent.append(master.connect())
        master.settle()
        master.pass_time(1)
    assert master.ask(silent[0])["ok"]  # so the second has been silent for longest
    assert master.ask(master.connect())["ok"] is True
    assert [master.is_closed(client) for client in silent[:3]] == [False, True, False]


def test_those_who_wait_for_an_answer_keep_their_place(master: Master) -> None:
    master.defer()
    waiting = [master.connect() for _ in range(control.MAX_CLIENTS)]
    for client in waiting:
        client.sendall(b'{"verb": "reload"}\n')
    master.until(lambda: len(master.calls) == control.MAX_CLIENTS)
    late = master.connect()
    (answer,) = master.lines(late)
    assert answer["status"] == os.EX_TEMPFAIL
    assert master.is_closed(late)
    # Unless nobody is there any more, which is seen when it matters.
    waiting[5].shutdown(socket.SHUT_WR)
    waiting[7].shutdown(socket.SHUT_WR)
    master.settle()
    waiting[7].close()
    master.handler = lambda call: call.reply(None)
    assert master.ask(master.connect())["ok"] is True
    master.calls[5].reply("here")
    assert master.lines(waiting[5])[0]["result"] == "here"


def test_no_descriptors_left(master: Master, caplog: pytest.LogCaptureFixture) -> None:
    client = master.connect()
    client.sendall(STATUS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        master.settle()  # no busy loop
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caplog.text.count("cannot accept a connection") == 1
    assert master.control.next_deadline() == master.now + control.ACCEPT_PAUSE
    master.pass_time(control.ACCEPT_PAUSE)
    assert master.lines(client)[0]["ok"] is True


def test_while_not_accepting_clients_wait_in_the_queue(master: Master) -> None:
    known = master.connect()
    assert master.ask(known)["ok"]
    master.control.stop_accepting()
    fresh = master.connect()
    fresh.sendall(STATUS)
    assert master.ask(known)["ok"] is True
    assert len(master.handled) == 2
    master.control.start_accepting()
    assert master.lines(fresh)[0]["ok"] is True


def test_what_has_been_closed_in_the_same_round_is_left_alone(master: Master) -> None:
    client = master.connect()
    assert master.ask(client)["ok"]
    client.sendall(STATUS)
    other = master.connect()
    events = master.selector.select(DEADLINE)
    assert len(events) == 2
    master.control.close()
    for key, _ in events:
        key.data()
    assert len(master.handled) == 1
    other.close()

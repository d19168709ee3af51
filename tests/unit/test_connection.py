"""The application's end of a connection: what each sequence of records leads to."""

from __future__ import annotations

import tracemalloc
from typing import Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.fastcgi import connection as c
from workers.fastcgi import records
from workers.fastcgi.connection import (
    NEED_DATA,
    EndOfBody,
    Event,
    Limits,
    ParamsTooLarge,
    PeerClosed,
    RequestAborted,
    RequestBody,
    RequestParams,
    ServerConnection,
)
from workers.fastcgi.records import (
    LocalProtocolError,
    ProtocolStatus,
    RecordReader,
    RecordType,
    RemoteProtocolError,
    Role,
)
from workers.fastcgi.states import IGNORED, IMPOSSIBLE, MOVES, VIOLATION, State

PARAMS = {"REQUEST_METHOD": "GET", "PATH_INFO": "/wiki/caf\xc3\xa9", "LONG": "x" * 300, "EMPTY": ""}
PAIRS = records.encode_pairs(PARAMS.items())
LIMITS = Limits(params_bytes=4096, params_count=20)


def begin(request_id: int = 1, role: int = Role.RESPONDER, flags: int = 0) -> bytes:
    return records.encode_begin_request(request_id, role, flags)


def params(data: bytes = PAIRS, request_id: int = 1) -> bytes:
    return records.encode_record(RecordType.PARAMS, request_id, data)


def stdin(data: bytes, request_id: int = 1) -> bytes:
    return records.encode_record(RecordType.STDIN, request_id, data)


def abort(request_id: int = 1) -> bytes:
    return records.encode_record(RecordType.ABORT_REQUEST, request_id)


def get_values(*names: str) -> bytes:
    content = records.encode_pairs((name, "") for name in names)
    return records.encode_record(RecordType.GET_VALUES, 0, content)


def values(**pairs: str) -> bytes:
    content = records.encode_pairs(pairs.items())
    return records.encode_record(RecordType.GET_VALUES_RESULT, 0, content)


def refusal(request_id: int, status: ProtocolStatus) -> bytes:
    return records.encode_end_request(request_id, 0, status)


END_PARAMS = params(b"")
END_STDIN = stdin(b"")
HEAD = begin() + params() + END_PARAMS
BEGUN = RequestParams(1, PARAMS, False)
OTHER_PAIRS = records.encode_pairs([("OTHER", "1")])
LARGEST_PAIRS = records.encode_pairs([("A", "x" * 4090)])


def events_of(connection: ServerConnection) -> tuple[list[Event], Optional[RemoteProtocolError]]:
    events: list[Event] = []
    try:
        while (event := connection.next_event()) is not NEED_DATA:
            events.append(event)
    except RemoteProtocolError as error:
        return events, error
    return events, None


def play(
    pieces: list[bytes], connection: Optional[ServerConnection] = None
) -> tuple[list[Event], bytes, Optional[RemoteProtocolError], ServerConnection]:
    """Feed the pieces; all events, all replies, the error that ended it."""
    connection = connection or ServerConnection(LIMITS)
    events: list[Event] = []
    replies = b""
    for piece in pieces:
        connection.receive_data(piece)
        more, error = events_of(connection)
        events += more
        replies += connection.data_to_send()
        if error is not None:
            return events, replies, error, connection
    return events, replies, None, connection


# Cases: what comes in, the events, the replies. Each is fed in several ways.

CASES: dict[str, tuple[bytes, list[Event], bytes]] = {
    "nothing but a BEGIN": (begin(), [], b""),
    "a request without body": (HEAD + END_STDIN, [BEGUN, EndOfBody()], b""),
    "a request that keeps the connection": (
        begin(flags=1) + params() + END_PARAMS + END_STDIN,
        [RequestParams(1, PARAMS, True), EndOfBody()],
        b"",
    ),
    "other flags are not KEEP_CONN": (
        begin(flags=0xFE) + params() + END_PARAMS,
        [BEGUN],
        b"",
    ),
    "the highest id": (
        begin(65535) + params(PAIRS, 65535) + params(b"", 65535) + stdin(b"", 65535),
        [RequestParams(65535, PARAMS, False), EndOfBody()],
        b"",
    ),
    "a longer BEGIN": (
        records.encode_record(RecordType.BEGIN_REQUEST, 1, b"\x00\x01" + bytes(14)) + END_PARAMS,
        [RequestParams(1, {}, False)],
        b"",
    ),
    "no params at all": (begin() + END_PARAMS, [RequestParams(1, {}, False)], b""),
    "params cut anywhere into records": (
        begin() + b"".join(params(PAIRS[at : at + 1]) for at in range(len(PAIRS))) + END_PARAMS,
        [BEGUN],
        b"",
    ),
    "a repeated name": (
        begin() + params(records.encode_pairs([("A", "1"), ("A", "2")])) + END_PARAMS,
        [RequestParams(1, {"A": "2"}, False)],
        b"",
    ),
    "a body of several records": (
        HEAD + stdin(b"abc") + stdin(b"d" * 65535) + END_STDIN,
        [BEGUN, RequestBody(b"abc"), RequestBody(b"d" * 65535), EndOfBody()],
        b"",
    ),
    "much padding": (
        begin()
        + records.encode_record(RecordType.PARAMS, 1, PAIRS, 255)
        + records.encode_record(RecordType.PARAMS, 1, b"", 255)
        + records.encode_record(RecordType.STDIN, 1, b"abc", 255)
        + records.encode_record(RecordType.STDIN, 1, b"", 255),
        [BEGUN, RequestBody(b"abc"), EndOfBody()],
        b"",
    ),
    "streams ended twice": (
        HEAD + END_PARAMS + END_STDIN + END_STDIN,
        [BEGUN, EndOfBody()],
        b"",
    ),
    "params after their end": (
        HEAD + params(b"\xff\xff") + stdin(b"x") + params() + END_STDIN + params(),
        [BEGUN, RequestBody(b"x"), EndOfBody()],
        b"",
    ),
    "body after its end": (
        HEAD + END_STDIN + stdin(b"late"),
        [BEGUN, EndOfBody()],
        b"",
    ),
    "abort within the params": (
        begin() + params() + abort() + END_PARAMS + END_STDIN,
        [RequestAborted()],
        b"",
    ),
    "abort within the body": (
        HEAD + stdin(b"abc") + abort() + stdin(b"def") + END_STDIN,
        [BEGUN, RequestBody(b"abc"), RequestAborted()],
        b"",
    ),
    "abort after the body, twice": (
        HEAD + END_STDIN + abort() + abort(),
        [BEGUN, EndOfBody(), RequestAborted()],
        b"",
    ),
    "abort with content": (
        HEAD + records.encode_record(RecordType.ABORT_REQUEST, 1, b"reason"),
        [BEGUN, RequestAborted()],
        b"",
    ),
    "records for ids that are not active": (
        params()
        + stdin(b"abc")
        + abort()
        + begin()
        + params(b"\xff", 2)
        + params()
        + abort(2)
        + END_PARAMS
        + stdin(b"no", 2)
        + stdin(b"yes")
        + stdin(b"", 2)
        + END_STDIN,
        [BEGUN, RequestBody(b"yes"), EndOfBody()],
        b"",
    ),
    "a filter's DATA and types nobody knows": (
        begin()
        + records.encode_record(RecordType.DATA, 1, b"file")
        + records.encode_record(99, 1, b"?")
        + records.encode_record(99, 5, b"?")
        + records.encode_record(RecordType.END_REQUEST, 1, b"")
        + records.encode_record(RecordType.STDOUT, 1, b"?")
        + records.encode_record(RecordType.GET_VALUES, 1, b"\xff")
        + params()
        + END_PARAMS,
        [BEGUN],
        b"",
    ),
    "an unknown role": (
        begin(1, Role.AUTHORIZER) + params() + END_PARAMS + begin(2, Role.FILTER) + begin(3, 999),
        [],
        refusal(1, ProtocolStatus.UNKNOWN_ROLE)
        + refusal(2, ProtocolStatus.UNKNOWN_ROLE)
        + refusal(3, ProtocolStatus.UNKNOWN_ROLE),
    ),
    "an unknown role, then a known one": (
        begin(1, Role.FILTER) + HEAD + END_STDIN,
        [BEGUN, EndOfBody()],
        refusal(1, ProtocolStatus.UNKNOWN_ROLE),
    ),
    "a second request within the first": (
        begin()
        + begin(2)
        + params(b"\xff", 2)
        + params()
        + params(b"", 2)
        + END_PARAMS
        + begin(3, flags=1)
        + stdin(b"abc")
        + begin(4, Role.FILTER)
        + END_STDIN
        + begin(5),
        [BEGUN, RequestBody(b"abc"), EndOfBody()],
        b"".join(refusal(i, ProtocolStatus.CANT_MPX_CONN) for i in (2, 3, 4, 5)),
    ),
    "the same BEGIN again": (
        begin() + begin(flags=1) + params() + begin(1, Role.FILTER) + END_PARAMS + begin(),
        [BEGUN],
        b"",
    ),
    "values asked for": (
        get_values("FCGI_MPXS_CONNS", "FCGI_COLOUR", "FCGI_MAX_CONNS", "FCGI_MAX_REQS"),
        [],
        values(FCGI_MPXS_CONNS="0", FCGI_MAX_CONNS="1", FCGI_MAX_REQS="1"),
    ),
    "values unknown, and none": (get_values("X") + get_values(), [], values() + values()),
    "a value asked for within a request": (
        begin() + get_values("FCGI_MAX_REQS") + params() + END_PARAMS,
        [BEGUN],
        values(FCGI_MAX_REQS="1"),
    ),
    "management records of unknown type": (
        records.encode_record(12, 0, b"???") + records.encode_record(255, 0) + begin(0) + abort(0),
        [],
        b"".join(records.encode_unknown_type(kind) for kind in (12, 255, 1, 2)),
    ),
    "answers nobody asked for": (
        records.encode_unknown_type(1) + values(FCGI_MAX_REQS="1"),
        [],
        b"",
    ),
    "too many bytes of params": (
        begin() + params(bytes(4096)) + params(b"x") + params() + END_PARAMS + stdin(b"x"),
        [ParamsTooLarge("more than 4096 bytes of parameters")],
        b"",
    ),
    "as many bytes of params as allowed": (
        begin() + params(LARGEST_PAIRS) + END_PARAMS,
        [RequestParams(1, {"A": "x" * 4090}, False)],
        b"",
    ),
    "too many params": (
        begin() + params(bytes(42)) + END_PARAMS + stdin(b"x") + END_STDIN,
        [ParamsTooLarge("more than 20 name-value pairs")],
        b"",
    ),
    "as many params as allowed": (
        begin() + params(bytes(40)) + END_PARAMS,
        [RequestParams(1, {"": ""}, False)],
        b"",
    ),
    "too many params, then aborted": (
        begin() + params(bytes(42)) + END_PARAMS + abort(),
        [ParamsTooLarge("more than 20 name-value pairs"), RequestAborted()],
        b"",
    ),
}

BROKEN: dict[str, tuple[bytes, list[Event]]] = {
    "a wrong version": (b"\x02\x01\x00\x01\x00\x08\x00\x00", []),
    "another protocol": (b"GET / HTTP/1.1\r\n\r\n", []),
    "a wrong version in mid-request": (HEAD + b"\x00" * 8, [BEGUN]),
    "a short BEGIN": (records.encode_record(RecordType.BEGIN_REQUEST, 1, bytes(7)), []),
    "an empty BEGIN": (records.encode_record(RecordType.BEGIN_REQUEST, 1), []),
    "a short second BEGIN": (HEAD + records.encode_record(RecordType.BEGIN_REQUEST, 2), [BEGUN]),
    "params that end in a pair": (begin() + params(PAIRS[:-1]) + END_PARAMS, []),
    "values that end in a pair": (records.encode_record(RecordType.GET_VALUES, 0, b"\x01"), []),
    "body before the params": (begin() + stdin(b"abc"), []),
    "end of body before the params": (begin() + params() + END_STDIN, []),
}


@pytest.mark.parametrize("name", CASES)
def test_case_whole_and_byte_by_byte(name: str) -> None:
    wire, events, replies = CASES[name]
    for pieces in ([wire], [bytes((byte,)) for byte in wire]):
        assert play(pieces)[:3] == (events, replies, None)


@pytest.mark.parametrize("trailing", [b"\x01", get_values("FCGI_MAX_REQS")[:-1]])
@pytest.mark.parametrize("name", CASES)
def test_case_with_trailing_bytes(name: str, trailing: bytes) -> None:
    wire, events, replies = CASES[name]
    *outcome, connection = play([wire + trailing])
    assert tuple(outcome) == (events, replies, None)
    assert connection.buffered
    # The bytes were not lost either: the rest of that record gives it its meaning.
    connection.receive_data(get_values("FCGI_MAX_REQS")[len(trailing) :])
    assert events_of(connection) == ([], None)
    assert connection.data_to_send() == values(FCGI_MAX_REQS="1")


@pytest.mark.parametrize("name", CASES)
def test_case_and_then_the_end_of_data(name: str) -> None:
    wire, events, replies = CASES[name]
    for pieces in ([wire, b""], [wire + b"\x01", b""], [wire, b"", b""]):
        assert play(pieces)[:3] == ([*events, PeerClosed()], replies, None)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_case(name: str) -> None:
    wire, events = BROKEN[name]
    for pieces in ([wire], [bytes((byte,)) for byte in wire], [wire + b"more"], [wire, b""]):
        found, replies, error, connection = play(pieces)
        assert (found, replies) == (events, b"")
        assert error is not None
        # From here on it says the same, and keeps nothing of what still comes.
        if pieces[-1]:
            connection.receive_data(HEAD)
        with pytest.raises(RemoteProtocolError, match=str(error)):
            connection.next_event()
        assert connection.buffered == (connection.request_id is not None)


@settings(deadline=None)
@given(st.sampled_from(sorted(CASES)), st.lists(st.integers(0, 100_000), max_size=12))
def test_case_in_any_pieces(name: str, marks: list[int]) -> None:
    wire, events, replies = CASES[name]
    edges = [0, *sorted(mark % (len(wire) + 1) for mark in marks), len(wire)]
    pieces = [wire[start:end] for start, end in zip(edges, edges[1:]) if start < end]
    assert play(pieces)[:3] == (events, replies, None)


# Answers


def answer(connection: ServerConnection, app_status: int = 0) -> list[tuple[int, int, bytes]]:
    reader = RecordReader()
    reader.feed(b"".join(connection.stdout(b"hello") + connection.end_request(app_status)))
    found = []
    while (record := reader.next_record()) is not None:
        found.append(record)
    assert reader.buffered == 0
    return found


def test_answer_on_the_wire() -> None:
    connection = play([HEAD + END_STDIN])[3]
    assert b"".join(connection.stdout(b"hello")) == (
        b"\x01\x06\x00\x01\x00\x05\x03\x00" b"hello\x00\x00\x00"
    )
    assert connection.stdout(b"") == []
    assert b"".join(connection.end_request(3)) == (
        b"\x01\x06\x00\x01\x00\x00\x00\x00"
        b"\x01\x03\x00\x01\x00\x08\x00\x00"
        b"\x00\x00\x00\x03\x00\x00\x00\x00"
    )


def test_stderr_is_ended_when_it_was_used() -> None:
    connection = play([HEAD])[3]
    assert connection.stderr(b"") == []
    assert b"".join(connection.stderr(b"oops")) == (
        b"\x01\x07\x00\x01\x00\x04\x04\x00" b"oops\x00\x00\x00\x00"
    )
    assert b"\x01\x07\x00\x01\x00\x00\x00\x00" in b"".join(connection.end_request())
    # ... and not in the request after, which did not use it.
    play([HEAD], connection)
    assert b"\x01\x07" not in b"".join(connection.end_request())


@pytest.mark.parametrize("size", [1, 65528, 65529, 1_000_003])
def test_large_answer_is_whole(size: int) -> None:
    connection = play([HEAD])[3]
    buffers = connection.stdout(b"x" * size)
    assert sum(len(buffer) for buffer in buffers) % 8 == 0
    reader = RecordReader()
    reader.feed(b"".join(buffers))
    total = 0
    while (record := reader.next_record()) is not None:
        assert record[:2] == (RecordType.STDOUT, 1)
        total += len(record[2])
    assert total == size


def test_no_answer_without_a_request() -> None:
    connection = ServerConnection()
    with pytest.raises(LocalProtocolError):
        connection.stdout(b"x")
    with pytest.raises(LocalProtocolError):
        connection.stderr(b"x")
    with pytest.raises(LocalProtocolError):
        connection.end_request()
    play([HEAD], connection)
    connection.end_request()
    with pytest.raises(LocalProtocolError):
        connection.end_request()


def test_requests_follow_each_other_and_may_share_an_id() -> None:
    connection = ServerConnection()
    for number, request_id in enumerate((1, 1, 2, 65535, 1)):
        pairs = {str(number): "x"}
        wire = begin(request_id, flags=1)
        wire += params(records.encode_pairs(pairs.items()), request_id) + params(b"", request_id)
        events = play([wire + stdin(b"", request_id)], connection)[0]
        assert events == [RequestParams(request_id, pairs, True), EndOfBody()]
        assert connection.request_id == request_id
        assert connection.buffered
        assert answer(connection)[0] == (RecordType.STDOUT, request_id, b"hello")
        assert connection.request_id is None
        assert connection.keep_connection
        assert not connection.buffered


WHOLE = [
    "a request without body",
    "a request that keeps the connection",
    "the highest id",
]


@pytest.mark.parametrize("case", CASES)
def test_a_whole_request_can_be_taken_at_once(case: str) -> None:
    wire, events, replies = CASES[case]
    connection = ServerConnection(LIMITS)
    taken = connection.receive_whole(wire)
    assert (taken is not None) == (case in WHOLE)
    if taken is None:
        # Nothing has happened.
        assert play([wire], connection)[:3] == (events, replies, None)
        return
    piecemeal = play([wire])[3]
    (begun, end) = events
    assert isinstance(begun, RequestParams) and end == EndOfBody()
    assert taken == begun.params and connection.keep_connection == begun.keep_connection
    assert connection.state is piecemeal.state is State.ANSWERING
    assert connection.request_id == piecemeal.request_id and connection.buffered
    assert events_of(connection) == ([], None)
    assert answer(connection) == answer(piecemeal)
    # And again, now or as it comes.
    assert connection.receive_whole(wire) == taken


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        (HEAD + END_STDIN)[:-1],
        HEAD + END_STDIN + b"\x01",
        HEAD + END_STDIN + HEAD + END_STDIN,
        HEAD + stdin(b"body") + END_STDIN,
        b"\x02" + (HEAD + END_STDIN)[1:],
        begin(role=Role.FILTER) + (HEAD + END_STDIN)[16:],
        HEAD + stdin(b"", 2),
        begin() + params(PAIRS, 2) + END_PARAMS + END_STDIN,
        begin() + params(PAIRS[:-1]) + END_PARAMS + END_STDIN,
        begin() + params(bytes(42)) + END_PARAMS + END_STDIN,
        begin() + params(LARGEST_PAIRS + b"\0\0") + END_PARAMS + END_STDIN,
    ],
)
def test_whatever_is_no_whole_request_is_not_taken_at_once(wire: bytes) -> None:
    connection = ServerConnection(LIMITS)
    assert connection.receive_whole(wire) is None
    assert connection.state is State.IDLE and not connection.buffered
    assert connection.request_id is None


@given(st.binary(max_size=80), st.integers(0, 80), st.integers(0, 80))
def test_a_damaged_request_is_taken_at_once_as_piecemeal_or_not_at_all(
    damage: bytes, start: int, end: int
) -> None:
    whole = HEAD + END_STDIN
    wire = whole[:start] + damage + whole[end:]
    taken = ServerConnection(LIMITS).receive_whole(wire)
    if taken is not None:
        events, replies, error, _ = play([wire])
        assert error is None and replies == b""
        assert isinstance(events[0], RequestParams) and events[0].params == taken
        assert events[1:] == [EndOfBody()]


@pytest.mark.parametrize("head", [begin(), begin() + params(OTHER_PAIRS), HEAD, HEAD + stdin(b"abc")])
def test_an_early_answer_passes_over_the_rest(head: bytes) -> None:
    connection = play([head])[3]
    answer(connection)
    rest = params() + END_PARAMS + stdin(b"rest") + END_STDIN + abort()
    events, replies, error, _ = play([rest + HEAD], connection)
    assert (events, replies, error) == ([BEGUN], b"", None)


def test_an_aborted_request_leaves_a_usable_connection() -> None:
    for wire in (begin() + params(OTHER_PAIRS), HEAD, HEAD + END_STDIN):
        connection = play([wire + abort()])[3]
        assert connection.request_id == 1
        connection.end_request()
        assert play([HEAD], connection)[0] == [BEGUN]


def test_a_request_over_a_ceiling_can_be_answered() -> None:
    connection = play([begin(flags=1) + params(LARGEST_PAIRS) + params(b"x")])[3]
    assert answer(connection)[0] == (RecordType.STDOUT, 1, b"hello")
    assert connection.keep_connection
    assert play([END_PARAMS + END_STDIN + HEAD], connection)[0] == [BEGUN]


def test_a_refused_request_does_not_touch_the_flag_of_the_first() -> None:
    connection = play([begin(flags=1) + begin(2) + begin(3, Role.FILTER)])[3]
    assert connection.keep_connection
    assert connection.request_id == 1


def test_the_answer_can_be_finished_after_the_peer_closed_its_end() -> None:
    connection = play([HEAD + END_STDIN, b""])[3]
    assert answer(connection)[0] == (RecordType.STDOUT, 1, b"hello")
    assert connection.state is State.CLOSED
    assert connection.next_event() is NEED_DATA
    with pytest.raises(LocalProtocolError):
        connection.receive_data(b"x")


def test_the_answer_can_be_finished_after_the_peer_broke_the_protocol() -> None:
    connection = play([HEAD + END_STDIN + b"nonsense"])[3]
    assert answer(connection)[0] == (RecordType.STDOUT, 1, b"hello")
    with pytest.raises(RemoteProtocolError):
        connection.next_event()


def test_a_request_that_waited_unread_is_served_next() -> None:
    connection = ServerConnection()
    connection.receive_data(HEAD + END_STDIN + HEAD + END_STDIN)
    assert connection.next_event() == BEGUN
    assert connection.next_event() == EndOfBody()
    connection.end_request()
    assert connection.buffered
    assert events_of(connection) == ([BEGUN, EndOfBody()], None)
    assert connection.data_to_send() == b""


def test_replies_are_given_once() -> None:
    connection = ServerConnection(values={"FCGI_MAX_CONNS": "8"})
    connection.receive_data(get_values("FCGI_MAX_CONNS", "FCGI_MAX_REQS"))
    assert connection.next_event() is NEED_DATA
    assert connection.buffered
    assert connection.data_to_send() == values(FCGI_MAX_CONNS="8")
    assert connection.data_to_send() == b""
    assert not connection.buffered


# Every cell of the table

TO_STATE = {
    State.IDLE: [b""],
    State.PARAMS: [begin() + params()],
    State.BODY: [HEAD],
    State.ANSWERING: [HEAD + END_STDIN],
    State.ABORTED: [HEAD + abort()],
    State.CLOSED: [HEAD, b""],
}
INPUTS = {
    "begin": begin(2),
    "begin again": begin(1),
    "begin other role": begin(3, Role.AUTHORIZER),
    "params": params(),
    "params end": END_PARAMS,
    "stdin": stdin(b"abc"),
    "stdin end": END_STDIN,
    "abort": abort(),
    "broken": b"\x00" * 8,
}


def in_state(state: State) -> ServerConnection:
    connection = ServerConnection(LIMITS)
    for piece in TO_STATE[state]:
        if piece or state is State.CLOSED:
            connection.receive_data(piece)
            events_of(connection)
    assert connection.state is state
    return connection


def test_the_table_is_complete() -> None:
    assert set(MOVES) == set(State)
    for row in MOVES.values():
        assert set(row) == {*INPUTS, "too large", "answered", "closed"}


@pytest.mark.parametrize("what", INPUTS)
@pytest.mark.parametrize("state", [state for state in State if state is not State.CLOSED])
def test_cell_caused_by_a_record(state: State, what: str) -> None:
    connection = in_state(state)
    connection.receive_data(INPUTS[what])
    events, error = events_of(connection)
    replies = connection.data_to_send()
    cell = MOVES[state][what]
    if cell is IGNORED:
        assert (events, replies, error, connection.state) == ([], b"", None, state)
    elif cell is VIOLATION:
        assert (events, replies, connection.state) == ([], b"", State.CLOSED)
        assert error is not None
        assert f"{what} record in state {state.name}" in str(error)
    elif cell is IMPOSSIBLE:
        # Nothing has the id of a request in progress when there is none: the table is not asked.
        assert state is State.IDLE
        if what != "begin again":
            assert (events, replies, error, connection.state) == ([], b"", None, state)
    elif isinstance(cell, ProtocolStatus):
        assert replies == refusal(2 if what == "begin" else 3, cell)
        assert (events, error, connection.state) == ([], None, state)
    else:
        assert connection.state is cell
        assert (error is not None) == (what == "broken")
        assert replies == b""


@pytest.mark.parametrize("what", INPUTS)
def test_nothing_is_read_once_closed(what: str) -> None:
    for closed in (in_state(State.CLOSED), play([b"nonsense"])[3]):
        if closed.request_id is None:
            closed.receive_data(INPUTS[what])
        else:
            with pytest.raises(LocalProtocolError):
                closed.receive_data(INPUTS[what])
        assert events_of(closed)[0] == []
        assert closed.state is State.CLOSED
        assert MOVES[State.CLOSED][what] is IMPOSSIBLE


@pytest.mark.parametrize("state", State)
def test_cell_caused_by_the_end_of_data(state: State) -> None:
    connection = in_state(state)
    connection.receive_data(b"")
    expected = [] if MOVES[state]["closed"] is IMPOSSIBLE else [PeerClosed()]
    assert events_of(connection) == (expected, None)
    assert connection.state is State.CLOSED


@pytest.mark.parametrize("state", State)
def test_cell_caused_by_our_answer(state: State) -> None:
    connection = in_state(state)
    if MOVES[state]["answered"] is IMPOSSIBLE:
        with pytest.raises(LocalProtocolError):
            connection.end_request()
    else:
        connection.end_request()
        assert connection.state is MOVES[state]["answered"]


@pytest.mark.parametrize(
    ("state", "wire"),
    [(State.PARAMS, params(bytes(4096))), (State.BODY, begin() + params(bytes(42)) + END_PARAMS)],
)
def test_cell_caused_by_a_ceiling(state: State, wire: bytes) -> None:
    connection = ServerConnection(LIMITS) if state is State.BODY else in_state(state)
    connection.receive_data(wire)
    events, error = events_of(connection)
    assert [type(event) for event in events] == [ParamsTooLarge]
    assert connection.state is MOVES[state]["too large"]
    assert error is None


@pytest.mark.parametrize(
    ("state", "what"),
    [(state, what) for state in State for what in MOVES[state] if MOVES[state][what] is IMPOSSIBLE],
)
def test_impossible_cell_is_our_error(state: State, what: str) -> None:
    connection = in_state(state)
    with pytest.raises(LocalProtocolError, match=f"{what} in state {state.name}"):
        connection._move(what)


# Whatever comes


def check_bounds(connection: ServerConnection) -> None:
    assert connection._reader.buffered < records.HEADER_SIZE + 65535 + 255
    assert len(connection._params) <= LIMITS.params_bytes
    assert len(connection._replies) <= c.MAX_REPLIES


@settings(deadline=None)
@given(st.lists(st.binary(max_size=500), max_size=20))
def test_random_bytes(pieces: list[bytes]) -> None:
    connection = ServerConnection(LIMITS)
    for piece in filter(None, pieces):
        connection.receive_data(piece)
        events_of(connection)
        check_bounds(connection)


RECORDS = st.one_of(
    st.sampled_from([begin(), begin(2, flags=1), params(), END_PARAMS, END_STDIN, abort()]),
    st.builds(
        records.encode_record,
        st.integers(0, 14),
        st.integers(0, 3),
        st.one_of(st.just(b""), st.binary(max_size=40), st.just(PAIRS)),
        st.integers(0, 255),
    ),
)
STEPS = st.one_of(
    RECORDS,
    RECORDS,
    RECORDS,
    st.sampled_from(["answer", "end", "take"]),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, max_size=40), st.integers(1, 30))
def test_random_records_and_answers(steps: list[object], size: int) -> None:
    """The caller answers at any time; what leaves the connection is well-formed all along."""
    connection = ServerConnection(LIMITS)
    sent = RecordReader()
    begun = ended = 0
    for step in steps:
        if isinstance(step, bytes):
            for at in range(0, len(step), size):
                connection.receive_data(step[at : at + size])
                events, _ = events_of(connection)
                begun += sum(isinstance(event, RequestParams) for event in events)
        elif step == "take":
            sent.feed(connection.data_to_send())
        elif connection.request_id is not None and step == "answer":
            sent.feed(b"".join(connection.stdout(b"abc") + connection.stderr(b"x")))
        elif connection.request_id is not None and step == "end":
            sent.feed(b"".join(connection.end_request()))
            ended += 1
        check_bounds(connection)
    while (record := sent.next_record()) is not None:
        if record[0] == RecordType.END_REQUEST and record[2][4] == ProtocolStatus.REQUEST_COMPLETE:
            ended -= 1
    assert ended == 0
    assert sent.buffered == 0


@pytest.mark.parametrize(
    "flood",
    [
        params(b"ab"),
        params(b"", 2) + params(bytes(65528), 2),
        stdin(b"x", 3),
        begin(),
        records.encode_record(RecordType.DATA, 1, b"x" * 100),
    ],
)
def test_a_flood_is_not_kept(flood: bytes) -> None:
    connection = ServerConnection()
    connection.receive_data(begin())
    piece = flood * (1 + 65536 // len(flood))
    tracemalloc.start()
    try:
        for _ in range(20):
            connection.receive_data(piece)
            events_of(connection)
        # The params of one request at most, which a growing bytearray may have twice.
        assert tracemalloc.get_traced_memory()[1] < 3 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "end", [abort(), params(bytes(4097)), params(bytes(42)) + END_PARAMS, END_PARAMS, b""]
)
def test_params_are_not_kept_longer_than_needed(end: bytes) -> None:
    connection = play([begin() + params(OTHER_PAIRS) + end])[3]
    assert bool(connection._params) == (end == b"")
    connection.receive_data(b"")
    assert connection.next_event() == PeerClosed()
    assert not connection._params


@pytest.mark.parametrize("flood", [records.encode_record(200, 0), begin(2), get_values()])
def test_a_flood_that_wants_replies_ends_the_connection(flood: bytes) -> None:
    connection = ServerConnection()
    connection.receive_data(begin() + flood * 10_000)
    with pytest.raises(RemoteProtocolError, match="replies"):
        connection.next_event()
    assert len(connection.data_to_send()) <= c.MAX_REPLIES


def test_a_large_record_in_small_pieces_takes_time_in_proportion() -> None:
    """Counted, not timed: each byte is copied once into a buffer and once out of it."""
    connection = ServerConnection()
    connection.receive_data(HEAD)
    wire = stdin(b"x" * 65535)
    for at in range(0, len(wire) - 1, 3):
        connection.receive_data(wire[at : min(at + 3, len(wire) - 1)])
        events_of(connection)
        # The pieces wait in one place and are not put together before the record is complete.
        assert len(connection._reader._data) <= records.HEADER_SIZE + 3
    connection.receive_data(wire[-1:])
    assert events_of(connection) == ([RequestBody(b"x" * 65535)], None)

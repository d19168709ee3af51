"""The wire format, checked against bytes written out by hand and against itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.fastcgi import records
from workers.fastcgi.records import (
    LocalProtocolError,
    RecordReader,
    RecordType,
    RemoteProtocolError,
    TooManyPairs,
)

LATIN_1 = st.text(st.characters(max_codepoint=255), max_size=300)
MANY = 1_000_000


def read_all(reader: RecordReader) -> list[tuple[int, int, bytes]]:
    found = []
    while (record := reader.next_record()) is not None:
        found.append(record)
    return found


def read_in_pieces(pieces: list[bytes]) -> tuple[list[tuple[int, int, bytes]], RecordReader]:
    reader = RecordReader()
    found = []
    for piece in pieces:
        reader.feed(piece)
        found += read_all(reader)
    return found, reader


def cut(data: bytes, marks: list[int]) -> list[bytes]:
    edges = [0, *sorted(mark % (len(data) + 1) for mark in marks), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:]) if start < end]


# Examples of the wire, by hand

WIRE = {
    "begin": (
        records.encode_begin_request(1, records.Role.RESPONDER, records.KEEP_CONN),
        b"\x01\x01\x00\x01\x00\x08\x00\x00" b"\x00\x01\x01\x00\x00\x00\x00\x00",
        (1, 1, b"\x00\x01\x01\x00\x00\x00\x00\x00"),
    ),
    "abort, highest id": (
        records.encode_record(RecordType.ABORT_REQUEST, 65535),
        b"\x01\x02\xff\xff\x00\x00\x00\x00",
        (2, 65535, b""),
    ),
    "end": (
        records.encode_end_request(258, 3, records.ProtocolStatus.CANT_MPX_CONN),
        b"\x01\x03\x01\x02\x00\x08\x00\x00" b"\x00\x00\x00\x03\x01\x00\x00\x00",
        (3, 258, b"\x00\x00\x00\x03\x01\x00\x00\x00"),
    ),
    "padded": (
        records.encode_record(RecordType.STDOUT, 1, b"hello"),
        b"\x01\x06\x00\x01\x00\x05\x03\x00" b"hello\x00\x00\x00",
        (6, 1, b"hello"),
    ),
    "padded most": (
        records.encode_record(RecordType.STDERR, 1, b"x"),
        b"\x01\x07\x00\x01\x00\x01\x07\x00" b"x\x00\x00\x00\x00\x00\x00\x00",
        (7, 1, b"x"),
    ),
    "padded by choice": (
        records.encode_record(RecordType.STDIN, 1, b"hi", padding=255),
        b"\x01\x05\x00\x01\x00\x02\xff\x00" b"hi" + bytes(255),
        (5, 1, b"hi"),
    ),
    "largest": (
        records.encode_record(RecordType.STDIN, 1, b"z" * 65535, padding=255),
        b"\x01\x05\x00\x01\xff\xff\xff\x00" + b"z" * 65535 + bytes(255),
        (5, 1, b"z" * 65535),
    ),
    "unknown type": (
        records.encode_unknown_type(42),
        b"\x01\x0b\x00\x00\x00\x08\x00\x00" b"\x2a\x00\x00\x00\x00\x00\x00\x00",
        (11, 0, b"\x2a\x00\x00\x00\x00\x00\x00\x00"),
    ),
}


@pytest.mark.parametrize("name", WIRE)
def test_encoded_as_the_specification_says(name: str) -> None:
    encoded, wire, _ = WIRE[name]
    assert encoded == wire


@pytest.mark.parametrize("name", WIRE)
def test_read_whole_in_bytes_and_with_more_behind(name: str) -> None:
    _, wire, record = WIRE[name]
    found, reader = read_in_pieces([wire])
    assert found == [record]
    assert reader.buffered == 0

    found, reader = read_in_pieces([bytes((byte,)) for byte in wire])
    assert found == [record]
    assert reader.buffered == 0

    found, reader = read_in_pieces([wire + wire[:7]])
    assert found == [record]
    assert reader.buffered == 7
    reader.feed(wire[7:])
    assert read_all(reader) == [record]
    assert reader.buffered == 0


@pytest.mark.parametrize("name", WIRE)
def test_nothing_is_read_before_its_padding_is_there(name: str) -> None:
    found, reader = read_in_pieces([WIRE[name][1][:-1]])
    assert found == []
    assert reader.buffered == len(WIRE[name][1]) - 1


def test_a_reader_that_was_cleared_starts_afresh() -> None:
    record = records.encode_record(RecordType.STDIN, 1, b"hello")
    _, reader = read_in_pieces([record + record[:9]])
    reader.clear()
    assert reader.buffered == 0
    reader.feed(record)
    assert read_all(reader) == [(5, 1, b"hello")]


def test_what_was_read_is_not_kept_for_the_sake_of_what_follows() -> None:
    record = records.encode_record(RecordType.STDIN, 1, bytes(60_000))
    found, reader = read_in_pieces([record * 20 + record[:9]])
    assert len(found) == 20
    assert len(reader._data) == 9


@pytest.mark.parametrize("version", [0, 2, 0x16, ord("G")])
def test_another_version_is_refused_with_the_header(version: int) -> None:
    header = bytes((version,)) + b"\x01\x00\x01\xff\xff\x00\x00"
    reader = RecordReader()
    reader.feed(header[:7])
    assert reader.next_record() is None
    reader.feed(header[7:])
    with pytest.raises(RemoteProtocolError, match=f"version {version}"):
        reader.next_record()


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 65535), st.binary(max_size=300))),
    st.lists(st.integers(0, 10000)),
    st.integers(0, 255),
)
def test_any_records_in_any_pieces(
    sent: list[tuple[int, int, bytes]], marks: list[int], padding: int
) -> None:
    wire = b"".join(records.encode_record(*record, padding=padding) for record in sent)
    found, reader = read_in_pieces(cut(wire, marks))
    assert found == sent
    assert reader.buffered == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=30))
def test_any_records_fed_faster_than_read(script: list[tuple[bytes, bool]]) -> None:
    reader = RecordReader()
    found = []
    for content, read_one in script:
        record = records.encode_record(RecordType.STDIN, 1, content)
        reader.feed(record[:5])
        reader.feed(record[5:])
        if read_one:
            found.append(reader.next_record())
    found += read_all(reader)
    assert found == [(5, 1, content) for content, _ in script]
    assert reader.buffered == 0


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=2000), max_size=40))
def test_a_reader_holds_one_record_at_most(pieces: list[bytes]) -> None:
    reader = RecordReader()
    for piece in pieces:
        reader.feed(piece)
        try:
            read_all(reader)
        except RemoteProtocolError:
            break
        assert reader.buffered < records.HEADER_SIZE + 65535 + 255


# Streams


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 65527, 65528, 65529, 65536, 200_001])
def test_stream_is_aligned_and_complete(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    wire = b"".join(records.encode_stream(RecordType.STDOUT, 7, data))
    assert len(wire) % 8 == 0
    found, reader = read_in_pieces([wire])
    assert reader.buffered == 0
    assert b"".join(content for _, _, content in found) == data
    assert {(kind, request_id) for kind, request_id, _ in found} <= {(RecordType.STDOUT, 7)}
    # An empty record would end the stream.
    assert all(content for _, _, content in found)
    assert len(found) == -(-size // 65528)


def test_what_fits_one_record_is_one_buffer() -> None:
    data = b"x" * 65528
    assert records.encode_stream(RecordType.STDOUT, 1, data) == [records.encode_record(6, 1, data)]


@pytest.mark.parametrize(
    "arguments",
    [(256, 1), (-1, 1), (1, 65536), (1, -1), (1, 1, bytes(65536)), (1, 1, b"", 256)],
)
def test_a_record_that_cannot_be_is_our_error(arguments: tuple[int, int]) -> None:
    with pytest.raises(LocalProtocolError):
        records.encode_record(*arguments)


# Bodies of records


def test_begin_and_end_bodies() -> None:
    assert records.decode_begin_request(b"\x00\x03\x01" + bytes(5)) == (3, 1)
    assert records.decode_end_request(b"\x00\x00\x01\x00\x02" + bytes(3)) == (256, 2)
    assert records.decode_unknown_type(b"\xff" + bytes(7)) == 255
    # What a later version might add behind is not an error.
    assert records.decode_begin_request(b"\x00\x01\x00" + bytes(13)) == (1, 0)


@pytest.mark.parametrize("size", range(8))
def test_short_bodies_are_their_error(size: int) -> None:
    for decode in (
        records.decode_begin_request,
        records.decode_end_request,
        records.decode_unknown_type,
    ):
        with pytest.raises(RemoteProtocolError, match=f"of {size} bytes"):
            decode(bytes(size))


@pytest.mark.parametrize(("status", "wire"), [(0, 0), (255, 255), (-1, 0xFFFFFFFF)])
def test_app_status_is_unsigned_on_the_wire(status: int, wire: int) -> None:
    content = records.encode_end_request(1, status, 0)[8:]
    assert records.decode_end_request(content) == (wire, 0)


# Name-value pairs


@pytest.mark.parametrize(
    ("wire", "pairs"),
    [
        (b"", {}),
        (b"\x00\x00", {"": ""}),
        (b"\x01\x00a", {"a": ""}),
        (b"\x01\x02abc" b"\x02\x01dee", {"a": "bc", "de": "e"}),
        (b"\x80\x00\x00\x01\x80\x00\x00\x02abc", {"a": "bc"}),
        (b"\x01\x80\x00\x00\x80a" + b"v" * 128, {"a": "v" * 128}),
        (b"\x80\x00\x00\x80\x01" + b"n" * 128 + b"v", {"n" * 128: "v"}),
        (b"\x7f\x7f" + b"n" * 127 + b"v" * 127, {"n" * 127: "v" * 127}),
        (b"\x01\x02n\xc3\xa9", {"n": "\xc3\xa9"}),
        (b"\x01\x01ab" b"\x01\x01xy" b"\x01\x01ac", {"a": "c", "x": "y"}),
    ],
)
def test_pairs_decoded(wire: bytes, pairs: dict[str, str]) -> None:
    assert records.decode_pairs(wire, MANY) == pairs
    assert records.decode_pairs(bytearray(wire), MANY) == pairs


@pytest.mark.parametrize(
    "wire",
    [
        b"\x00",
        b"\x01",
        b"\x01\x00",
        b"\x00\x01",
        b"\x01\x01a",
        b"\x00\x00\x05",
        b"\x80",
        b"\x80\x00\x00",
        b"\x80\x00\x00\x01",
        b"\x00\x80\x00\x00",
        b"\x00\xff\xff\xff\xff",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x01\x01ab\x01\x02ab",
    ],
)
def test_pairs_beyond_their_end_are_their_error(wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        records.decode_pairs(wire, MANY)
    assert not isinstance(caught.value, TooManyPairs)


def test_pairs_are_counted() -> None:
    wire = records.encode_pairs([("a", "1"), ("a", "2"), ("b", "3")])
    assert records.decode_pairs(wire, 3) == {"a": "2", "b": "3"}
    with pytest.raises(TooManyPairs, match="more than 2"):
        records.decode_pairs(wire, 2)


@pytest.mark.parametrize(
    ("length", "wire"),
    [(127, b"\x7f"), (128, b"\x80\x00\x00\x80"), (70000, b"\x80\x01\x11\x70")],
)
def test_lengths_take_one_byte_or_four(length: int, wire: bytes) -> None:
    text = "x" * length
    assert records.encode_pairs([(text, "")]) == wire + b"\x00" + text.encode()
    assert records.encode_pairs([("", text)]) == b"\x00" + wire + text.encode()


def test_pairs_outside_latin_1_are_our_error() -> None:
    with pytest.raises(LocalProtocolError, match="latin-1"):
        records.encode_pairs([("name", "\u20ac")])


@settings(deadline=None)
@given(st.dictionaries(LATIN_1, LATIN_1))
def test_pairs_survive_the_wire(pairs: dict[str, str]) -> None:
    assert records.decode_pairs(records.encode_pairs(pairs.items()), len(pairs)) == pairs


@settings(deadline=None)
@given(st.binary(max_size=400), st.integers(0, 10))
def test_any_bytes_are_pairs_or_their_error(data: bytes, max_count: int) -> None:
    try:
        pairs = records.decode_pairs(data, max_count)
    except RemoteProtocolError:
        return
    assert len(pairs) <= max_count
    # A repeated name costs bytes as well, so what was decoded fits into what came.
    assert sum(len(name) + len(value) + 2 for name, value in pairs.items()) <= len(data)

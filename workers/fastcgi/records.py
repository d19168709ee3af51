"""The FastCGI 1.0 wire format: records, streams of records, and name-value pairs.

Section numbers in this package are those of the FastCGI Specification 1.0 (29 April 1996).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from functools import lru_cache
from typing import Iterable, Optional, Union

VERSION = 1
HEADER_SIZE = 8
BODY_SIZE = 8  # of BEGIN_REQUEST, END_REQUEST and UNKNOWN_TYPE
KEEP_CONN = 1  # the one flag of BEGIN_REQUEST
# A record can carry 65,535 bytes; this is the most that needs no padding to stay aligned (3.3).
MAX_ALIGNED_CONTENT = 65528

FCGI_MAX_CONNS = "FCGI_MAX_CONNS"
FCGI_MAX_REQS = "FCGI_MAX_REQS"
FCGI_MPXS_CONNS = "FCGI_MPXS_CONNS"

_HEADER = struct.Struct(">BBHHBx")
_BEGIN_BODY = struct.Struct(">HB5x")
#: BEGIN_REQUEST and the header of the record after it; the empty records that end PARAMS and STDIN.
_OPENING = struct.Struct(">BBHHBxHB5xBBHHBx")
_CLOSING = struct.Struct(">BBHHBxBBHHBx")
_END_BODY = struct.Struct(">IB3x")
_UNKNOWN_BODY = struct.Struct(">B7x")
_SHORT_LENGTHS = struct.Struct("BB")
_LONG_LENGTH = struct.Struct(">I")
_PADDING = tuple(bytes(size) for size in range(8))


class RecordType(IntEnum):
    BEGIN_REQUEST = 1
    ABORT_REQUEST = 2
    END_REQUEST = 3
    PARAMS = 4
    STDIN = 5
    STDOUT = 6
    STDERR = 7
    DATA = 8
    GET_VALUES = 9
    GET_VALUES_RESULT = 10
    UNKNOWN_TYPE = 11


class Role(IntEnum):
    RESPONDER = 1
    AUTHORIZER = 2
    FILTER = 3


_PARAMS = int(RecordType.PARAMS)
_STDIN = int(RecordType.STDIN)
#: Version, type, content length, padding and role.
_BEGIN_RESPONDER = (VERSION, int(RecordType.BEGIN_REQUEST), BODY_SIZE, 0, int(Role.RESPONDER))


class ProtocolStatus(IntEnum):
    REQUEST_COMPLETE = 0
    CANT_MPX_CONN = 1
    OVERLOADED = 2
    UNKNOWN_ROLE = 3


class LocalProtocolError(Exception):
    """This program used the protocol wrongly: a bug of ours."""


class RemoteProtocolError(Exception):
    """The other end broke the protocol: one line in the log, and the connection is closed."""


class TooManyPairs(RemoteProtocolError):
    """There are more name-value pairs than the reader agreed to decode."""


class RecordReader:
    """Bytes in, whole records out.

    Holds at most one incomplete record (65,798 bytes) beyond what it is fed and not yet asked for.
    A byte is copied a fixed number of times however the stream is cut into pieces.
    """

    __slots__ = ("_data", "_position", "_more")

    def __init__(self) -> None:
        # The stream is _data from _position on, then _more. In the common case whole records
        # arrive in one piece, which is then parsed where it lies.
        self._data = b""
        self._position = 0
        self._more = bytearray()

    def feed(self, data: bytes) -> None:
        if self._data:
            self._more += data
        else:
            self._data = data

    @property
    def buffered(self) -> int:
        """How many bytes are held."""
        return len(self._data) - self._position + len(self._more)

    def clear(self) -> None:
        self._data = b""
        self._position = 0
        self._more.clear()

    def next_record(self) -> Optional[tuple[int, int, bytes]]:
        """Type, request id and content of the next record; None when it is not complete yet.

        Raises RemoteProtocolError for any version but 1, as soon as the header is there.
        """
        data = self._data
        start = self._position + HEADER_SIZE
        if len(data) < start:
            return self._join(HEADER_SIZE)
        version, kind, request_id, length, padding = _HEADER.unpack_from(data, self._position)
        if version != VERSION:
            raise RemoteProtocolError(f"FastCGI version {version}, only 1 is known")
        end = start + length
        following = end + padding
        if len(data) < following:
            return self._join(HEADER_SIZE + length + padding)
        if len(data) == following:
            self._data = bytes(self._more)
            self._more.clear()
            self._position = 0
        else:
            self._position = following
        return kind, request_id, data[start:end]

    def _join(self, wanted: int) -> Optional[tuple[int, int, bytes]]:
        """Put the pieces together, but only once they make up what is wanted: never twice."""
        if self._position:
            self._data = self._data[self._position :]
            self._position = 0
        if len(self._data) + len(self._more) < wanted:
            return None
        self._data += self._more
        self._more.clear()
        return self.next_record()


def encode_record(
    kind: int, request_id: int, content: bytes = b"", padding: Optional[int] = None
) -> bytes:
    """One record, padded to a multiple of 8 bytes unless told otherwise.

    Raises LocalProtocolError when a number does not fit its field.
    """
    if padding is None:
        padding = -len(content) & 7
    try:
        header = _HEADER.pack(VERSION, kind, request_id, len(content), padding)
    except struct.error as error:
        raise LocalProtocolError(
            f"no record: type {kind}, id {request_id}, {len(content)} bytes, padding {padding}"
        ) from error
    return header + content + bytes(padding)


def encode_stream(kind: int, request_id: int, data: bytes) -> list[bytes]:
    """The buffers that carry data on a stream, without the empty record that ends it."""
    if len(data) <= MAX_ALIGNED_CONTENT:
        return [encode_record(kind, request_id, data)] if data else []
    buffers = []
    for start in range(0, len(data), MAX_ALIGNED_CONTENT):
        content = data[start : start + MAX_ALIGNED_CONTENT]
        padding = -len(content) & 7
        buffers.append(_HEADER.pack(VERSION, kind, request_id, len(content), padding))
        buffers.append(content)
        if padding:
            buffers.append(_PADDING[padding])
    return buffers


def encode_begin_request(request_id: int, role: int = Role.RESPONDER, flags: int = 0) -> bytes:
    return encode_record(RecordType.BEGIN_REQUEST, request_id, _BEGIN_BODY.pack(role, flags))


def decode_begin_request(content: bytes) -> tuple[int, int]:
    """Role and flags. Raises RemoteProtocolError when the body is too short to hold them."""
    if len(content) < BODY_SIZE:
        raise RemoteProtocolError(f"BEGIN_REQUEST of {len(content)} bytes, {BODY_SIZE} are needed")
    role, flags = _BEGIN_BODY.unpack_from(content)
    return role, flags


def decode_whole_request(data: bytes) -> Optional[tuple[int, int, bytes]]:
    """Request id, flags and name-value pairs, when ``data`` is one whole request to a responder without a
    body and nothing else, its parameters in one record; None for anything else.

    So nearly every request arrives, and record by record it takes several times as long.
    """
    if len(data) < _OPENING.size:
        return None
    (
        version, kind, request_id, size, padding, role, flags,
        second_version, second_kind, second_id, length, second_padding,
    ) = _OPENING.unpack_from(data)  # fmt: skip
    end = _OPENING.size + length
    if (
        (version, kind, size, padding, role) == _BEGIN_RESPONDER
        and (second_version, second_kind, second_id) == (VERSION, _PARAMS, request_id)
        and data[end + second_padding :]
        == _CLOSING.pack(VERSION, _PARAMS, request_id, 0, 0, VERSION, _STDIN, request_id, 0, 0)
        and request_id
        and length
    ):
        return request_id, flags, data[_OPENING.size : end]
    return None


def encode_end_request(request_id: int, app_status: int, protocol_status: int) -> bytes:
    """app_status is an exit status (5.5); a negative one goes out as two's complement."""
    body = _END_BODY.pack(app_status & 0xFFFFFFFF, protocol_status)
    return encode_record(RecordType.END_REQUEST, request_id, body)


@lru_cache(maxsize=64)
def encode_end_of_answer(request_id: int, app_status: int, with_stderr: bool) -> bytes:
    """The empty records that end STDOUT and, where it was used, STDERR; then END_REQUEST.

    Web servers number their requests alike, so it is nearly always the same.
    """
    stderr = encode_record(RecordType.STDERR, request_id) if with_stderr else b""
    end = encode_end_request(request_id, app_status, ProtocolStatus.REQUEST_COMPLETE)
    return encode_record(RecordType.STDOUT, request_id) + stderr + end


def decode_end_request(content: bytes) -> tuple[int, int]:
    """Application status and protocol status. Raises RemoteProtocolError for a short body."""
    if len(content) < BODY_SIZE:
        raise RemoteProtocolError(f"END_REQUEST of {len(content)} bytes, {BODY_SIZE} are needed")
    app_status, protocol_status = _END_BODY.unpack_from(content)
    return app_status, protocol_status


def encode_unknown_type(kind: int) -> bytes:
    return encode_record(RecordType.UNKNOWN_TYPE, 0, _UNKNOWN_BODY.pack(kind))


def decode_unknown_type(content: bytes) -> int:
    """The type that is not known. Raises RemoteProtocolError for a short body."""
    if len(content) < BODY_SIZE:
        raise RemoteProtocolError(f"UNKNOWN_TYPE of {len(content)} bytes, {BODY_SIZE} are needed")
    return content[0]


def encode_pairs(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Name-value pairs (3.4), in latin-1, as CGI variables are everywhere in this program.

    Raises LocalProtocolError when a string has other characters or is longer than 2 GiB.
    """
    parts: list[bytes] = []
    try:
        for name, value in pairs:
            raw_name, raw_value = name.encode("latin-1"), value.encode("latin-1")
            parts += (_encode_length(len(raw_name)), _encode_length(len(raw_value)))
            parts += (raw_name, raw_value)
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"a name-value pair is not latin-1: {error}") from error
    return b"".join(parts)


def _encode_length(length: int) -> bytes:
    if length < 0x80:
        return bytes((length,))
    if length > 0x7FFFFFFF:
        raise LocalProtocolError(f"{length} bytes in a name-value pair, 31 bits are the most")
    return _LONG_LENGTH.pack(length | 0x80000000)


def decode_pairs(data: Union[bytes, bytearray], max_count: int) -> dict[str, str]:
    """Name-value pairs (3.4) as latin-1 strings; the last one of a repeated name wins.

    Raises RemoteProtocolError when a length points beyond the end, TooManyPairs over max_count.
    """
    # Decoded once as a whole: in latin-1 a byte is a character, so the same offsets hold.
    text = data.decode("latin-1")
    end = len(data)
    position = 0
    pairs: dict[str, str] = {}
    short_lengths = _SHORT_LENGTHS.unpack_from
    try:
        for _ in range(max_count):
            if position >= end:
                break
            name_length, value_length = short_lengths(data, position)
            start = position + 2
            if name_length > 0x7F or value_length > 0x7F:
                start, name_length, value_length = _decode_lengths(data, position)
            middle = start + name_length
            position = middle + value_length
            pairs[text[start:middle]] = text[middle:position]
    except (IndexError, struct.error):
        position = end + 1
    # A slice beyond the end is silently short, so one look at the end covers every pair.
    if position > end:
        raise RemoteProtocolError("a name-value pair is longer than what holds it")
    if position < end:
        raise TooManyPairs(f"more than {max_count} name-value pairs")
    return pairs


def _decode_lengths(data: Union[bytes, bytearray], position: int) -> tuple[int, int, int]:
    """Where a name begins, its length and its value's: each in one byte, or in four.

    Raises IndexError or struct.error at the end of the data.
    """
    lengths = []
    for _ in range(2):
        length = data[position]
        position += 1
        if length > 0x7F:
            length = _LONG_LENGTH.unpack_from(data, position - 1)[0] & 0x7FFFFFFF
            position += 3
        lengths.append(length)
    return position, lengths[0], lengths[1]

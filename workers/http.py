"""The server's end of an HTTP connection, as far as a page that is only looked at needs it: bytes in, events
out; no socket, no clock.

It has the methods and the events of the FastCGI one, so that what is said there of slow, silent and broken
peers holds here too. One request a connection (RFC 9112): a request's body is passed over, and the end
of the answer is the end of the connection.
"""

from __future__ import annotations

import re
from typing import Optional
from urllib.parse import unquote_to_bytes

from workers.fastcgi.connection import (
    NEED_DATA,
    EndOfBody,
    Event,
    ParamsTooLarge,
    PeerClosed,
    RequestParams,
)
from workers.fastcgi.records import RemoteProtocolError
from workers.fastcgi.states import State

#: Of the request line and all fields, as in nginx's default of 4 buffers of 8 KiB.
MAX_HEAD = 32_768
#: In SERVER_SOFTWARE: no web server stands before this one.
SOFTWARE = "trac-spawn"
_END = re.compile(rb"\r?\n\r?\n")
_LINE = re.compile(rb"([A-Z]{1,32}) (/[^\x00-\x20\x7f]*) (HTTP/1\.[01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_STATUS = re.compile(rb"^Status: ([^\r\n]*)\r\n", re.MULTILINE)


class HttpConnection:
    """One connection. Feed it with receive_data(), and take events with next_event() until NEED_DATA."""

    name = "HTTP"
    keep_connection = False
    #: Nobody can abort a request but by leaving.
    state = State.IDLE

    def __init__(self) -> None:
        self.request_id: Optional[int] = None
        self._received = bytearray()
        self._head: Optional[bytes] = b""  # of the answer, until it is whole
        self._events: list[Event] = []
        self._asked = False  # the one request has come

    @property
    def buffered(self) -> bool:
        return self.request_id is not None or bool(self._received)

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the peer; b"" says that it closed its end."""
        if not data:
            self._events.append(PeerClosed())
        elif not self._asked:
            self._received += data

    def receive_whole(self, data: bytes) -> None:
        """Only pages that are looked at now and then come by HTTP: receive_data() is good enough."""

    def next_event(self) -> Event:
        """The next event, or NEED_DATA. Raises RemoteProtocolError when the peer does not speak HTTP."""
        if not self._asked and self._received:
            self._take()
        return self._events.pop(0) if self._events else NEED_DATA

    def _take(self) -> None:
        end = _END.search(self._received)
        if end is None and len(self._received) <= MAX_HEAD:
            if not self._received[:1].isupper():
                raise RemoteProtocolError("not a request in HTTP/1")
            return
        head = bytes(self._received[: end.start() if end else MAX_HEAD])
        self._received.clear()
        self._asked = True
        if end is None or len(head) > MAX_HEAD:
            self.request_id = 1
            self._events.append(ParamsTooLarge(f"more than {MAX_HEAD} bytes of request header"))
            return
        params = _params(head)
        self.request_id = 1
        self._events += [RequestParams(1, params, False), EndOfBody()]

    def data_to_send(self) -> bytes:
        return b""

    def stdout(self, data: bytes) -> list[bytes]:
        """Part of the answer, whose header is as CGI has it."""
        if self._head is None:
            return [data]
        head, end, body = (self._head + data).partition(b"\r\n\r\n")
        if not end:
            self._head = head
            return []
        self._head = None
        head += b"\r\n"
        status = _STATUS.search(head)
        line = b"HTTP/1.1 " + (status[1] if status else b"200 OK")
        return [line + b"\r\n" + _STATUS.sub(b"", head) + b"Connection: close\r\n\r\n" + body]

    def stderr(self, data: bytes) -> list[bytes]:
        """There is nobody to tell."""
        return []

    def end_request(self, app_status: int = 0) -> list[bytes]:
        self.request_id = None
        return []


def _params(head: bytes) -> dict[str, str]:
    """The head of a request as CGI has it (RFC 3875). Raises RemoteProtocolError."""
    first, *lines = head.replace(b"\r\n", b"\n").split(b"\n")
    match = _LINE.fullmatch(first)
    if match is None:
        raise RemoteProtocolError("not a request in HTTP/1")
    path, _, query = match[2].partition(b"?")
    params = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": match[1].decode(),
        "REQUEST_URI": match[2].decode("latin-1"),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_PROTOCOL": match[3].decode(),
        "SERVER_SOFTWARE": SOFTWARE,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
    }
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise RemoteProtocolError("a field of the request header is broken")
        name = field[1].decode().upper().replace("-", "_")
        # The body is passed over; and HTTP_PROXY would name a proxy to programs (CVE-2016-5385).
        if name not in ("CONTENT_LENGTH", "TRANSFER_ENCODING", "PROXY"):
            params[f"HTTP_{name}"] = field[2].decode("latin-1").rstrip()
    return params

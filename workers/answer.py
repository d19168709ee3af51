"""Where the application's answer goes: framed as FastCGI, onto the connection."""

from __future__ import annotations

import logging
from collections.abc import Callable

from workers.connection import Connection
from workers.fastcgi.records import MAX_ALIGNED_CONTENT
from workers.wsgi import PeerGone

log = logging.getLogger("trac-spawn")

#: An answer goes out in pieces of this size: an abort is noticed between two, framing copies no more
#: than one, and the buffers of one stay far below IOV_MAX.
PIECE = 16 * MAX_ALIGNED_CONTENT


class AnswerOutput:
    """An ``Output`` of workers.wsgi."""

    def __init__(
        self,
        connection: Connection,
        request_id: str = "",
        errors_to: str = "web-server",
        progress: Callable[[int], None] = lambda size: None,
    ) -> None:
        """``errors_to``: "web-server", "log" or "both". ``progress`` is told how many bytes, the header
        among them, have gone out of an answer that takes more than one write."""
        self._progress = progress
        self._size = 0
        self._connection = connection
        self._errors_to = errors_to
        self._request_id = request_id
        self._protocol = connection.protocol
        self.started = False
        self.ended = False
        self.timed_out = False
        self._abandoned = False

    def send(self, data: list[bytes], end: bool) -> None:
        """Send response bytes, and with ``end`` END_REQUEST in the same write. Raises PeerGone."""
        if self._abandoned:
            raise PeerGone("the request was ended by the server")
        if self.started:
            self._connection.look_for_abort()
        elif self._request_id and b"\nx-request-id:" not in data[0].lower():
            # After the status, which simple readers of CGI answers look for in the first line.
            status, _, rest = data[0].partition(b"\r\n")
            data = [b"%b\r\nX-Request-Id: %b\r\n" % (status, self._request_id.encode()), rest, *data[1:]]
        self.started = True
        size = sum(map(len, data))
        if size > PIECE:
            self._send_pieces(data)
            buffers = []
        else:
            buffers = self._protocol.stdout(b"".join(data))
            if not end:
                self._advance(size)
        if end:
            self.ended = True
            buffers += self._protocol.end_request()
        if buffers:
            self._connection.send(buffers)

    def _send_pieces(self, data: list[bytes]) -> None:
        for block in data:
            for start in range(0, len(block), PIECE):
                piece = block[start : start + PIECE]
                self._connection.send(self._protocol.stdout(piece))
                self._advance(len(piece))
                self._connection.look_for_abort()

    def _advance(self, size: int) -> None:
        self._size += size
        self._progress(self._size)

    def time_out(self) -> None:
        """Nothing that the application still says gets out; the visitor is told by us, if by anybody."""
        self.timed_out = self._abandoned = True

    def abandon(self) -> None:
        """Nothing more of an answer that has begun gets out: the connection will end without END_REQUEST.

        An exception alone cannot bring that about: Trac's dispatcher swallows every one, even a
        BaseException, and ends its answer as if it were whole.
        """
        self._abandoned = self.started

    def error(self, text: str) -> None:
        """wsgi.errors: to the web server's error log, which takes it only while the request is open."""
        if self.ended or self._errors_to != "web-server":
            log.error("%s", text.rstrip())
        if self.ended or self._errors_to == "log":
            return
        try:
            # Joined: the records of a very long text would be too many buffers for one write.
            records = self._protocol.stderr(text.encode("utf-8", "backslashreplace"))
            self._connection.send([b"".join(records)])
        except PeerGone:
            if self._errors_to == "web-server":
                log.error("%s", text.rstrip())

"""The server side of PEP 3333: calls the application and frames its answer as CGI does.

It knows no socket and no FastCGI: the answer goes to an ``Output``. Section names in comments are
those of PEP 3333.
"""

from __future__ import annotations

import errno
import html
import logging
import re
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Union

Application = Callable[..., Iterable[bytes]]
ExcInfo = Union[
    tuple[type[BaseException], BaseException, TracebackType], tuple[None, None, None], None
]

# Large enough that a system call is cheap beside the copying, small enough that a worker's
# memory does not grow by the size of an attachment.
FILE_BLOCK = 256 * 1024

# 1xx is not an answer yet, and CGI knows no way to send one before the answer.
_STATUS = re.compile(r"[2-9][0-9][0-9] [^\x00-\x1f\x7f]*")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 9110 allows the tab inside a value, and it can do no harm.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

# "Other HTTP Features": hop-by-hop headers belong to the web server. Status is how CGI spells the
# status line, so a header of that name would be a second one.
_REFUSED = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer"
    " trailers transfer-encoding upgrade status".split()
)

# The web server replaces the body by a file: Trac then sends the file's Content-Length and no body.
_DELEGATED = re.compile(
    rb"^(?:x-sendfile|x-sendfile2|x-lighttpd-send-file|x-accel-redirect|x-litespeed-location):",
    re.IGNORECASE | re.MULTILINE,
)

# How far an answer has got.
_NEW, _BEGUN, _ENDED, _BROKEN, _GONE = range(5)


class PeerGone(Exception):
    """Raised by Output.send: the web server has closed its end, nobody reads the answer."""


class ApplicationError(Exception):
    """The application broke a rule of PEP 3333."""


class _WriteFailed(BrokenPipeError):
    """What write() raises for PeerGone: applications, Trac among them, know an OSError with EPIPE
    as "the visitor left" and end quietly, and take anything else for a bug to log."""


class Output(Protocol):
    """Where an answer goes."""

    def send(self, data: list[bytes], end: bool) -> None:
        """Transmit the buffers, and with ``end`` finish the request in the same write.

        Raises PeerGone.
        """

    def error(self, text: str) -> None:
        """Pass on what the application wrote to wsgi.errors."""


@dataclass
class Result:
    """What became of a request: status code, bytes of body given to the output, and whether the
    answer is whole. When it is not, the connection must be closed without an end of request, or
    the web server takes the part for the whole."""

    status: int
    sent: int
    clean: bool
    #: The header as it was sent, but for the end of it.
    head: bytes = field(default=b"", compare=False)


#: Of a request that has not been answered.
NOTHING = Result(0, 0, False)


class FileWrapper:
    """``wsgi.file_wrapper``: iterates over a file in large blocks.

    A file that cannot seek may be a pipe whose writer is slow: there the application's own block
    size holds, so that nothing is kept waiting for a large block to fill.
    """

    def __init__(self, filelike: BinaryIO, blksize: int = 8192) -> None:
        self.filelike = filelike
        seekable = getattr(filelike, "seekable", None)
        self.blksize = max(blksize, FILE_BLOCK) if seekable and seekable() else blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        data = self.filelike.read(self.blksize)
        if data:
            return data
        raise StopIteration


def server_keys(run_once: bool = False) -> dict[str, object]:
    """The wsgi.* keys that are the same for all requests, for ``make_environ(base=...)``."""
    return {
        "wsgi.version": (1, 0),
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": run_once,
        "wsgi.file_wrapper": FileWrapper,
    }


def error_answer(status: str, reason: str, request_id: str = "") -> list[bytes]:
    """A complete small answer, header and body, for when there is none by the application."""
    named = f"X-Request-Id: {request_id}\r\n" if request_id else ""
    body = (
        f"<!DOCTYPE html>\n<html><head><title>{html.escape(status)}</title></head>\n"
        f"<body><h1>{html.escape(status)}</h1>\n<p>{html.escape(reason)}</p></body></html>\n"
    ).encode()
    head = (
        f"Status: {status}\r\n{named}Content-Type: text/html; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\n\r\n"
    )
    return [head.encode("latin-1"), body]


def respond(
    application: Application, environ: dict[str, object], output: Output, log: logging.Logger
) -> Result:
    """Call the application and send its answer.

    Every Exception of the application ends here: as a 500 answer while nothing has been sent, as
    an answer cut off (``clean`` False) after that, and always in the log. What is not an Exception
    (SystemExit, an interrupt) is raised again, after close().
    """
    answer = _Answer(environ, output, log)
    blocks = None
    try:
        blocks = application(environ, answer.start_response)
        answer.send_all(blocks)
    except (PeerGone, _WriteFailed):
        pass
    except Exception as error:  # whatever the application raises ends its request, not the worker
        answer.fail(error)
    finally:
        if blocks is not None:
            answer.close(blocks)
    return Result(answer.code, answer.sent, answer.state == _ENDED, answer.head)


class _Answer:
    """One answer on its way from the application to the output."""

    __slots__ = (
        "environ", "output", "log", "bodiless", "state", "head", "code", "left", "sent", "surplus",
    )  # fmt: skip

    def __init__(self, environ: dict[str, object], output: Output, log: logging.Logger) -> None:
        self.environ = environ
        self.output = output
        self.log = log
        # Taken now: the application may change its environ.
        self.bodiless = environ.get("REQUEST_METHOD") == "HEAD"
        self.state = _NEW
        self.head = b""  # without the empty line that ends it; b"" before start_response()
        self.code = 500
        self.left: int | None = None  # bytes that Content-Length still allows, None: any number
        self.sent = 0
        self.surplus = False

    # -- what the application calls

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None
    ) -> Callable[[bytes], None]:
        if exc_info:
            try:
                if self.state != _NEW and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # the traceback holds this frame: without this, a cycle
        elif self.head:
            raise ApplicationError("start_response() was called again without exc_info")
        self.head = b""  # should the new header be refused, the old one must not go out
        code = _status_code(status)
        self.head, self.left = _make_head(status, headers)
        self.code = code
        if self.bodiless or code == 204 or code == 304:
            self.left = 0
        return self.write

    def write(self, data: bytes) -> None:
        """Unlike in an iterable, an empty block sends the header (same section)."""
        if not isinstance(data, bytes):
            raise ApplicationError(f"write() takes bytes, not {type(data).__name__}")
        try:
            self.put(data, False)
        except PeerGone:
            raise _WriteFailed(errno.EPIPE, "the visitor is gone") from None

    # -- from blocks to the output

    def send_all(self, blocks: Iterable[bytes]) -> None:
        if type(blocks) is list or type(blocks) is tuple:
            # All at hand: one write for all, and no need to look for the end.
            data = blocks[0] if len(blocks) == 1 else b"".join(map(_checked, blocks))
            if _checked(data):
                self.put(data, True)
        else:
            self.send_each(blocks)
        if self.state == _NEW or self.state == _BEGUN:
            self.finish()

    def send_each(self, blocks: Iterable[bytes]) -> None:
        """Send each block as it comes: a slow application's first block must not wait."""
        if blocks is None:
            raise ApplicationError("the application returned None, not an iterable of bytes")
        only = isinstance(blocks, Sized) and len(blocks) == 1
        for block in blocks:
            if _checked(block):
                # The code behind the last yield shall run, so the loop goes on after the end of
                # the answer; but not for ever.
                if self.state == _ENDED:
                    self.cut(len(block))
                    break
                self.put(block, only)

    def put(self, block: bytes, last: bool) -> None:
        """Send one block, before the first one the header, and the end once nothing can follow."""
        if self.state == _ENDED:
            self.cut(len(block))
            return
        if self.state >= _BROKEN:
            raise PeerGone
        size = len(block)
        head = self.head
        if self.left is None:
            if last and self.state == _NEW:
                head += b"Content-Length: %d\r\n" % size
        else:
            if size > self.left:
                self.cut(size - self.left)
                block = block[: self.left]
                size = self.left
            self.left -= size
            last = self.left == 0
        parts = [block] if size else []
        if self.state == _NEW:
            if not self.head:
                raise ApplicationError("a block came before start_response() was called")
            parts.insert(0, head + b"\r\n")
        if parts or last:
            self.transmit(parts, last)
        self.sent += size

    def transmit(self, parts: list[bytes], end: bool) -> None:
        # Broken until the output says otherwise: an interrupt may leave half a block in the
        # socket, and Trac's dispatch_request swallows even a KeyboardInterrupt.
        self.state = _BROKEN
        try:
            self.output.send(parts, end)
        except PeerGone:
            self.state = _GONE
            raise
        self.state = _ENDED if end else _BEGUN

    def finish(self) -> None:
        """The application is done and the answer has not been ended yet."""
        if not self.head:
            raise ApplicationError("the application ended without calling start_response()")
        missing = self.left and not (self.state == _NEW and _DELEGATED.search(self.head))
        parts = [self.head + b"\r\n"] if self.state == _NEW else []
        if missing:
            self.warn("the answer is %d bytes shorter than its Content-Length", self.left)
        if parts or not missing:
            self.transmit(parts, not missing)

    # -- when something is wrong

    def fail(self, error: Exception) -> None:
        """The application raised this; to be called while it is being handled."""
        if self.state == _NEW:
            self.log.exception("%s: the application failed", self.describe())
            self.answer_500()
        elif self.state == _ENDED:
            self.log.exception("%s: an exception after the answer was sent", self.describe())
        elif self.state == _GONE:
            self.warn("%r after the visitor had left", error)
        else:
            self.log.exception("%s: the application failed, its answer is cut off", self.describe())

    def answer_500(self) -> None:
        self.code = 500
        head, body = error_answer("500 Internal Server Error", "The server's log says more.")
        try:
            self.transmit([head] if self.bodiless else [head, body], True)
        except PeerGone:
            return
        self.sent = 0 if self.bodiless else len(body)

    def cut(self, size: int) -> None:
        """Note what is left out of the answer: a mistake, unless it has no body by its nature."""
        if size and not (self.surplus or self.bodiless or self.code in (204, 304)):
            self.surplus = True
            self.warn("the answer is cut: it has at least %d bytes more than announced", size)

    def close(self, blocks: Iterable[bytes]) -> None:
        close = getattr(blocks, "close", None)
        if close is None:
            return
        try:
            close()
        except Exception:  # of the application, whose answer has been sent
            self.log.exception("%s: the answer's close() failed", self.describe())

    def warn(self, message: str, *args: object) -> None:
        self.log.warning("%s: " + message, self.describe(), *args)

    def describe(self) -> str:
        """The request in one line, with nothing in it that could forge another."""
        environ = self.environ
        uri: Any = environ.get("REQUEST_URI") or environ.get("PATH_INFO")
        return ascii(f"{environ.get('REQUEST_METHOD')} {uri}")[1:-1]


# -- header checks ("The start_response() Callable")


def _checked(block: Any) -> bytes:
    if isinstance(block, bytes):
        return block
    raise ApplicationError(f"a block of the answer is {type(block).__name__}, not bytes")


@lru_cache(maxsize=256)
def _status_code(status: str) -> int:
    if not isinstance(status, str) or not _STATUS.fullmatch(status):
        raise ApplicationError(f"not a status: {status!r}")
    return int(status[:3])


@lru_cache(maxsize=1024)
def _is_length(name: str) -> bool:
    """Check a header name; True for Content-Length."""
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ApplicationError(f"not a header name: {name!r}")
    lower = name.lower()
    if lower in _REFUSED:
        raise ApplicationError(f"a header that only the web server may send: {name}")
    return lower == "content-length"


def _make_head(status: str, headers: Iterable[tuple[str, str]]) -> tuple[bytes, int | None]:
    """The header block without the empty line that ends it, and what Content-Length says."""
    text = f"Status: {status}\r\n"
    length: int | None = None
    for name, value in headers:
        if not isinstance(value, str) or not value.isprintable() and _CONTROL.search(value):
            raise ApplicationError(f"not a value for the header {name!r}: {value!r}")
        if _is_length(name):
            if not (value.isascii() and value.isdigit() and length in (None, int(value))):
                raise ApplicationError(f"Content-Length is {value!r}, before it was {length}")
            if length is not None:
                continue
            length = int(value)
        text += f"{name}: {value}\r\n"
    try:
        return text.encode("latin-1"), length
    except UnicodeEncodeError as error:
        bad = error.object[error.start : error.end]
        raise ApplicationError(f"a header is not latin-1: {bad!r}") from None

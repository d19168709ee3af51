"""The access log: one line a request, in php-fpm's words or one of two well-known forms.

A line is one write(2) to a descriptor that was opened for appending, so lines of different workers never
mix, and it is no longer than a pipe takes at once. What visitors send is escaped as nginx does: no
request can make a line look like two, or like another.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

from workers.logs import put_in_place, take_log_file
from workers.syslog import Syslog

log = logging.getLogger("trac-spawn")

#: pipe(7), PIPE_BUF: what a pipe takes whole.
LINE_CEILING = 4096
#: A line that is too long is made again with its texts cut to these lengths, one after another.
CUTS = (1024, 256, 32)
#: Seconds until it is said again that the log cannot be written.
COMPLAIN_AGAIN = 60.0
COMBINED = '%R - %u [%t] "%m %r%Q%q %H" %s %b "%{HTTP_REFERER}e" "%{HTTP_USER_AGENT}e"'
_DATE = "%d/%b/%Y:%H:%M:%S %z"
_UNSAFE = re.compile(r'[\x00-\x1f"\\\x7f-\U0010ffff]')
_DIRECTIVE = re.compile(r"%(?:\{([^}]*)\})?(.)|%", re.DOTALL)


@dataclass
class Entry:
    """What is known of a request once it has been answered. Times are in nanoseconds.

    One object is filled in again and again: to make one costs more than to write the line.
    """

    params: Mapping[str, str] = field(default_factory=dict)
    status: int = 0
    sent: int = 0
    took: int = 0
    #: Processor time of this process, and that in user mode and in the kernel where it was asked for.
    work: int = 0
    user_work: float = 0.0
    system_work: float = 0.0
    memory: int = 0
    request_id: str = ""
    pool: str = ""
    slot: int = 0
    head: bytes = b""
    #: time.time() at its end.
    now: float = 0.0


Getter = Callable[[Entry], str]


@dataclass(frozen=True)
class Format:
    """A compiled format: a line of an entry, its texts cut to a length where one is given. ``usage``: it
    shows processor time by mode, which costs a system call."""

    line: Callable[[Entry, Optional[int]], str]
    usage: bool = False


def _is_safe(text: str) -> bool:
    """Whether _UNSAFE finds nothing in it, in a quarter of the time."""
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def _escape(match: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02X}" for byte in match[0].encode("latin-1", "replace"))


# -- formats -------------------------------------------------------------------------------------


def compile_format(text: str) -> Format:
    """``combined``, ``json``, or php-fpm's access.format with a few directives more.

    Raises ValueError with a phrase that names what is wrong in it.
    """
    if text == "json":
        return Format(_json_line)
    pieces: list[str] = []
    getters: list[Getter] = []
    usage = False
    end = 0
    text = COMBINED if text == "combined" else text
    for match in _DIRECTIVE.finditer(text):
        pieces.append(text[end : match.start()].replace("%", "%%"))
        end = match.end()
        if match[2] == "%" and match[1] is None:
            pieces.append("%%")
            continue
        getters.append(_getter(match))
        usage = usage or (match[2] == "C" and (match[1] or "total").lower() != "total")
        pieces.append("%s")
    template = "".join([*pieces, text[end:]])
    if not text.isprintable():
        raise ValueError("the format has control characters in it")

    def line(entry: Entry, cut: Optional[int] = None) -> str:
        values = [getter(entry) for getter in getters]
        # One look at all together: nearly always there is nothing to escape.
        if cut is not None or not _is_safe("".join(values)):
            values = [_UNSAFE.sub(_escape, value[:cut]) for value in values]
        return template % tuple(values)

    return Format(line, usage)


def _getter(match: re.Match[str]) -> Getter:
    modifier, directive = match[1], match[2]
    if directive in _PLAIN and modifier is None:
        return _PLAIN[directive]
    if directive in _MODIFIED:
        try:
            return _MODIFIED[directive](modifier)
        except KeyError:
            raise ValueError(f"{match[0]!r} has an unknown or missing word in braces") from None
    if directive in _PLAIN:
        raise ValueError(f"{match[0]!r}: this directive takes no word in braces")
    raise ValueError(f"{match[0]!r} is not a directive of the format")


def _uri(entry: Entry) -> str:
    """Without its query, as php-fpm has it."""
    params = entry.params
    uri = params.get("REQUEST_URI")
    if uri is None:
        uri = params.get("SCRIPT_NAME", "") + params.get("PATH_INFO", "")
    return uri.partition("?")[0] or "-"


def _cpu(word: str | None) -> Getter:
    work: dict[str, Callable[[Entry], float]] = {
        "total": lambda entry: entry.work / 1e9,
        "user": lambda entry: entry.user_work,
        "system": lambda entry: entry.system_work,
    }
    chosen = work[(word or "total").lower()]
    return lambda entry: f"{chosen(entry) * 1e9 / max(1, entry.took) * 100:.2f}"


def _duration(word: str | None) -> Getter:
    # php-fpm misspells milliseconds; both are right here.
    divisors = {"seconds": 1e9, "milliseconds": 1e6, "miliseconds": 1e6, "milli": 1e6, "mili": 1e6}
    word = (word or "seconds").lower()
    if word in ("microseconds", "micro"):
        return lambda entry: str(entry.took // 1000)
    divisor = divisors[word]
    return lambda entry: f"{entry.took / divisor:.3f}"


def _memory(word: str | None) -> Getter:
    units = {"bytes": 0, "kilobytes": 10, "kilo": 10, "megabytes": 20, "mega": 20}
    shift = units[(word or "bytes").lower()]
    return lambda entry: str(entry.memory >> shift)


def _param(name: str, missing: str = "-") -> Getter:
    return lambda entry: entry.params.get(name) or missing


_PLAIN: dict[str, Getter] = {
    "f": lambda entry: entry.params.get("SCRIPT_FILENAME") or entry.params.get("SCRIPT_NAME") or "-",
    "l": _param("CONTENT_LENGTH", "0"),
    "m": _param("REQUEST_METHOD"),
    "n": lambda entry: entry.pool or "-",
    "p": lambda entry: str(os.getpid()),
    "P": lambda entry: str(os.getppid()),
    "q": _param("QUERY_STRING", ""),
    "Q": lambda entry: "?" if entry.params.get("QUERY_STRING") else "",
    "r": _uri,
    "R": _param("REMOTE_ADDR"),
    "s": lambda entry: str(entry.status),
    "u": _param("REMOTE_USER"),
    # Not of php-fpm.
    "b": lambda entry: str(entry.sent),
    "H": _param("SERVER_PROTOCOL"),
    "i": lambda entry: entry.request_id or "-",
    "w": lambda entry: str(entry.slot),
}


def _parameter(word: str | None) -> Getter:
    if not word:
        raise KeyError(word)
    return _param(word)


def _header(word: str | None) -> Getter:
    if not word:
        raise KeyError(word)
    pattern = re.compile(rb"^" + re.escape(word.encode()) + rb": *([^\r\n]*)", re.I | re.M)

    def get(entry: Entry) -> str:
        found = pattern.search(entry.head)
        return found[1].decode("latin-1") or "-" if found else "-"

    return get


def _moment(begin: bool) -> Callable[[str | None], Getter]:
    def of(word: str | None) -> Getter:
        form = word or _DATE
        latest: tuple[int, str] = (0, "")

        def get(entry: Entry) -> str:
            nonlocal latest
            second = int(entry.now - entry.took / 1e9 if begin else entry.now)
            if second != latest[0]:
                latest = (second, time.strftime(form, time.localtime(second)))
            return latest[1]

        return get

    return of


_MODIFIED: dict[str, Callable[[str | None], Getter]] = {
    "C": _cpu,
    "d": _duration,
    "e": _parameter,
    "M": _memory,
    "o": _header,
    "t": _moment(True),
    "T": _moment(False),
}


def _json_line(entry: Entry, cut: Optional[int] = None) -> str:
    begun = entry.now - entry.took / 1e9
    date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(begun))
    texts = {
        "remote_addr": "REMOTE_ADDR", "remote_user": "REMOTE_USER", "method": "REQUEST_METHOD",
        "uri": "REQUEST_URI", "protocol": "SERVER_PROTOCOL", "host": "HTTP_HOST",
        "referer": "HTTP_REFERER", "user_agent": "HTTP_USER_AGENT",
    }  # fmt: skip
    told: dict[str, object] = {
        "time": f"{date}.{int(begun % 1 * 1000):03d}Z",
        "request_id": entry.request_id,
        **{key: _readable(entry.params.get(name, "")[:cut]) for key, name in texts.items()},
        "status": entry.status,
        "bytes": entry.sent,
        "duration_s": round(entry.took / 1e9, 6),
        "cpu_s": round(entry.work / 1e9, 6),
        "memory": entry.memory,
        "pool": entry.pool,
        "slot": entry.slot,
        "pid": os.getpid(),
    }
    return json.dumps(told)


def _readable(text: str) -> str:
    """Parameters are bytes in latin-1; what they mean is UTF-8 as a rule."""
    return text if text.isascii() else text.encode("latin-1", "replace").decode("utf-8", "replace")


# -- writing -------------------------------------------------------------------------------------


class AccessLog:
    """Writes to ``descriptor``, which another process has opened; ``syslog``: it is a socket that takes
    each line as a message."""

    def __init__(
        self, descriptor: int, form: Format, suppressed: Sequence[str] = (), *, syslog: bool = False
    ) -> None:
        self.descriptor = descriptor
        self.usage = form.usage
        self._line = form.line
        self._suppressed = frozenset(suppressed)
        self._syslog = Syslog(descriptor) if syslog else None
        self._complain_again = 0.0

    def write(self, entry: Entry) -> None:
        if self._suppressed and self._is_suppressed(entry):
            return
        line = self._line(entry, None)
        if len(line) >= LINE_CEILING:
            for cut in CUTS:
                line = self._line(entry, cut)
                if len(line) < LINE_CEILING:
                    break
        data = line[: LINE_CEILING - 1].encode("ascii", "backslashreplace") + b"\n"
        try:
            self._send(data)
        except OSError as error:
            self._complain(error)

    def _send(self, data: bytes) -> None:
        if self._syslog is not None:
            self._syslog.write(data[:-1])  # it knows no lines, only messages
            return
        try:
            os.write(self.descriptor, data)
        except BlockingIOError:
            # Whoever started us may have made a pipe non-blocking; waiting for it is what others do.
            select.select([], [self.descriptor], [])
            os.write(self.descriptor, data)

    def take(self, descriptor: int) -> None:
        """From now on write to another file, which has been opened in place of the old one."""
        put_in_place(descriptor, self.descriptor)

    def _is_suppressed(self, entry: Entry) -> bool:
        """As php-fpm: only what tells nothing, so that nobody can hide behind such a path."""
        get = entry.params.get
        return (
            get("REQUEST_METHOD") in ("GET", "HEAD")
            and 200 <= entry.status < 300
            and not get("QUERY_STRING")
            and get("CONTENT_LENGTH", "") in ("", "0")
            and get("SCRIPT_NAME", "") + get("PATH_INFO", "") in self._suppressed
        )

    def _complain(self, error: OSError) -> None:
        now = time.monotonic()
        if now >= self._complain_again:
            self._complain_again = now + COMPLAIN_AGAIN
            log.error("the access log cannot be written: %s", error.strerror)


def take_files(files: Mapping[str, int], access_log: AccessLog | None) -> None:
    """Go on with the log files that the master has opened again, by "log" and "access"."""
    for name, descriptor in files.items():
        if name == "log":
            take_log_file(descriptor)
        elif access_log is not None:
            access_log.take(descriptor)
        else:
            os.close(descriptor)  # the pool has one only since a reload

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
from dataclasses import dataclass
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
_UNSAFE_ASCII = bytes(byte for byte in range(128) if _UNSAFE.match(chr(byte)))
_DIRECTIVE = re.compile(r"%(?:\{([^}]*)\})?(.)|%", re.DOTALL)


class Entry:
    """What is known of a request once it has been answered. Times are in nanoseconds.

    One object is filled in again and again: to make one costs more than to write the line.
    """

    __slots__ = (
        "params", "status", "sent", "took", "work", "user_work", "system_work", "memory", "request_id",
        "pool", "slot", "head", "now",
    )  # fmt: skip

    def __init__(self, pool: str = "", slot: int = 0) -> None:
        self.params: Mapping[str, str] = {}
        self.status = 0
        #: Bytes of the body.
        self.sent = 0
        self.took = 0
        #: Processor time of this process, and in seconds that in user mode and in the kernel where it was
        #: asked for.
        self.work = 0
        self.user_work = 0.0
        self.system_work = 0.0
        self.memory = 0
        self.request_id = ""
        self.pool = pool
        self.slot = slot
        self.head = b""
        #: time.time() at its end.
        self.now = 0.0


@dataclass(frozen=True)
class Format:
    """A compiled format: a line of an entry, its texts cut to a length where one is given. ``usage``: it
    shows processor time by mode, which costs a system call."""

    line: Callable[[Entry, Optional[int]], str]
    usage: bool = False


def _escape(match: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02X}" for byte in match[0].encode("latin-1", "replace"))


# -- formats -------------------------------------------------------------------------------------


def compile_format(text: str) -> Format:
    """``combined``, ``json``, or php-fpm's access.format with a few directives more.

    Raises ValueError with a phrase that names what is wrong in it.
    """
    if text == "json":
        return Format(_json_line)
    text = COMBINED if text == "combined" else text
    pieces: list[str] = []
    names: Names = {"getpid": os.getpid, "getppid": os.getppid, "uri": _uri}
    values: list[str] = []
    usage = False
    end = 0
    for match in _DIRECTIVE.finditer(text):
        pieces.append(text[end : match.start()].replace("%", "%%"))
        end = match.end()
        if match[2] == "%" and match[1] is None:
            pieces.append("%%")
            continue
        values.append(_expression(match, names))
        usage = usage or (match[2] == "C" and (match[1] or "total").lower() != "total")
        pieces.append("%s")
    if not text.isprintable():
        raise ValueError("the format has control characters in it")
    template = "".join([*pieces, text[end:]])
    # One function for all of them: to call one each costs twice as much as the rest of the line. What
    # is evaluated is made of the expressions below, and of names that repr() has put in quotes.
    evaluate = eval(f"lambda entry, get: ({''.join(f'{value}, ' for value in values)})", names)
    return Format(_line_of(template, evaluate), usage)


def _line_of(
    template: str, evaluate: Callable[[Entry, Callable[[str], Optional[str]]], tuple[object, ...]]
) -> Callable[[Entry, Optional[int]], str]:
    own = len(_UNSAFE.findall(template))

    def line(entry: Entry, cut: Optional[int] = None) -> str:
        values = evaluate(entry, entry.params.get)
        made = template % values
        # One look at the whole: nearly always there is nothing to escape.
        if cut is None and made.isascii():
            safe = made.encode().translate(None, _UNSAFE_ASCII)
            if len(safe) + own == len(made):
                return made
        return template % tuple(_UNSAFE.sub(_escape, str(value)[:cut]) for value in values)

    return line


#: Names that the expressions of a format have, beside "entry" and "get", which is that of its parameters.
Names = dict[str, object]


def _expression(match: re.Match[str], names: Names) -> str:
    """Of a directive; what it calls is put into ``names``."""
    modifier, directive = match[1], match[2]
    if directive in _PLAIN and modifier is None:
        return _PLAIN[directive]
    if directive in _MODIFIED:
        try:
            return _MODIFIED[directive](modifier, names)
        except KeyError:
            raise ValueError(f"{match[0]!r} has an unknown or missing word in braces") from None
    if directive in _PLAIN:
        raise ValueError(f"{match[0]!r}: this directive takes no word in braces")
    raise ValueError(f"{match[0]!r} is not a directive of the format")


def _call(names: Names, function: Callable[..., object], arguments: str) -> str:
    name = f"call{len(names)}"
    names[name] = function
    return f"{name}({arguments})"


def _uri(get: Callable[[str], Optional[str]]) -> str:
    """Without its query, as php-fpm has it."""
    uri = get("REQUEST_URI")
    if uri is None:
        uri = (get("SCRIPT_NAME") or "") + (get("PATH_INFO") or "")
    return uri.partition("?")[0] or "-"


def _cpu(word: Optional[str], names: Names) -> str:
    work = {"total": "entry.work / 1e9", "user": "entry.user_work", "system": "entry.system_work"}
    return f"'%.2f' % ({work[(word or 'total').lower()]} * 1e11 / max(1, entry.took))"


def _duration(word: Optional[str], names: Names) -> str:
    # php-fpm misspells milliseconds; both are right here.
    divisors = {"seconds": 1e9, "milliseconds": 1e6, "miliseconds": 1e6, "milli": 1e6, "mili": 1e6}
    word = (word or "seconds").lower()
    if word in ("microseconds", "micro"):
        return "entry.took // 1000"
    return f"'%.3f' % (entry.took / {divisors[word]})"


def _memory(word: Optional[str], names: Names) -> str:
    units = {"bytes": 0, "kilobytes": 10, "kilo": 10, "megabytes": 20, "mega": 20}
    return f"entry.memory >> {units[(word or 'bytes').lower()]}"


def _param(word: Optional[str], names: Names) -> str:
    if not word:
        raise KeyError(word)
    return f"get({word!r}) or '-'"


def _header(word: Optional[str], names: Names) -> str:
    if not word:
        raise KeyError(word)
    pattern = re.compile(rb"^" + re.escape(word.encode()) + rb": *([^\r\n]*)", re.I | re.M)

    def find(head: bytes) -> str:
        found = pattern.search(head)
        return found[1].decode("latin-1") or "-" if found else "-"

    return _call(names, find, "entry.head")


def _moment(moment: str) -> Callable[[Optional[str], Names], str]:
    def of(word: Optional[str], names: Names) -> str:
        form = word or _DATE
        latest = (0, "")

        def text(moment: float) -> str:
            nonlocal latest
            second = int(moment)
            if second != latest[0]:
                latest = (second, time.strftime(form, time.localtime(second)))
            return latest[1]

        return _call(names, text, moment)

    return of


_PLAIN = {
    "f": "get('SCRIPT_FILENAME') or get('SCRIPT_NAME') or '-'",
    "l": "get('CONTENT_LENGTH') or '0'",
    "m": "get('REQUEST_METHOD') or '-'",
    "n": "entry.pool or '-'",
    "p": "getpid()",
    "P": "getppid()",
    "q": "get('QUERY_STRING') or ''",
    "Q": "'?' if get('QUERY_STRING') else ''",
    "r": "uri(get)",
    "R": "get('REMOTE_ADDR') or '-'",
    "s": "entry.status",
    "u": "get('REMOTE_USER') or '-'",
    # Not of php-fpm.
    "b": "entry.sent",
    "H": "get('SERVER_PROTOCOL') or '-'",
    "i": "entry.request_id or '-'",
    "w": "entry.slot",
}
_MODIFIED: dict[str, Callable[[Optional[str], Names], str]] = {
    "C": _cpu,
    "d": _duration,
    "e": _param,
    "M": _memory,
    "o": _header,
    "t": _moment("entry.now - entry.took / 1e9"),
    "T": _moment("entry.now"),
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
            line = line[: LINE_CEILING - 1]
        try:
            self._send(line.encode("ascii", "backslashreplace"))
        except OSError as error:
            self._complain(error)

    def _send(self, data: bytes) -> None:
        if self._syslog is not None:
            self._syslog.write(data)
            return
        data += b"\n"
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

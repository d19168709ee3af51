"""Lines of the access log, in php-fpm's words or one of two well-known forms.

What visitors send is escaped as nginx does: no request can make a line look like two, or like another.
"""

from __future__ import annotations

import ast
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _quoted
from typing import Optional, Protocol, cast

from workers.wsgi import NOTHING

COMBINED = '%R - %u [%t] "%m %{full}r %H" %s %b "%{HTTP_REFERER}e" "%{HTTP_USER_AGENT}e"'
_DATE = "%d/%b/%Y:%H:%M:%S %z"
_UNSAFE = re.compile(r'[\x00-\x1f"\\\x7f-\U0010ffff]')
_DIRECTIVE = re.compile(r"%(?:\{([^}]*)\})?(.)|%", re.DOTALL)
_SECOND = 10**9


class Entry:
    """What is known of a request, all of it once it has been answered. Times are in nanoseconds.

    A worker has one, and fills it in again and again.
    """

    __slots__ = (
        "params", "result", "begun", "took", "work", "user_work", "system_work", "memory", "request_id",
        "pool", "slot",
    )  # fmt: skip

    def __init__(self, pool: str = "", slot: int = 0) -> None:
        self.params: Mapping[str, str] = {}
        self.result = NOTHING
        #: By time.monotonic_ns().
        self.begun = 0
        self.took = 0
        #: Processor time of this process, and in seconds that in user mode and in the kernel where it was
        #: asked for.
        self.work = 0
        self.user_work = 0.0
        self.system_work = 0.0
        #: Resident bytes, as of the last look.
        self.memory = 0
        self.request_id = ""
        self.pool = pool
        self.slot = slot


class Line(Protocol):
    def __call__(self, entry: Entry, cut: Optional[int] = None) -> bytes: ...


@dataclass(frozen=True)
class Format:
    """A compiled format: a line of an entry with its end, its texts cut to a length where one is given.
    ``usage``: it shows processor time by mode, which costs a system call."""

    line: Line
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
    if not text.isprintable():
        raise ValueError("the format has control characters in it")
    names: Names = {"getpid": os.getpid, "getppid": os.getppid, "path": _path, "uri": _uri}
    literals: list[str] = [""]
    values: list[ast.expr] = []
    usage = False
    end = 0
    for match in _DIRECTIVE.finditer(text):
        literals[-1] += text[end : match.start()]
        end = match.end()
        if match[2] == "%" and match[1] is None:
            literals[-1] += "%"
            continue
        values.append(ast.parse(_expression(match, names), mode="eval").body)
        literals.append("")
        usage = usage or (match[2] == "C" and (match[1] or "total").lower() != "total")
    literals[-1] += text[end:] + "\n"
    return Format(_line_of(literals, values, names), usage)


#: What each format's function is made of: one function, since to call another for each value costs more
#: than all the rest of the line. Its f-string is put in as a tree, so nothing in a format has to be quoted.
_LINE = """
def line(entry, cut=None):
    get, result, begun = entry.params.get, entry.result, entry.begun
    if cut is None:
        made = MADE
        # One look at the whole: nearly always there is nothing to escape.
        if len(quoted(made)) == len(made) + quoting:
            return made.encode()
    return escaped(VALUES, cut)
"""


def _line_of(literals: list[str], values: list[ast.expr], names: Names) -> Line:
    """``values`` stand between the ``literals``."""
    literals = [text.encode("ascii", "backslashreplace").decode() for text in literals]
    pieces: list[ast.expr] = [ast.Constant(literals[0])]
    for value, literal in zip(values, literals[1:]):
        pieces += [ast.FormattedValue(value, -1), ast.Constant(literal)]

    def escaped(values: list[object], cut: Optional[int]) -> bytes:
        safe = [_UNSAFE.sub(_escape, str(value)[:cut]) for value in values]
        return "".join(text for pair in zip(literals, [*safe, ""]) for text in pair).encode()

    # JSON puts marks around a text, and something before or instead of all that is unsafe here as well.
    quoting = len(_quoted("".join(literals))) - len("".join(literals))
    names.update(quoted=_quoted, quoting=quoting, escaped=escaped)
    filled = {"MADE": ast.JoinedStr(pieces), "VALUES": ast.List(values, ast.Load())}
    function = ast.fix_missing_locations(_Filled(filled).visit(ast.parse(_LINE)))
    # It is made of the text above, of the expressions below, and of what repr() has put in quotes.
    exec(compile(function, "<access log>", "exec"), names)
    return cast(Line, names["line"])


class _Filled(ast.NodeTransformer):
    def __init__(self, expressions: Mapping[str, ast.expr]) -> None:
        self._expressions = expressions

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._expressions.get(node.id, node)


Get = Callable[[str], Optional[str]]
#: Names that the expressions of a format have, beside those of the function that they are in.
Names = dict[str, object]


def _expression(match: re.Match[str], names: Names) -> str:
    """Of a directive; what it uses is put into ``names``."""
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


def _named(names: Names, what: object) -> str:
    name = f"name{len(names)}"
    names[name] = what
    return name


def _path(get: Get) -> str:
    """The URI without its query, which is what php-fpm calls it."""
    uri = get("REQUEST_URI")
    if uri is None:
        uri = (get("SCRIPT_NAME") or "") + (get("PATH_INFO") or "")
    return uri.partition("?")[0] or "-"


def _uri(get: Get) -> str:
    """With its query, where the web server does not pass it as it came."""
    query = get("QUERY_STRING")
    return f"{_path(get)}?{query}" if query else _path(get)


def _request(word: Optional[str], names: Names) -> str:
    return {"": "path(get)", "full": "get('REQUEST_URI') or uri(get)"}[(word or "").lower()]


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

    return f"{_named(names, find)}(result.head)"


class _Date:
    """The text of a second, which is that of many lines. A clock that is set is seen with the next one."""

    def __init__(self, form: str) -> None:
        self._form = form
        self.text = ""
        #: By time.monotonic_ns(), when that second begins and ends.
        self.begins = self.ends = 0

    def at(self, moment: int) -> str:
        """The text of a ``moment`` of time.monotonic_ns()."""
        clock = wall_clock(moment)
        self.begins = moment - clock % _SECOND
        self.ends = self.begins + _SECOND
        self.text = time.strftime(self._form, time.localtime(clock // _SECOND))
        return self.text


def wall_clock(moment: int) -> int:
    """Of time.monotonic_ns(), in nanoseconds since 1970."""
    return time.time_ns() - (time.monotonic_ns() - moment)


def _moment(moment: str) -> Callable[[Optional[str], Names], str]:
    def of(word: Optional[str], names: Names) -> str:
        date = _named(names, _Date(word or _DATE))
        return f"{date}.text if {date}.begins <= {moment} < {date}.ends else {date}.at({moment})"

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
    "R": "get('REMOTE_ADDR') or '-'",
    "s": "result.status",
    "u": "get('REMOTE_USER') or '-'",
    # Not of php-fpm.
    "b": "result.sent",
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
    "r": _request,
    "t": _moment("begun"),
    "T": _moment("begun + entry.took"),
}


def _json_line(entry: Entry, cut: Optional[int] = None) -> bytes:
    seconds, rest = divmod(wall_clock(entry.begun), _SECOND)
    date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    texts = {
        "remote_addr": "REMOTE_ADDR", "remote_user": "REMOTE_USER", "method": "REQUEST_METHOD",
        "uri": "REQUEST_URI", "protocol": "SERVER_PROTOCOL", "host": "HTTP_HOST",
        "referer": "HTTP_REFERER", "user_agent": "HTTP_USER_AGENT",
    }  # fmt: skip
    told: dict[str, object] = {
        "time": f"{date}.{rest // 1_000_000:03d}Z",
        "request_id": entry.request_id,
        **{key: _readable(entry.params.get(name, "")[:cut]) for key, name in texts.items()},
        "status": entry.result.status,
        "bytes": entry.result.sent,
        "duration_s": round(entry.took / 1e9, 6),
        "cpu_s": round(entry.work / 1e9, 6),
        "memory": entry.memory,
        "pool": entry.pool,
        "slot": entry.slot,
        "pid": os.getpid(),
    }
    return json.dumps(told).encode() + b"\n"


def _readable(text: str) -> str:
    """Parameters are bytes in latin-1; what they mean is UTF-8 as a rule."""
    return text if text.isascii() else text.encode("latin-1", "replace").decode("utf-8", "replace")

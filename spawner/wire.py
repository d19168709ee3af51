"""What goes over the control socket: lines of JSON, framed and checked for both ends, no I/O."""

from __future__ import annotations

import json
import os
from typing import Any

from workers.errors import BootError

#: A request is a verb and the name of a pool; this is twenty times the longest sensible one.
MAX_REQUEST = 8192
#: The status of 4,096 workers, twice as many as one can ask for, is 1.2 MB; sixteen clients that
#: read nothing of as much as this cost the master 64 MB, for a minute.
MAX_ANSWER = 4 << 20


class NotARequest(Exception):
    """It is no line of this protocol at all."""


def request(verb: str, arguments: dict[str, str]) -> bytes:
    return json.dumps({"verb": verb, "arguments": arguments}).encode() + b"\n"


def parse_request(line: bytes) -> tuple[str, dict[str, object]]:
    """The verb and its arguments, neither of them looked up anywhere. Raises NotARequest."""
    example = 'a request looks like {"verb": "status", "arguments": {}}'
    try:
        value = json.loads(line)
    # RecursionError: "[[[[..." of a few thousand.
    except (ValueError, RecursionError):
        raise NotARequest(f"this is not JSON; {example}") from None
    if not isinstance(value, dict) or not isinstance(value.get("verb"), str):
        raise NotARequest(f"there is no verb; {example}")
    arguments = value.get("arguments", {})
    if not isinstance(arguments, dict) or value.keys() - {"verb", "arguments"}:
        raise NotARequest(f"it has other parts; {example}")
    return value["verb"], arguments


def success(result: object) -> bytes:
    """Raises TypeError or ValueError for what JSON cannot express, or is too long."""
    line = json.dumps({"ok": True, "result": result}).encode() + b"\n"
    if len(line) > MAX_ANSWER:
        raise ValueError(f"it has {len(line)} bytes, {MAX_ANSWER} is the most")
    return line


def failure(message: str, details: str, status: int) -> bytes:
    # JSON makes up to 12 bytes of a character. Of a traceback, the end says what went wrong.
    ceiling = MAX_ANSWER // 32
    message, details = message[:ceiling], details[-ceiling:]
    answer = {"ok": False, "error": message, "details": details, "status": status}
    return json.dumps(answer).encode() + b"\n"


def parse_answer(line: bytes) -> Any:
    """The result. Raises BootError: the failure that the master reports, or EX_PROTOCOL."""
    try:
        answer = json.loads(line)
        if answer["ok"] is True:
            return answer["result"]
        message, details, status = str(answer["error"]), str(answer["details"]), int(answer["status"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BootError(f"this is no answer of trac-spawn: {line[:80]!r}", os.EX_PROTOCOL) from error
    # Whatever it says, a failure must not look like success.
    raise BootError(message, status if 0 < status < 256 else os.EX_SOFTWARE, details)

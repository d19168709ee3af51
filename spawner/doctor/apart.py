"""Something done in a process of its own: as another user, or with code that is not ours.

It is forked and not started anew: the workers are forked too, so their user need not be able to run
the interpreter's file.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any, Optional, Tuple

from spawner.children import describe_status, fork_child

_PIECE = 1 << 16


class Failed(Exception):
    """It raised something, ended early or took too long. ``details``: the traceback, or nothing."""

    def __init__(self, message: str, details: str = "", kind: str = "") -> None:
        super().__init__(message)
        self.details = details
        #: The name of the exception's class.
        self.kind = kind


def apart(
    work: Callable[[], Any], become: Optional[Callable[[], None]] = None, timeout: float = 30.0
) -> Any:
    """What ``work`` returns, as JSON carries it, from a child that has called ``become`` before.

    Raises Failed, also when that takes longer than ``timeout`` seconds.
    """
    reading, writing = os.pipe()

    def body() -> None:
        os.close(reading)
        _silence()
        with open(writing, "w", encoding="utf-8") as channel:
            json.dump(_outcome(work, become), channel)

    pid = fork_child(body)
    os.close(writing)
    in_time = False
    try:
        data, in_time = _read(reading, time.monotonic() + timeout)
    finally:
        os.close(reading)
        if not in_time:
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    if not in_time:
        raise Failed(f"no result within {timeout:g} seconds")
    return _result(data, status)


def _read(reading: int, deadline: float) -> Tuple[bytes, bool]:
    """All of it, and whether it has come in time."""
    data = bytearray()
    while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(reading, _PIECE)
        if not piece:
            return bytes(data), True
        data += piece
    return bytes(data), False


def _result(data: bytes, status: int) -> Any:
    try:
        outcome = json.loads(data)
    except ValueError:
        raise Failed(f"the process ended with {describe_status(status)}") from None
    if "error" in outcome:
        raise Failed(outcome["error"], outcome["details"], outcome["kind"])
    return outcome["result"]


def _silence() -> None:
    """What a plugin prints is no part of our report."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)


def _outcome(work: Callable[[], Any], become: Optional[Callable[[], None]]) -> Any:
    try:
        if become is not None:
            become()
        return {"result": work()}
    # Foreign code may raise anything, and whatever it is shall be told.
    except (Exception, SystemExit) as error:
        return {
            "error": str(error) or type(error).__name__,
            "kind": type(error).__name__,
            "details": traceback.format_exc(),
        }

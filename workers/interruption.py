"""How a request is looked into, or ended, from outside: two signals that the master sends.

faulthandler writes the Python stack of all threads from within the C signal handler, so also when C
code holds the interpreter lock, and when a crash ends the process. It writes to a file in memory that
the master has made and reads.
"""

from __future__ import annotations

import faulthandler
import signal
from types import FrameType
from typing import Callable, Optional

#: Write the stack, and go on. Real-time signals: no application uses these for itself.
SHOW_STACK = signal.SIGRTMIN + 4
#: Write the stack, and end the request.
END_REQUEST = signal.SIGRTMIN + 5


class RequestTimedOut(BaseException):
    """The request has taken longer than --request-timeout. Not for applications to catch."""


def obey(stacks: int, end_request: Callable[[], None]) -> None:
    """In a worker: write to the descriptor ``stacks``, and call ``end_request`` when told to."""

    def handler(number: int, frame: Optional[FrameType]) -> None:
        end_request()

    # In this order: faulthandler calls the handler that it finds, once it has written.
    signal.signal(END_REQUEST, handler)
    faulthandler.register(END_REQUEST, stacks, all_threads=True, chain=True)
    faulthandler.register(SHOW_STACK, stacks, all_threads=True, chain=False)
    # SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT, which then end the process as ever.
    faulthandler.enable(stacks, all_threads=True)

"""One worker with the bare application that says where its processor time went.

``python -m benchmarks.sampled SOCKET`` answers FastCGI on a Unix socket until SIGTERM, and then prints
JSON: how many requests it has answered, the microseconds of processor time that each has taken, and how
many samples have found it in which part of the program.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Optional

from benchmarks import hello
from workers import sealing
from workers.application import Application
from workers.handoff import Handoff
from workers.scoreboard import Scoreboard
from workers.worker import Worker, WorkerConfig

#: Seconds of processor time between two samples; the kernel makes it a whole number of its ticks.
EVERY = 0.001
OTHER = "anything else"
#: By the file that is being executed, or that has called what is in none of these.
PARTS = {
    "fastcgi/records.py": "FastCGI records and parameters",
    "fastcgi/connection.py": "FastCGI states and events",
    "workers/connection.py": "the connection: receive, send, end",
    "workers/outgoing.py": "the connection: receive, send, end",
    "workers/reception.py": "accepting",
    "workers/peers.py": "accepting",
    "workers/environ.py": "environ and rules",
    "workers/rules.py": "environ and rules",
    "workers/paths.py": "environ and rules",
    "workers/statuspages.py": "environ and rules",
    "workers/wsgi.py": "calling the application, checks of PEP 3333",
    "workers/answer.py": "calling the application, checks of PEP 3333",
    "workers/ledger.py": "scoreboard, request id, clocks",
    "workers/scoreboard.py": "scoreboard, request id, clocks",
    "workers/requestid.py": "scoreboard, request id, clocks",
    "workers/footprint.py": "weighing memory, recycling",
    "workers/recycling.py": "weighing memory, recycling",
    "workers/heap.py": "weighing memory, recycling",
    "workers/worker.py": "the loop, the process title",
    "workers/selector.py": "the loop, the process title",
    "workers/connections.py": "the loop, the process title",
    "benchmarks/hello.py": "the application itself",
}


class Samples:
    """Takes one whenever so much processor time has been used."""

    def __init__(self, part_of: Callable[[str], Optional[str]]) -> None:
        """``part_of``: what a file belongs to, None for what its caller does."""
        self.parts: Counter[str] = Counter()
        self._part_of = part_of

    def begin(self) -> None:
        signal.signal(signal.SIGPROF, self._take)
        signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)

    def end(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _take(self, number: int, frame: Optional[FrameType]) -> None:
        part = None
        while frame is not None:
            part = self._part_of(frame.f_code.co_filename)
            if part is not None:
                break
            frame = frame.f_back
        self.parts[part or OTHER] += 1


def _part_of(file: str) -> Optional[str]:
    return PARTS.get("/".join(Path(file).parts[-2:]))


def main(path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    listener.setblocking(False)
    slot = Scoreboard(1).assign(1)
    slot.occupy(os.getpid(), 1, time.time_ns())
    application = Application(hello.application)
    worker = Worker(application, [listener], WorkerConfig(), slot=slot, name="sampled", handoff=Handoff())
    samples = Samples(_part_of)
    sealing.freeze()  # as the template does
    begun = time.process_time()
    samples.begin()
    worker.run()
    samples.end()
    used, requests = time.process_time() - begun, slot.requests
    each = used * 1e6 / max(1, requests)
    json.dump({"requests": requests, "us": each, "parts": samples.parts}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])

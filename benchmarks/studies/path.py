"""Where the processor time of a small answer goes: samples of one worker with the bare application."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import hello
from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Outcome, Row, Table
from benchmarks.processes import ROOT
from workers.fastcgi import records

#: Seconds in which the worker has to be there.
PATIENCE = 20.0
#: So many requests wait at a time: a worker that slept before each would be measured for its waking up.
AT_ONCE = 8
#: What nginx says of a request, in the order of its fastcgi_params.
PARAMS = {
    "QUERY_STRING": "", "REQUEST_METHOD": "GET", "CONTENT_TYPE": "", "CONTENT_LENGTH": "",
    "SCRIPT_NAME": "", "PATH_INFO": "/hello", "REQUEST_URI": "/hello", "DOCUMENT_URI": "/hello",
    "DOCUMENT_ROOT": "/usr/share/nginx/html", "SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_SCHEME": "http",
    "GATEWAY_INTERFACE": "CGI/1.1", "SERVER_SOFTWARE": "nginx/1.22.1", "REMOTE_ADDR": "127.0.0.1",
    "REMOTE_PORT": "48822", "REMOTE_USER": "", "SERVER_ADDR": "127.0.0.1", "SERVER_PORT": "8080",
    "SERVER_NAME": "localhost", "HTTP_HOST": "127.0.0.1:8080", "HTTP_USER_AGENT": "wrk",
}  # fmt: skip


def study(bench: Bench) -> Outcome:
    bench.say("samples of a worker with the bare application")
    path = bench.new_directory("path") / "socket"
    command = [sys.executable, "-m", "benchmarks.sampled", str(path)]
    worker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        _visit(path, bench.plan.seconds * bench.plan.rounds)
    finally:
        worker.terminate()
        said, _ = worker.communicate()
    found: dict[str, Any] = json.loads(said)
    total = sum(found["parts"].values())
    spent = {part: found["us"] * number / total for part, number in found["parts"].items()}
    largest = sorted(spent, key=spent.__getitem__, reverse=True)
    rows = [Row(part, {"us": spent[part]}, min) for part in largest]
    rows.append(Row("all of it", {"us": found["us"]}, min))
    return Outcome([Table("A small answer in parts", {"us": "CPU µs a request"}, rows)], found)


def _visit(path: Path, seconds: float) -> None:
    """Each request on a connection of its own."""
    request = b"".join([
        records.encode_begin_request(1),
        *records.encode_stream(records.RecordType.PARAMS, 1, records.encode_pairs(PARAMS.items())),
        records.encode_record(records.RecordType.PARAMS, 1),
        records.encode_record(records.RecordType.STDIN, 1),
    ])  # fmt: skip
    _wait_for(path)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(AT_ONCE)]
            for peer in peers:
                peer.connect(str(path))
                peer.sendall(request)
            for peer in peers:
                answer = peer.makefile("rb").read()
                if hello.BODY not in answer:
                    raise BenchmarkError(f"the sampled worker's answer is {answer!r}")


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with socket.socket(socket.AF_UNIX) as peer:
            try:
                peer.connect(str(path))
                return
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    raise BenchmarkError("the sampled worker does not come up") from None
        time.sleep(0.01)

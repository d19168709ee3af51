"""A counted number of requests, every answer looked at: what wrk, which counts seconds, cannot do."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPException
from queue import Empty, SimpleQueue

from benchmarks.load import CONNECTIONS, TIMEOUT
from benchmarks.pages import Page

#: What went wrong is told up to this often: the thousandth failure says nothing new.
TOLD = 5


def make(address: tuple[str, int], mount: str, pages: Sequence[Page], number: int) -> list[str]:
    """Request ``pages`` in turn, ``number`` in all, on as many connections as wrk has.

    Returns what was wrong with the first few wrong answers, or nothing.
    """
    waiting: SimpleQueue[Page] = SimpleQueue()
    for page in itertools.islice(itertools.cycle(pages), number):
        waiting.put(page)
    complaints: list[str] = []
    visitors = [
        threading.Thread(target=_visit, args=(address, mount, waiting, complaints))
        for _ in range(CONNECTIONS)
    ]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    return complaints


def _visit(
    address: tuple[str, int], mount: str, waiting: SimpleQueue[Page], complaints: list[str]
) -> None:
    connection = HTTPConnection(*address, timeout=TIMEOUT)
    for page in _until_empty(waiting):
        try:
            connection.request("GET", mount + page.path)
            response = connection.getresponse()
            complaint = page.complaint(response.status, response.read())
        except (OSError, HTTPException) as error:
            complaint = repr(error)
            connection.close()
        if complaint and len(complaints) < TOLD:
            complaints.append(f"{page.path}: {complaint}")
    connection.close()


def _until_empty(waiting: SimpleQueue[Page]) -> Iterator[Page]:
    try:
        while True:
            yield waiting.get_nowait()
    except Empty:
        return

"""What the master knows, for its status process to read: one page of shared memory, one writer.

A page rather than messages: nobody has to read it, and it never waits for anybody.
"""

from __future__ import annotations

import json
import logging
import mmap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, List, Optional

from spawner.status import Death, PoolStatus, SlowRequest, Status
from workers.scoreboard import PATIENCE, PAUSE

log = logging.getLogger("trac-spawn")

#: Room for hundreds of workers and the deaths that are remembered. What is not written costs nothing.
PAGE = 4 << 20
_HEAD = 16
_SEQUENCE, _LENGTH = range(2)


@dataclass(frozen=True)
class News:
    """As trac-spawnctl's status and last-deaths have it, see status.py."""

    status: Optional[Status] = None
    deaths: List[Death] = field(default_factory=list)
    slow: List[SlowRequest] = field(default_factory=list)


class NewsPage:
    """Made by the master before it forks the process that reads it."""

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, PAGE))
        self._words = self._memory[:_HEAD].cast("Q")

    def write(self, news: News) -> None:
        """Of what does not fit the page, as much as does."""
        for told in _ever_less(news):
            data = json.dumps(vars(told)).encode()
            if len(data) <= PAGE - _HEAD:
                self._write(data)
                return
        log.warning("the status is too long to be shown")

    def _write(self, data: bytes) -> None:
        words = self._words
        # Odd while it changes: a reader takes another look.
        words[_SEQUENCE] += 1
        self._memory[_HEAD : _HEAD + len(data)] = data
        words[_LENGTH] = len(data)
        words[_SEQUENCE] += 1

    def read(self) -> News:
        """The latest; nothing known before the first, and when the master died while writing."""
        words = self._words
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() <= deadline:
            before = words[_SEQUENCE]
            data = bytes(self._memory[_HEAD : _HEAD + words[_LENGTH]])
            if before % 2 == 0 and words[_SEQUENCE] == before:
                told: dict[str, Any] = json.loads(data) if data else {}
                return News(**told)
            time.sleep(PAUSE)
        return News()


def _ever_less(news: News) -> Iterator[News]:
    """Stacks can be long, and pools many: first the oldest of these go, then what the status process
    sees on the scoreboards by itself."""
    yield news
    while news.deaths or news.slow:
        deaths, slow = (len(news.deaths) + 1) // 2, (len(news.slow) + 1) // 2
        news = replace(news, deaths=news.deaths[deaths:], slow=news.slow[slow:])
        yield news
    if news.status is not None:
        pools: List[PoolStatus] = [{**pool, "workers": []} for pool in news.status["pools"]]
        yield News({**news.status, "pools": pools})

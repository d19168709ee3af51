"""Which kinds of requests leave a worker larger than it was: a few are weighed, before and after."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Optional

from workers import handlers
from workers.recycling import resident_memory
from workers.text import escaped

#: One request in so many is weighed, which takes two looks at /proc; no other number divides it, so a
#: pattern in what visitors ask for does not hide a kind.
ONE_IN = 41
#: The first requests of a worker fill caches, as they do once in any worker.
SETTLED = 20
#: Kinds that are kept apart until they are told; visitors can make up any number of them.
KINDS = 50
KIND_LENGTH = 80
OTHER = "other"
#: Seconds from one report to the next.
TELL_AGAIN = 2.0

#: By the kind: how many were weighed, and the bytes that they have left.
Weights = dict[str, list[int]]


class Footprint:
    """One worker's. ``depth``: how many parts of the path say what kind of request it is."""

    def __init__(self, depth: int, weigh: Callable[[int], int] = resident_memory) -> None:
        self._depth = depth
        self._weigh = weigh
        self._requests = 0
        self._before: Optional[int] = None
        #: What news() will tell.
        self.untold: Weights = {}
        self._tell_at = 0.0

    def begin(self) -> None:
        self._requests += 1
        if self._requests > SETTLED and self._requests % ONE_IN == 0:
            handlers.latest = ""
            self._before = self._resident()

    def end(self, params: Mapping[str, str]) -> None:
        if self._before is None:
            return
        after, before, self._before = self._resident(), self._before, None
        if after is not None:
            kind = kind_of(params, self._depth, handlers.latest)
            if kind not in self.untold and len(self.untold) >= KINDS:
                kind = OTHER
            weight = self.untold.setdefault(kind, [0, 0])
            weight[0] += 1
            weight[1] += after - before

    def news(self, leaving: bool = False) -> Weights:
        """What has been weighed since the last time; nothing while that was a moment ago."""
        if not self.untold:
            return {}
        now = time.monotonic()
        if now < self._tell_at and not leaving:
            return {}
        self._tell_at = now + TELL_AGAIN
        told, self.untold = self.untold, {}
        return told

    def _resident(self) -> Optional[int]:
        try:
            return self._weigh(os.getpid())
        except (OSError, ValueError, IndexError):
            return None  # there is no /proc behind --chroot


def kind_of(params: Mapping[str, str], depth: int, handler: str = "") -> str:
    """Method, the beginning of the path and, where that is known, who has answered:
    GET /wiki (WikiModule)."""
    parts = params.get("PATH_INFO", "").strip("/").split("/")
    text = f"{params.get('REQUEST_METHOD', '')} /{'/'.join(parts[:depth])}"[:KIND_LENGTH]
    return escaped(text)[:KIND_LENGTH] + (f" ({handler[:KIND_LENGTH]})" if handler else "")

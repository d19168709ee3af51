"""What kinds of requests make the workers of a pool grow, as the workers have weighed it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from spawner.status import Leak
from workers.footprint import OTHER

#: Kinds that are kept apart.
KINDS = 200


class Leaks:
    """Those of one pool, over all its workers."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._weights: dict[str, tuple[int, int]] = {}

    def add(self, told: Mapping[str, object]) -> None:
        """What a worker has said. Raises TypeError or ValueError for what is none, and adds nothing."""
        for kind, weight in [(str(kind), _pair(weight)) for kind, weight in told.items()]:
            if kind not in self._weights and len(self._weights) >= KINDS:
                kind = OTHER
            weighed, growth = self._weights.get(kind, (0, 0))
            self._weights[kind] = (weighed + weight[0], growth + weight[1])

    def __iter__(self) -> Iterator[Leak]:
        for kind, (weighed, growth) in self._weights.items():
            yield {
                "pool": self._pool,
                "kind": kind,
                "weighed": weighed,
                "growth": growth,
                "per_request": growth / weighed,
            }


def _pair(weight: object) -> tuple[int, int]:
    if isinstance(weight, list) and len(weight) == 2:
        weighed, growth = weight
        if isinstance(weighed, int) and isinstance(growth, int) and weighed > 0:
            return weighed, growth
    raise ValueError(f"not a weight: {weight!r:.40}")

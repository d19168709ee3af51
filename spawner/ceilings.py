"""The limits of a pool, as they are shown beside what they limit."""

from __future__ import annotations

from spawner.settings import Settings

#: By what they limit: the options, and Settings has their values.
BYTES = ("max-memory", "hard-memory", "pool-memory")
SECONDS = ("max-age", "slow-after", "request-timeout")
REQUESTS = ("max-requests",)


def ceilings(settings: Settings) -> dict[str, float]:
    """By option, in bytes, seconds or requests; 0 for none."""
    names = (*REQUESTS, *BYTES, *SECONDS)
    return {name: getattr(settings, name.replace("-", "_")) for name in names}

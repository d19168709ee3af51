"""How many workers a pool may have: what was left out is derived, what makes no sense refused.

The rules are php-fpm's (fpm_conf.c, fpm_conf_post_process), with defaults where it has none.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from workers.errors import BootError

if TYPE_CHECKING:
    from spawner.settings import Settings

#: What has a meaning for these kinds of --pm only.
_MEANT_FOR = {
    "max_workers": ("dynamic", "ondemand"),
    "start_workers": ("dynamic",),
    "min_spare": ("dynamic",),
    "max_spare": ("dynamic",),
    "idle_timeout": ("ondemand",),
}


def complete_sizes(settings: Settings) -> Settings:
    """``settings`` with its numbers of workers filled in, as far as its kind of pool has them.

    Raises BootError (EX_USAGE) for numbers that contradict each other or that ``pm`` ignores.
    """
    _refuse_meaningless(settings)
    if settings.pm == "static":
        return settings
    most = settings.max_workers or settings.workers
    if settings.pm == "ondemand":
        return dataclasses.replace(settings, max_workers=most)
    least_spare = settings.min_spare or max(1, min(most // 4, settings.max_spare or most))
    most_spare = settings.max_spare or max(least_spare, most // 2)
    start = settings.start_workers or (least_spare + most_spare) // 2
    completed = dataclasses.replace(
        settings,
        max_workers=most,
        start_workers=start,
        min_spare=least_spare,
        max_spare=most_spare,
    )
    _refuse_disorder(completed)
    return completed


def _refuse_meaningless(settings: Settings) -> None:
    pm = settings.source("pm")
    for name, kinds in _MEANT_FOR.items():
        source = settings.sources.get(name)
        # What stands in a less important place than --pm was meant for what that replaced.
        if source is not None and settings.pm not in kinds and source.rank <= pm.rank:
            raise BootError(
                f"{source.name}: this is for --pm {' or '.join(kinds)}, "
                f"but here it is {settings.pm}",
                os.EX_USAGE,
            )


def _refuse_disorder(settings: Settings) -> None:
    """php-fpm's order: min_spare <= start_workers <= max_spare <= max_workers."""
    for smaller, larger in (
        ("min_spare", "max_workers"),
        ("max_spare", "max_workers"),
        ("min_spare", "max_spare"),
        ("min_spare", "start_workers"),
        ("start_workers", "max_spare"),
    ):
        if getattr(settings, smaller) <= getattr(settings, larger):
            continue
        # Blame something that was given: what was derived from it cannot be at fault.
        culprit, other, word = smaller, larger, "more"
        if smaller not in settings.sources:
            culprit, other, word = larger, smaller, "less"
        raise BootError(
            f"{settings.source(culprit).name}: {getattr(settings, culprit)} is {word} than "
            f"{settings.source(other).name}, {getattr(settings, other)}",
            os.EX_USAGE,
        )

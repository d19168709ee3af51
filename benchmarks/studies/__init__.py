"""What can be measured, each by a function from a Bench to an Outcome."""

from __future__ import annotations

from typing import Callable

from benchmarks.bench import Bench
from benchmarks.figures import Outcome
from benchmarks.studies import (
    endurance,
    floor,
    keeping,
    large,
    memory,
    observing,
    ondemand,
    pages,
    path,
    recycling,
    respawn,
    scaling,
    sharing,
    size,
    starting,
)

#: In the order in which they are carried out and reported.
STUDIES: dict[str, Callable[[Bench], Outcome]] = {
    "pages": pages.study,
    "large": large.study,
    "respawn": respawn.study,
    "ondemand": ondemand.study,
    "starting": starting.study,
    "floor": floor.study,
    "path": path.study,
    "recycling": recycling.study,
    "keeping": keeping.study,
    "observing": observing.study,
    "size": size.study,
    "memory": memory.study,
    "sharing": sharing.study,
    "scaling": scaling.study,
    "endurance": endurance.study,
}

"""How much is measured: in full, and quickly, just to see that it works."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.pages import MADE, WIKI, Page
from benchmarks.peers import Peer


@dataclass(frozen=True)
class Content:
    """What is in the large environment."""

    plugins: int = 50
    tickets: int = 20_000
    pages: int = 500


@dataclass(frozen=True)
class Plan:
    peers: tuple[Peer, ...]
    #: Names of studies.
    studies: tuple[str, ...]
    rounds: int = 5
    #: Of one page of one peer in a round, and before the first round.
    seconds: int = 2
    warm_up: int = 1
    #: Of each peer, wherever the number is not what is studied.
    workers: int = 2
    #: SIGKILLs of a peer's only worker, each this many seconds after the one before.
    kills: int = 5
    #: A worker of this age has proven itself: uWSGI holds back the successor of a younger one.
    settle: float = 2.0
    #: Requests to a pool that has no worker.
    cold: int = 30
    #: Mixed pages for each worker before the memory is looked at.
    visits: int = 200
    #: And once more with --ksm, while the kernel merges pages.
    merging: bool = True
    #: Mixed pages after which a worker's own memory is taken apart.
    marks: tuple[int, ...] = (1, 10, 50, 200)
    #: Numbers of workers with which memory and throughput of every peer are measured.
    sizes: tuple[int, ...] = (1, 2, 8)
    #: Numbers of workers with which trac-spawn's own cost is measured.
    pool_sizes: tuple[int, ...] = (2, 8, 64, 256)
    #: SIGKILLs of workers of such a pool.
    deaths: int = 20
    #: Requests over which the memory is followed, and how often it is looked at.
    endurance: int = 20_000
    looks: int = 40
    #: After this many requests a worker is replaced where the cost of that is measured.
    max_requests: int = 50
    #: Pages of Trac where not all are needed.
    made: tuple[Page, ...] = MADE
    large: Content = Content()

    def quick(self) -> Plan:
        """See that it works: the figures mean little."""
        return replace(
            self,
            rounds=1,
            seconds=1,
            warm_up=0,
            kills=1,
            settle=0.0,
            cold=2,
            visits=5,
            merging=False,
            marks=(1, 5),
            sizes=(2,),
            pool_sizes=(2,),
            made=(WIKI,),
            deaths=2,
            endurance=40,
            looks=2,
            large=Content(plugins=5, tickets=100, pages=20),
        )

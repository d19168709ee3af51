"""The pictures of the studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks import svg
from benchmarks.load import CONNECTIONS
from benchmarks.pages import ALL, REPORT, TIMELINE, WIKI
from benchmarks.peers import Peer
from benchmarks.rounds import Rounds


def of_pages(rounds: Rounds, peers: Sequence[Peer]) -> dict[str, str]:
    return {"throughput.svg": _throughput(rounds, peers), "latency.svg": _latency(rounds, peers)}


def _throughput(rounds: Rounds, peers: Sequence[Peer]) -> str:
    panels = {
        page.title: _bars(rounds, peers, page.title, "requests_per_second") for page in ALL
    }
    return svg.bars("Requests answered in a second (longer is better)", panels)


def _latency(rounds: Rounds, peers: Sequence[Peer]) -> str:
    panels = {
        f"{page.title}, {percentile}th percentile": _bars(
            rounds, peers, page.title, f"p{percentile}_ms"
        )
        for page in (WIKI, TIMELINE, REPORT)
        for percentile in (50, 90, 99)
    }
    title = f"Milliseconds until the answer, at {CONNECTIONS} connections (shorter is better)"
    return svg.bars(title, panels)


def _bars(rounds: Rounds, peers: Sequence[Peer], page: str, figure: str) -> dict[str, float]:
    values = {peer.title: rounds.figure(peer.name, page, figure) for peer in peers}
    return {title: value for title, value in values.items() if value is not None}


def of_memory(series: Mapping[str, svg.Points]) -> str:
    title = "Memory of all processes of a server (sum of PSS), by number of workers"
    return svg.lines(title, "workers", "MB", series)


def of_scaling(series: Mapping[str, svg.Points]) -> str:
    title = "Requests for /wiki/WikiStart answered in a second, by number of workers"
    return svg.lines(title, "workers", "requests/s", series)


def of_endurance(series: Mapping[str, svg.Points]) -> str:
    title = "Memory of all processes (sum of PSS) over time, no worker recycled"
    return svg.lines(title, "requests", "MB", series)

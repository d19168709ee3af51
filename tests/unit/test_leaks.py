"""Which kinds of requests make workers grow."""

from __future__ import annotations

from typing import Any

import pytest

from spawner import report
from spawner.leaks import KINDS as POOL_KINDS
from spawner.leaks import Leaks
from workers import handlers
from workers.footprint import KINDS, ONE_IN, OTHER, SETTLED, Footprint, kind_of


def params(path: str, method: str = "GET") -> dict[str, str]:
    return {"REQUEST_METHOD": method, "PATH_INFO": path}


class Scales:
    def __init__(self) -> None:
        self.weight = 0

    def __call__(self, pid: int) -> int:
        return self.weight


def test_one_request_in_some_is_weighed() -> None:
    scales = Scales()
    footprint = Footprint(1, scales)
    for number in range(1, SETTLED + 10 * ONE_IN + 1):
        path = "/leak/x" if number % 2 else "/wiki/Start"
        footprint.begin()
        scales.weight += 1000 if path == "/leak/x" else 0
        footprint.end(params(path))
    told = footprint.news()
    assert set(told) == {"GET /leak", "GET /wiki"}
    assert told["GET /leak"][1] == 1000 * told["GET /leak"][0] and told["GET /wiki"][1] == 0
    assert sum(weighed for weighed, _ in told.values()) == 10
    assert footprint.news() == {}


def test_it_is_told_now_and_then_and_at_the_end() -> None:
    footprint = Footprint(1, Scales())
    for _ in range(2):
        for _ in range(SETTLED + ONE_IN):
            footprint.begin()
            footprint.end(params("/a"))
        if not footprint.news():
            assert footprint.news(leaving=True)


def test_kinds_that_visitors_make_up() -> None:
    footprint = Footprint(1, Scales())
    for number in range(ONE_IN * KINDS * 3):
        footprint.begin()
        footprint.end(params(f"/{number}"))
    told = footprint.news()
    assert len(told) == KINDS + 1 and told[OTHER][0] > KINDS
    leaks = Leaks("trac")
    for number in range(POOL_KINDS + 10):
        leaks.add({f"GET /{number}": [1, 5]})
    assert {leak["kind"]: leak["weighed"] for leak in leaks}[OTHER] == 10


def test_without_proc() -> None:
    def nowhere(pid: int) -> int:
        raise FileNotFoundError

    footprint = Footprint(1, nowhere)
    for _ in range(SETTLED + ONE_IN):
        footprint.begin()
        footprint.end(params("/a"))
    assert footprint.news() == {}


@pytest.mark.parametrize(
    ("path", "depth", "kind"),
    [
        ("/wiki/Start", 1, "GET /wiki"), ("/one/wiki/Start", 2, "GET /one/wiki"), ("", 1, "GET /"),
        ("/", 2, "GET /"), ("/a\nb", 1, "GET /a\\nb"), ("/" + "x" * 500, 1, "GET /" + "x" * 75),
    ],
)  # fmt: skip
def test_kinds(path: str, depth: int, kind: str) -> None:
    assert kind_of(params(path), depth) == kind


def test_a_kind_with_its_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    footprint = Footprint(1, lambda pid: 1)
    monkeypatch.setattr(handlers, "latest", "Before")
    for number in range(SETTLED + 2 * ONE_IN):
        footprint.begin()
        if number > SETTLED + ONE_IN:
            handlers.latest = "WikiModule"
        footprint.end(params("/wiki/Start"))
    assert set(footprint.news()) == {"GET /wiki", "GET /wiki (WikiModule)"}


@pytest.mark.parametrize("weight", [None, 1, [1], [0, 1], ["1", 2], [1.5, 2], {}, [1, 2, 3]])
def test_what_is_no_weight(weight: Any) -> None:
    leaks = Leaks("trac")
    with pytest.raises(ValueError):
        leaks.add({"GET /good": [1, 1], "GET /a": weight})
    assert list(leaks) == []


def test_the_report() -> None:
    leaks = Leaks("trac")
    leaks.add({"GET /wiki": [4, 8192]})
    leaks.add({"GET /wiki": [4, 8192]})
    (_, row) = report.leaks({"leaks": list(leaks)})
    assert row.split() == ["2.0K", "8", "0.0M", "trac", "GET", "/wiki"]
    assert "nothing has been weighed" in next(report.leaks({"leaks": []}))

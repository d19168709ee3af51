"""The last hour: a ring of points, and what the page draws of it."""

from __future__ import annotations

import json

import pytest

from spawner import dashboard
from spawner.dashboard import PoolView
from spawner.history import POINTS, STEP, History, Point, intervals, percentile
from spawner.news import News
from workers.scoreboard import Scoreboard
from workers.snapshot import BOUNDS

START = 1_700_000_000.0


def a_board(requests: int) -> Scoreboard:
    board = Scoreboard(2)
    slot = board.assign(1)
    slot.occupy(1, 1, 0)
    slot.memory(50 << 20, 20 << 20, 0)
    for _ in range(requests):
        slot.begin(1, {"REQUEST_METHOD": "GET", "REQUEST_URI": "/<b>&\"'\n"})
        slot.end("GET", 200, 1, 40_000_000, 0)
    return board


def test_a_point_every_ten_seconds() -> None:
    history = History()
    assert history.due(START) and history.points(START) == []
    history.note(START + 3, a_board(2).snapshot(), 5)
    assert not history.due(START + 9) and history.due(START + 10)
    (point,) = history.points(START + 9)
    assert (point.at, point.requests, point.queue, point.workers) == (START, 2, 5, 1)
    assert point.memory == 20 << 20 and sum(point.durations) == 2


def test_an_hour_is_kept() -> None:
    history, board = History(), a_board(0).snapshot()
    for number in range(POINTS + 20):
        history.note(START + number * STEP, board, number)
    now = START + (POINTS + 19) * STEP
    points = history.points(now)
    assert len(points) == POINTS and points[0].queue == 20 and points[-1].queue == POINTS + 19
    # Nothing was noted for a while: what is too old is not shown as if it were not.
    assert len(history.points(now + 1800)) == POINTS // 2
    assert history.points(now + 2 * 3600) == []


def test_another_master_goes_on_from_it() -> None:
    history, other = History(), History()
    for number, requests in enumerate((1, 4)):
        history.note(START + number * STEP, a_board(requests).snapshot(), number)
    rows = json.loads(json.dumps(history.rows(START + STEP)))
    other.take([*rows, [int(START) - STEP, 1, 2]])
    assert other.points(START + STEP) == history.points(START + STEP)
    assert not other.due(START + STEP) and other.due(START + 2 * STEP)
    with pytest.raises(TypeError):
        other.take([5])  # type: ignore[list-item]


def test_what_happened_between_two_points() -> None:
    durations = (0,) * len(BOUNDS) + (0,)
    later = (0, 0, 0, 100) + durations[4:]
    (found,) = intervals(
        [Point(0.0, 10, 1, 0, 1, 0, durations), Point(10.0, 110, 2, 1, 1, 3, later)]
    )
    assert (found.rate, found.memory, found.busy, found.queue) == (10.0, 2, 1, 3)
    assert found.median == pytest.approx(0.0075) and found.slowest == pytest.approx(0.00975)


def test_percentiles_without_requests_and_beyond_the_last_bound() -> None:
    assert percentile([0] * (len(BOUNDS) + 1), 0.5) == 0.0
    assert percentile([0] * len(BOUNDS) + [3], 0.5) == BOUNDS[-1]


def test_a_line_has_gaps() -> None:
    pieces = dashboard._pieces([0, 10, 100, 110], [0, 1, 2, 4], 4, 110)
    assert [len(piece.split()) for piece in pieces] == [2, 2]
    assert pieces[1].split()[-1] == "360.0,1.0"


def test_nothing_that_visitors_say_is_html() -> None:
    board = a_board(1).snapshot()
    death = {
        "at": 1.0, "pool": "<p>", "slot": 1, "generation": 1, "pid": 1, "reason": "<i>", "requests": 1,
        "request": "GET /<u>", "rss": None, "age_s": 1.0, "traceback": "</pre><script>",
    }  # fmt: skip
    news = News(None, [death], [{"at": 1.0, "pool": "x", "what": "<em>", "stack": "<tt>"}])  # type: ignore[list-item]
    text = dashboard.render([PoolView("<h1>pool", "static", board, [])], news, START, 1)
    for tag in ("<b>", "<i>", "<u>", "<em>", "<tt>", "</pre><script", "<h1>pool"):
        assert tag not in text, tag
    assert text.count("<script") == 1 and "&lt;em&gt;" in text

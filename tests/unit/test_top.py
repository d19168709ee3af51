"""trac-spawnctl top: what is drawn of what the master has answered."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest
from rich.console import Console

from spawner import ctl, top
from spawner.status import PoolStatus, Status

from .test_ctl import pool_status, status_of


def drawn(screen: top.Screen, status: Status, rows: int = 100, columns: int = 120) -> str:
    file = io.StringIO()
    Console(file=file, width=columns, color_system=None).print(screen.draw(status, columns, rows))
    return file.getvalue()


def answered(requests: int, seconds: float) -> Status:
    pool = pool_status("unix:/s")
    pool["totals"] = {"requests": requests, "durations": {"sum_ns": int(seconds * 1e9)}}
    return status_of(pool)


def test_a_rate_is_between_two_looks() -> None:
    screen = top.Screen()
    for at, requests in ((1.0, 100), (2.0, 110), (3.0, 150)):
        screen.follow(answered(requests, requests * 0.02), at)
    text = drawn(screen, answered(150, 3.0))
    assert "requests 150, 40.0/s 20.0 ms each ▃█" in text
    assert "trac running  generation 2, 1 of 2 workers busy  W_" in text
    assert "unix:/s: 3 of 2048 waiting ········" in text


def test_counters_that_begin_anew() -> None:
    screen = top.Screen()
    screen.follow(answered(100, 1.0), 1.0)
    screen.follow(answered(5, 0.1), 2.0)
    assert "requests 5, 0.0/s  ▁" in drawn(screen, answered(5, 0.1))


def test_sparklines_and_bars() -> None:
    assert top.sparkline([]) == "" and top.sparkline([0.0, 0.0]) == "▁▁"
    assert top.sparkline([0.0, 7.0, 14.0]) == "▁▅█"
    assert top.bar(1, 2) == "████····" and top.bar(3, 2) == "████████" and top.bar(0, 0) == "········"


@pytest.mark.parametrize(("limit", "expected"), [(0, "████████"), (80 << 20, "████····")])
def test_the_bars_are_of_what_a_worker_has_of_its_own(limit: int, expected: str) -> None:
    pool = pool_status(busy=0, idle=2)
    pool["limits"] = {"max-memory": limit}
    pool["workers"][0]["private"], pool["workers"][1]["private"] = 40 << 20, 10 << 20
    first = drawn(top.Screen(), status_of(pool)).partition("SLOT")[2].splitlines()[1]
    assert expected in first and "86.0M" in first


@pytest.mark.parametrize(
    ("sort", "first"), [("slot", "821"), ("requests", "822"), ("time", "821"), ("age", "821")]
)
def test_orders(sort: str, first: str) -> None:
    table = drawn(top.Screen(sort), status_of(pool_status())).partition("SLOT")[2]
    assert table.splitlines()[1].split()[2] == first


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_a_long_request_leaves_the_other_columns_alone(columns: int) -> None:
    status = status_of(pool_status())
    request = status["pools"][0]["workers"][0]["request"]
    assert request is not None
    request["uri"] = "/x" * 120
    lines = drawn(top.Screen(), status, columns=columns).splitlines()
    assert max(map(len, lines)) <= columns
    (head,) = [line.split() for line in lines if "SLOT" in line]
    row = next(line.split() for line in lines if "/x/x" in line)
    assert ("PID" in head, "AGE" in head) == (columns >= 70, columns >= 90)
    assert row[0] == "1" and "busy" in row and not any("…" in cell for cell in row[:-1])


def test_what_has_no_room_is_counted() -> None:
    status = status_of(pool_status(busy=0, idle=50))
    text = drawn(top.Screen(), status, 24)
    assert len(text.splitlines()) <= 23 and "and 33 more" in text


def named(name: str, idle: int) -> PoolStatus:
    pool = pool_status("unix:/s", busy=0, idle=idle)
    pool["name"] = name
    return pool


def test_who_has_few_workers_leaves_the_room_to_others() -> None:
    status = status_of(named("few", 2), named("many", 50), named("more", 60))
    text = drawn(top.Screen(), status, 60)
    # All lines but the first, the last and 5 of each pool; 2 of the rest are for "and so many more".
    assert len(text.splitlines()) == 59
    assert "and 31 more" in text and "and 40 more" in text


@pytest.mark.parametrize("rows", [1, 10, 14, 24, 30])
def test_every_pool_is_seen_in_a_small_terminal(rows: int) -> None:
    pools = [named(f"pool{number}", number) for number in range(8)]
    text = drawn(top.Screen(), status_of(*pools), rows)
    assert all(pool["name"] in text for pool in pools) and "SLOT" not in text


def test_nothing_in_it_moves_the_terminal() -> None:
    text = drawn(top.Screen(), status_of(pool_status()))
    assert "\x1b" not in text and "GET /wiki\\x1b[2J joe" in text


def test_plain_text_is_ascii() -> None:
    status = status_of(pool_status("unix:/s"))
    request = status["pools"][0]["workers"][0]["request"]
    assert request is not None
    request["uri"] = "/x" * 127
    status["pools"][0]["workers"][0]["private"] = 500 << 20
    text = "\n".join(top.lines(status))
    assert "/x" * 127 in text
    assert text.isascii() and "########" in text and "requests 6, - \n" not in text


def test_an_order_that_there_is_not(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("TRAC_SPAWN_CONTROL", "/nowhere")
    assert ctl.run(["top", "--sort", "beauty"]) == os.EX_USAGE
    assert "one of slot, time, requests, memory, age" in capsys.readouterr().err

"""The status in php-fpm's formats, held to php-fpm's own words."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from workers.poolstatus import UNKNOWN, PoolStatus, render
from workers.scoreboard import Scoreboard
from workers.snapshot import PoolGauge
from workers.statuspages import Page, Pages, ping_page, status_page

# sapi/fpm/fpm/fpm_status.c of PHP 8.4, in its order.
POOL = [
    "pool", "process manager", "start time", "start since", "accepted conn", "listen queue",
    "max listen queue", "listen queue len", "idle processes", "active processes", "total processes",
    "max active processes", "max children reached", "slow requests", "memory peak",
]  # fmt: skip
PROCESS = [
    "pid", "state", "start time", "start since", "requests", "request duration", "request method",
    "request uri", "content length", "user", "script", "last request cpu", "last request memory",
]  # fmt: skip
METRICS = [
    "phpfpm_up", "phpfpm_start_since", "phpfpm_accepted_connections", "phpfpm_listen_queue",
    "phpfpm_max_listen_queue", "phpfpm_listen_queue_length", "phpfpm_idle_processes",
    "phpfpm_active_processes", "phpfpm_total_processes", "phpfpm_max_active_processes",
    "phpfpm_max_children_reached", "phpfpm_slow_requests", "phpfpm_memory_peak",
]  # fmt: skip
START = 1_700_000_000
BAD = {
    "REQUEST_METHOD": "GET", "REQUEST_URI": "/<b>?a=\"1\"&\nforged: 1", "REMOTE_USER": "</user>\\",
}  # fmt: skip


def a_status() -> PoolStatus:
    """A pool of two, one of them at work on something nasty."""
    board = Scoreboard(4)
    board.note(PoolGauge.STARTED, START * 10**9)
    for gauge, value in (
        (PoolGauge.QUEUE, 3), (PoolGauge.QUEUE_LIMIT, 128), (PoolGauge.QUEUE_PEAK, 9),
        (PoolGauge.ACTIVE_PEAK, 2), (PoolGauge.SLOW, 4), (PoolGauge.TARGET, 2),
    ):  # fmt: skip
        board.note(gauge, value)
    for number in (1, 2):
        slot = board.assign(number)
        slot.occupy(1000 + number, 7, (START + number) * 10**9)
        slot.begin(10**9, {"REQUEST_METHOD": "POST", "REQUEST_URI": "/x", "CONTENT_LENGTH": "12"})
        slot.end("POST", 200, 5, 2_000_000, 1_000_000)
        slot.memory(number << 20, 0, 0)
    board.slot(2).begin(5 * 10**9, BAD, "an-id")
    limits = {"max-memory": 1 << 30, "request-timeout": 2.5}
    return PoolStatus("trac", "static", board.snapshot(), (START + 60) * 10**9, 6 * 10**9, limits)


def test_json_has_the_names_order_and_types() -> None:
    media_type, text = render(a_status(), "json&full")
    assert media_type == "application/json"
    found: dict[str, Any] = json.loads(text)
    assert list(found)[: len(POOL) + 1] == [*POOL, "processes"]
    assert {name: type(found[name]) for name in POOL} == {
        name: str if name in ("pool", "process manager") else int for name in POOL
    }
    assert (found["start time"], found["start since"]) == (START, 60)
    assert (found["accepted conn"], found["listen queue"], found["listen queue len"]) == (3, 3, 128)
    assert (found["idle processes"], found["active processes"], found["total processes"]) == (1, 1, 2)
    assert (found["max listen queue"], found["max active processes"], found["slow requests"]) == (9, 2, 4)
    assert found["memory peak"] == 2 << 20
    assert (found["max memory"], found["request timeout"]) == (1 << 30, 2.5)
    idle, busy = found["processes"]
    assert list(idle)[: len(PROCESS)] == PROCESS
    texts = {"state", "request method", "request uri", "user", "script"}
    assert all(type(idle[name]) is (str if name in texts else int) for name in PROCESS[:-2])
    assert (idle["state"], idle["requests"], idle["request duration"]) == ("Idle", 1, 2000)
    assert (idle["last request cpu"], idle["last request memory"]) == (50.0, 1 << 20)
    assert (idle["content length"], idle["user"], idle["script"]) == (12, "-", "-")
    assert (busy["state"], busy["requests"], busy["request duration"]) == ("Running", 2, 1_000_000)
    assert (busy["last request cpu"], busy["last request memory"]) == (0.0, 0)
    assert (busy["slot"], busy["generation"], busy["request id"]) == (2, 7, "an-id")


def test_short_forms_have_no_processes() -> None:
    assert "processes" not in json.loads(render(a_status(), "json")[1])
    for query in ("", "xml", "html", "openmetrics&full"):
        assert "an-id" not in render(a_status(), query)[1]


def test_text_has_the_names_in_columns() -> None:
    media_type, text = render(a_status(), "full")
    assert media_type.startswith("text/plain")
    pool, *processes = text.split("\n" + "*" * 24 + "\n")
    lines = pool.splitlines()
    assert [line[:22] for line in lines[: len(POOL)]] == [f"{name + ':':<22}" for name in POOL]
    assert lines[0] == "pool:                 trac"
    assert re.fullmatch(r"\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}", lines[2][22:])
    named = ["request URI" if name == "request uri" else name for name in PROCESS]
    for process in processes:
        lines = process.splitlines()
        assert [line[:22] for line in lines[: len(named)]] == [f"{name + ':':<22}" for name in named]
    assert "last request cpu:     50.00\n" in processes[0]
    # Nothing that a visitor sends looks like a line of ours.
    assert not re.search("^forged", text, re.M)


def test_xml_is_well_formed_and_has_the_names() -> None:
    media_type, text = render(a_status(), "full&xml")
    assert media_type.startswith("text/xml")
    root = ElementTree.fromstring(text)
    assert root.tag == "status"
    tags = [child.tag for child in root]
    assert tags[: len(POOL)] == [name.replace(" ", "-") for name in POOL]
    processes = root.findall("processes/process")
    assert [child.tag for child in processes[0]][: len(PROCESS)] == [
        name.replace(" ", "-") for name in PROCESS
    ]
    assert root.findtext("start-time") == str(START)
    assert processes[1].findtext("user") == "</user>\\"


def test_html_shows_what_visitors_send_as_text() -> None:
    media_type, text = render(a_status(), "html&full")
    assert media_type.startswith("text/html")
    names = re.findall("<th>(.*?)</th>", text)
    assert names[: len(POOL)] == POOL
    assert names[names.index("pid") :][: len(PROCESS)] == PROCESS
    assert "<b>" not in text and "&lt;b&gt;" in text


def test_openmetrics_has_the_names_and_an_end() -> None:
    media_type, text = render(a_status(), "openmetrics")
    assert media_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    samples = [line.split(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert samples[: len(METRICS)] == METRICS
    assert all(sample.startswith("trac_spawn_") for sample in samples[len(METRICS) :])
    assert text.endswith("\n# EOF\n")
    assert "phpfpm_accepted_connections 3\n" in text
    assert len(samples) == len(set(samples))


def test_a_queue_that_the_kernel_does_not_show() -> None:
    board = Scoreboard(1)
    board.note(PoolGauge.QUEUE, UNKNOWN)
    text = render(PoolStatus("p", "static", board.snapshot(), 0, 0), "json")[1]
    assert json.loads(text)["listen queue"] == -1


@pytest.mark.parametrize("query", ["json=1&full=", "x=1&json", "json&xml"])
def test_what_counts_in_a_query_is_that_a_name_is_there(query: str) -> None:
    expected = "text/xml" if "xml" in query else "application/json"
    assert render(a_status(), query)[0].startswith(expected)


def test_whoever_shows_it_says_no_less_later() -> None:
    board = Scoreboard(2)
    slots = [board.assign(number) for number in (1, 2)]
    for number, slot in enumerate(slots, 1):
        slot.occupy(number, 1, 0)
        slot.begin(1, {})
    pages = [status_page(board, "trac", "static", {}, slot.show_peak) for slot in slots]

    def shown(page: Page) -> int:
        (text,) = page({"QUERY_STRING": "json"}, lambda *answer: None)
        return int(json.loads(text)["max active processes"])

    assert shown(pages[0]) == 2
    slots[0].end("GET", 200, 0, 1, 1)
    assert shown(pages[1]) == 2


def test_pages_go_by_the_path_as_the_web_server_has_it() -> None:
    page = status_page(Scoreboard(1), "p", "static", {}, print)
    pages = Pages({"/trac/status": page, "/ping": ping_page("fine")})
    assert pages.find({"SCRIPT_NAME": "/trac", "PATH_INFO": "/status"}) is page
    assert pages.find({"SCRIPT_NAME": "/trac/status"}) is page
    assert pages.find({"SCRIPT_NAME": "/trac", "PATH_INFO": "/other", "REQUEST_URI": "/trac/status"}) is None
    assert Pages().find({}) is None

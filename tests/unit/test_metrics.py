"""The page for Prometheus, read with its own parsers."""

from __future__ import annotations

from typing import Optional

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from spawner import metrics
from spawner.status import PoolStatus, Status
from workers.scoreboard import Scoreboard
from workers.snapshot import BoardSnapshot, PoolGauge


def a_board() -> BoardSnapshot:
    board = Scoreboard(4)
    first, second = board.assign(1), board.assign(2)
    first.occupy(11, 1, 0)
    second.occupy(12, 1, 0)
    first.begin(10**9, {"REQUEST_METHOD": "GET"})
    first.waited(3_000_000)
    first.end("GET", 200, 1000, 40_000_000, 5_000_000)
    first.memory(50 << 20, 20 << 20, 5 << 20)
    second.begin(10**9, {"REQUEST_METHOD": "POST"})
    board.note(PoolGauge.TARGET, 2)
    board.note(PoolGauge.SLOW, 3)
    return board.snapshot()


def a_status(name: str = "trac") -> Status:
    pool: PoolStatus = {
        "name": name, "state": "running", "generation": 3, "pm": "static", "target": 2,
        "max_workers": 4, "max_children_reached": 0,
        "addresses": [
            {"address": "unix:/s", "listen_queue": {"waiting": 5, "limit": 128}},
            {"address": "unix:/t", "listen_queue": {"waiting": None, "limit": None}},
        ],
        "template": {"pid": 1, "generation": 3, "ready": True, "warming_up": False, "age_s": 12.5},
        "spare": 814,
        "workers": [], "reloads": {"ok": 2, "failed": 1, "last_error": None},
        "recycles": {"max-requests": 7, "request-timeout": 2}, "deaths": {"SIGSEGV": 1},
        "refused": 0, "limits": {"max-memory": 1 << 30, "request-timeout": 2.5, "max-requests": 0},
    }  # fmt: skip
    return {
        "master": {"version": "1", "pid": 1, "started": 1e9, "age_s": 1.0, "state": "running"},
        "pools": [pool],
    }


def samples(text: str, openmetrics: bool) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = parse_openmetrics(text) if openmetrics else parse_text(text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.parametrize("openmetrics", [True, False])
def test_prometheus_reads_all_of_it(openmetrics: bool) -> None:
    text = metrics.render({"trac": a_board()}, a_status(), openmetrics)
    found = samples(text, openmetrics)

    def value(name: str, **labels: str) -> Optional[float]:
        return found.get((name, tuple(sorted({"pool": "trac", **labels}.items()))))

    assert value("trac_spawn_requests_total", method="GET", status="2xx") == 1
    assert value("trac_spawn_requests_total", method="GET", status="5xx") == 0
    assert value("trac_spawn_request_duration_seconds_bucket", le="0.05") == 1
    assert value("trac_spawn_request_duration_seconds_bucket", le="0.025") == 0
    assert value("trac_spawn_request_duration_seconds_sum") == 0.04
    assert value("trac_spawn_request_queue_seconds_count") == 1
    assert value("trac_spawn_workers", state="idle") == 1 == value("trac_spawn_workers", state="busy")
    assert value("trac_spawn_workers", state="starting") == 0
    assert value("trac_spawn_worker_resident_bytes", worker="1") == 50 << 20
    assert value("trac_spawn_worker_resident_bytes", worker="2") is None
    assert value("trac_spawn_listen_queue", address="unix:/s") == 5
    assert value("trac_spawn_listen_queue_limit", address="unix:/s") == 128
    assert value("trac_spawn_listen_queue", address="unix:/t") is None
    assert value("trac_spawn_reloads_total", result="failed") == 1
    assert value("trac_spawn_recycled_workers_total", cause="max-requests") == 7
    assert value("trac_spawn_dead_workers_total", cause="SIGSEGV") == 1
    assert value("trac_spawn_request_timeouts_total") == 2
    assert value("trac_spawn_template_age_seconds") == 12.5
    assert value("trac_spawn_limit_bytes", option="max-memory") == 1 << 30
    assert value("trac_spawn_limit_seconds", option="request-timeout") == 2.5
    assert value("trac_spawn_limit_requests", option="max-requests") == 0
    assert value("trac_spawn_generation") == 3 and value("trac_spawn_slow_requests_total") == 3
    assert found["trac_spawn_info", (("version", "1"),)] == 1


@pytest.mark.parametrize("openmetrics", [True, False])
def test_no_name_breaks_the_page(openmetrics: bool) -> None:
    name = 'a"b\\c'
    found = samples(metrics.render({name: a_board()}, a_status(name), openmetrics), openmetrics)
    assert found["trac_spawn_workers_wanted", (("pool", name),)] == 2


def test_before_the_first_news() -> None:
    assert samples(metrics.render({"trac": a_board()}, None, True), True)
    assert metrics.render({}, None, True) == "# EOF\n"

"""The benchmark works: its tables and its figures are there. How large they are is not looked at."""

from __future__ import annotations

import json
import signal
import sys
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

from .pools import ROOT, base_environment
from .processes import Program, Supervisor

PAGES = ("/wiki/WikiStart", "/timeline", "/report/1", "/chrome/common/css/trac.css", "hello, 1 KiB")


def start(supervisor: Supervisor, directory: Path, *options: str) -> Program:
    env = {**base_environment(directory), "TMPDIR": str(directory)}
    command = [sys.executable, "-m", "benchmarks", "--output", str(directory), *options]
    return supervisor.start(command, "benchmarks", cwd=ROOT, env=env)


def carry_out(supervisor: Supervisor, directory: Path, *studies: str) -> dict[str, Any]:
    """A quick run of ours alone; what results.json says about each study."""
    chosen = [word for study in studies for word in ("--study", study)]
    program = start(supervisor, directory, "--quick", "--only", "trac-spawn", *chosen)
    assert program.wait_exit(120) == 0, program.log
    assert not supervisor.strays()
    assert not leftovers(directory)
    assert (directory / "results.md").read_text() in program.log
    for picture in directory.glob("*.svg"):
        xml.etree.ElementTree.parse(picture)

    results = json.loads((directory / "results.json").read_text())
    assert results["machine"]["cpus"] >= 1
    assert {"Trac", "trac-spawn", "Python", "nginx", "wrk"} <= set(results["versions"])
    assert results["plan"]["peers"] == ["trac-spawn"]
    assert results["problems"] == {"trac-spawn": []}
    assert results["failed_requests"] == {study: [] for study in studies}
    measured: dict[str, Any] = results["studies"]
    return measured


def leftovers(directory: Path) -> list[Path]:
    return list(directory.glob("ts-bench-*"))


def test_peers_are_compared(supervisor: Supervisor, tmp_path: Path) -> None:
    measured = carry_out(supervisor, tmp_path, "pages", "memory", "respawn")
    pages = measured["pages"]["trac-spawn"]
    assert tuple(pages) == PAGES
    for page in pages.values():
        assert len(page["rounds"]) == 1
        assert page["requests_per_second"] > 0
        assert page["p99_ms"] >= page["p50_ms"] > 0
        assert page["cpu_ms"] > 0
    memory = measured["memory"]["trac-spawn"]["2"]
    # Master, template, two workers and one to spare.
    assert memory["processes"] == 5
    assert memory["pss_bytes"] > 1 << 20
    assert measured["respawn"]["trac-spawn"][0] > 0

    table = (tmp_path / "results.md").read_text()
    for page_title in PAGES:
        assert f"| {page_title}, requests/s |" in table
    assert {path.name for path in tmp_path.glob("*.svg")} == {
        "throughput.svg",
        "latency.svg",
        "memory.svg",
    }


def test_our_own_costs_are_measured(supervisor: Supervisor, tmp_path: Path) -> None:
    studies = ("large", "scaling", "floor", "recycling", "keeping", "observing", "size", "endurance")
    measured = carry_out(supervisor, tmp_path, *studies, "sharing")
    assert measured["large"]["trac-spawn"]["/wiki/WikiStart"]["requests_per_second"] > 0
    assert measured["scaling"]["2"]["trac-spawn"]["/wiki/WikiStart"]["requests_per_second"] > 0
    for way in ("bare", "accelerated"):
        assert measured["floor"]["in_process_cpu_ms"][way]["/wiki/WikiStart"][0] > 0
        assert sum(measured["floor"]["samples"][way]["/wiki/WikiStart"].values()) > 0
    assert set(measured["recycling"]) == {"trac-spawn", "trac-spawn-recycled"}
    assert set(measured["observing"]) == {"trac-spawn", "trac-spawn-observed"}
    assert set(measured["keeping"]) == {"trac-spawn", "trac-spawn-kept"}
    size = measured["size"]["by_workers"]["2"]
    assert size["start_ms"] > 0
    assert size["death_cpu_ms"] > 0
    assert [requests for requests, _ in measured["endurance"]] == [20, 40]
    assert measured["sharing"]["5"]["all"] > measured["sharing"]["5"]["other reference counts"] > 0


def test_starts_are_measured(supervisor: Supervisor, tmp_path: Path) -> None:
    measured = carry_out(supervisor, tmp_path, "starting")["starting"]
    for pairs in measured.values():
        assert all(ours > 0 and bare > 0 for ours, bare in pairs)
    assert len(measured) == 2


def test_a_small_answer_is_taken_apart(supervisor: Supervisor, tmp_path: Path) -> None:
    path = carry_out(supervisor, tmp_path, "path")["path"]
    assert path["requests"] > 0
    assert path["us"] > 0
    assert "FastCGI records and parameters" in path["parts"]


def test_an_empty_pool_is_measured(supervisor: Supervisor, tmp_path: Path) -> None:
    measured = carry_out(supervisor, tmp_path, "ondemand")
    for page in ("/wiki/WikiStart", "hello, 1 KiB"):
        for times in measured["ondemand"][page].values():
            assert len(times) == 2


def test_a_run_that_is_stopped_leaves_nothing(supervisor: Supervisor, tmp_path: Path) -> None:
    program = start(supervisor, tmp_path, "--only", "trac-spawn", "--study", "pages")
    program.wait_for_line("warming up", 60)
    assert leftovers(tmp_path)
    program.signal(signal.SIGTERM)
    assert program.wait_exit() == 128 + signal.SIGTERM
    assert not supervisor.strays()
    assert not leftovers(tmp_path)

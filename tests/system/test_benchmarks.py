"""The benchmark works: its table and its figures are there. How large they are is not looked at."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from .pools import ROOT, base_environment
from .processes import Program, Supervisor

PAGES = ("/wiki/WikiStart", "/timeline", "/report/1", "/chrome/common/css/trac.css", "hello, 1 KiB")


def start(supervisor: Supervisor, directory: Path, *options: str) -> Program:
    env = {**base_environment(directory), "TMPDIR": str(directory)}
    command = [sys.executable, "-m", "benchmarks", "--output", str(directory), *options]
    return supervisor.start(command, "benchmarks", cwd=ROOT, env=env)


def leftovers(directory: Path) -> list[Path]:
    return list(directory.glob("ts-bench-*"))


def test_a_quick_run_measures_every_page(supervisor: Supervisor, tmp_path: Path) -> None:
    program = start(supervisor, tmp_path, "--quick", "--only", "trac-spawn")
    assert program.wait_exit(120) == 0, program.log
    assert not supervisor.strays()
    assert not leftovers(tmp_path)

    results = json.loads((tmp_path / "results.json").read_text())
    assert results["machine"]["cpus"] >= 1
    assert {"Trac", "trac-spawn", "Python", "nginx", "wrk"} <= set(results["versions"])
    assert results["command"].endswith("--quick --only trac-spawn")
    assert list(results["peers"]) == ["trac-spawn"]
    peer = results["peers"]["trac-spawn"]
    assert peer["problems"] == []
    assert peer["failed_requests"] == {}
    assert tuple(peer["pages"]) == PAGES
    for page in peer["pages"].values():
        assert len(page["rounds"]) == 1
        assert page["requests_per_second"] > 0
        assert page["p99_ms"] >= page["p50_ms"] > 0
        assert page["cpu_ms"] > 0
    # Master, template and two workers.
    assert peer["memory"]["processes"] == 4
    assert peer["memory"]["pss_bytes"] > 1 << 20
    assert peer["respawn_ms"]["median"] > 0

    table = (tmp_path / "results.md").read_text()
    assert table in program.log
    for page in PAGES:
        assert f"| {page}, requests/s |" in table


def test_a_run_that_is_stopped_leaves_nothing(supervisor: Supervisor, tmp_path: Path) -> None:
    program = start(supervisor, tmp_path, "--only", "trac-spawn")
    program.wait_for_line("warming up", 60)
    assert leftovers(tmp_path)
    program.signal(signal.SIGTERM)
    assert program.wait_exit() == 128 + signal.SIGTERM
    assert not supervisor.strays()
    assert not leftovers(tmp_path)

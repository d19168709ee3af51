"""trac-spawnctl leaks."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from .pools import BIN, Pool, Spawner
from .processes import PATIENCE, wait_until
from .visits import APP, get


def leaks(pool: Pool) -> dict[str, Any]:
    command = [str(BIN / "trac-spawnctl"), "-s", str(pool.control), "--json", "leaks"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return {leak["kind"]: leak for leak in json.loads(done.stdout)["result"]["leaks"]}


def test_the_kind_that_grows_is_first(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)

    def both_weighed() -> dict[str, Any]:
        # A leaving worker tells what it has weighed last.
        for _ in range(40):
            get(pool, "/grow?mib=1")
            get(pool, "/echo")
        command = [str(BIN / "trac-spawnctl"), "-s", str(pool.control), "recycle"]
        subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
        pool.wait_for_line("left after")
        found = leaks(pool)
        return found if {"GET /grow", "GET /echo"} <= set(found) else {}

    found = wait_until(both_weighed, what="both kinds to be weighed")
    assert next(iter(found)) == "GET /grow"
    assert found["GET /grow"]["per_request"] > 500_000 > found["GET /echo"]["per_request"]

"""trac-spawnctl leaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .control import ask
from .pools import Pool, Spawner
from .processes import wait_until
from .visits import APP, get


def leaks(pool: Pool) -> dict[str, Any]:
    return {leak["kind"]: leak for leak in ask(pool, "leaks")["leaks"]}


def test_the_kind_that_grows_is_first(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)

    def both_weighed() -> dict[str, Any]:
        # A leaving worker tells what it has weighed last.
        for _ in range(70):
            get(pool, "/grow?mib=1")
            get(pool, "/echo")
        ask(pool, "recycle")
        pool.wait_for_line("left after")
        found = leaks(pool)
        return found if {"GET /grow", "GET /echo"} <= set(found) else {}

    found = wait_until(both_weighed, what="both kinds to be weighed")
    assert next(iter(found)) == "GET /grow"
    assert found["GET /grow"]["per_request"] > 500_000 > found["GET /echo"]["per_request"]


def test_trac_says_who_has_answered(spawn: Spawner, trac_env: Path) -> None:
    pool = spawn("-n", 1, "--env", trac_env)

    def weighed() -> dict[str, Any]:
        for _ in range(20):
            get(pool, "/about")
            get(pool, "/")
        return leaks(pool) if len(leaks(pool)) > 1 else {}

    assert set(wait_until(weighed, what="both kinds to be weighed")) == {
        "GET /about (AboutModule)", "GET / (WikiModule)",
    }  # fmt: skip

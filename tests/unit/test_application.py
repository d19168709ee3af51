"""What an application goes through before workers are forked; Trac's own is for the system tests."""

from __future__ import annotations

import gc
from typing import Any

from workers.application import Application


def test_the_collections_of_a_warm_up_skip_what_has_been_loaded() -> None:
    seen: list[int] = []

    def call(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(gc.get_freeze_count())
        start_response("200 OK", [])
        return []

    loaded: list[list[object]] = [[] for _ in range(1000)]
    try:
        Application(call, warm_paths=("/",)).warm_up()
    finally:
        gc.unfreeze()
    assert seen[0] > len(loaded)

"""How workers are asked for; what becomes of them is for the system tests."""

from __future__ import annotations

import errno
import gc
import os
import selectors
from pathlib import Path

import pytest

from spawner.children import WorkerHandle
from spawner.generation import Generation
from spawner.inheritance import Inheritance
from spawner.settings import Settings
from spawner.switchboard import Switchboard
from spawner.workplace import Workplace, open_workplace


def nobody_hears(worker: WorkerHandle) -> None:
    raise AssertionError("it was not born")


@pytest.mark.parametrize("lacking", ["memfd_create", "pipe", "fork"])
def test_what_cannot_be_forked_leaves_nothing_open(
    lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lack(*arguments: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    def in_child(workplace: Workplace) -> None:
        raise AssertionError("there is none")

    settings = Settings(socket=f"{tmp_path}/s", template=False, slow_after=1.0, capture_output=True)
    workplace = open_workplace(settings, "", Inheritance())
    with selectors.DefaultSelector() as selector:
        generation = Generation(1, workplace, Switchboard(selector), in_child)
        monkeypatch.setattr(os, lacking, lack)
        gc.collect()  # nothing of other tests may be closed in between
        before = os.listdir("/proc/self/fd")
        with pytest.raises(OSError, match="Too many"):
            generation.spawn(1, nobody_hears)
        assert os.listdir("/proc/self/fd") == before
        assert not selector.get_map()
    workplace.listeners[0].close()
    workplace.handoff.close()

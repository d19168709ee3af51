"""An upgrade, as the old master sees it, with a program that only says what a new one would."""

from __future__ import annotations

import os
import selectors
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spawner.upgrade import Upgrade

PROGRAM = """\
import os
from workers.channel import Channel
channel = Channel.adopt(int(os.environ["TRACSPAWN_HANDOVER"].split(":")[0]))
while channel.receive()[0]["event"] != "end":
    pass
channel.send({"event": "ready", "addresses": []})
assert channel.receive()[0]["command"] == "take over"
assert channel.receive()[0]["command"] == "go on"
channel.send({"event": "done"})
"""


class OldMaster:
    """A master without pools: what an upgrade has to do with it."""

    pools: dict[str, object] = {}
    control = pidfile = upgrading = None
    systemd = SimpleNamespace(environment=dict)

    def __init__(self, program: Path) -> None:
        self.program = (sys.executable, str(program))
        self.claimed = False
        #: What becomes of the status process: of two, each would show its own counts.
        self.shown: list[str] = []
        self.helper = SimpleNamespace(
            retire=lambda: self.shown.append("retired"), start=lambda: self.shown.append("started")
        )

    def listeners(self) -> list[object]:
        return []

    all_listeners = listeners

    def claim_listeners(self) -> None:
        self.claimed = True

    def reload_if_asked(self) -> None:
        pass


def test_who_dies_before_it_was_heard_has_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has said that it serves, and nobody does: the old master goes on."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    (tmp_path / "program.py").write_text(PROGRAM)
    master: Any = OldMaster(tmp_path / "program.py")
    outcome: list[tuple[object, object]] = []
    with selectors.DefaultSelector() as selector:
        upgrade = Upgrade(master, selector, lambda pid, failure: outcome.append((pid, failure)))
        master.upgrading = upgrade
        try:
            while not upgrade._conceded:
                for key, _ in selector.select(10.0):
                    key.data()
            assert master.shown == ["retired"]
            upgrade.tell("go on")
            _, status = os.waitpid(upgrade.pid, 0)
            assert upgrade.child_ended(upgrade.pid, status)
        finally:
            upgrade.forget()  # without its channel the program ends
    ((pid, failure),) = outcome
    assert pid is None and "exit status 0" in str(failure)
    assert master.claimed and master.upgrading is None
    assert master.shown == ["retired", "started"]

"""What a process leaves behind for the children that it forks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from workers.sealing import _sizes

# In a process of its own: a heap is filled for good.
SEALED = """\
import gc, os, sys
from workers import sealing

# After a fork the heap goes on in a mapping of its own.
if "forked" in sys.argv and os.fork():
    sys.exit(os.wait()[1])
blocks = [bytes(600) for _ in range(2000)]
highest = max(map(id, blocks))
del blocks[::2]
sealing.seal()
fresh = [bytes(600) for _ in range(100)]
print(gc.get_freeze_count() > 1000, min(map(id, fresh)) > highest)
"""


@pytest.mark.parametrize("where", ["first", "forked"])
def test_after_sealing_nothing_is_put_among_what_was_there(where: str) -> None:
    command = [sys.executable, "-c", SEALED, where]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_gaps_of_every_size_are_looked_for_large_ones_first() -> None:
    sizes = list(_sizes())
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] >= 32 * 1024 and sizes[-1] <= 64
    assert all(larger - smaller <= larger // 8 + 16 for larger, smaller in zip(sizes, sizes[1:]))

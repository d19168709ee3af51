"""The pages that a process has for itself are told apart by what was written to them."""

from __future__ import annotations

import struct

import pytest

from benchmarks import private

#: The count of an object's references, and the address of its type.
OBJECT = struct.pack("QQ", 7, 1 << 40)
BEFORE = OBJECT * (private.PAGE // len(OBJECT))


def written(*places: tuple[int, int]) -> bytes:
    """Offsets in words, and what is there now."""
    page = bytearray(BEFORE)
    for at, word in places:
        struct.pack_into("Q", page, at * 8, word)
    return bytes(page)


@pytest.mark.parametrize(
    ("after", "kind"),
    [
        (written(), private.EQUAL),
        (written((0, 8), (20, 6)), private.COUNTS),
        (written((0, 1 << 50)), private.FEW),  # too large for a count
        (written((0, 8), (1, 1 << 41)), private.FEW),  # another object altogether
        (written(*((at, 1 << 50) for at in range(8))), private.FEW),
        (written(*((at, 1 << 50) for at in range(9))), private.MORE),
    ],
)
def test_what_was_written_to_a_page(after: bytes, kind: str) -> None:
    assert private._kind(BEFORE, after) == kind

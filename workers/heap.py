"""Keeps what requests leave on a worker's heap out of the garbage collections to come.

The template has frozen what it had loaded, and Trac runs a full collection in each request. What is used
for the first time after the fork (a module, a template, a cache) would be scanned by every one of them.
"""

from __future__ import annotations

import gc

#: So many requests lie between two looks: each takes some microseconds for every thousand objects.
LOOK_EVERY = 64
#: Objects that are worth it: a collection needs about 0.1 ms for so many.
WORTH_IT = 1000


class Heap:
    """One worker's, which freezes it up to ``freezes`` times.

    What is frozen is never collected, should it become garbage that refers to itself. It is at most so
    many times what was alive at one moment.
    """

    def __init__(self, freezes: int) -> None:
        self._left = freezes

    def settle(self, requests: int) -> None:
        """After each request, when its answer has been sent; ``requests`` counts them."""
        if self._left == 0 or requests % LOOK_EVERY or len(gc.get_objects()) < WORTH_IT:
            return
        # What is garbage now must not be frozen, and may have been all there was.
        gc.collect()
        if len(gc.get_objects()) >= WORTH_IT:
            gc.freeze()
            self._left -= 1

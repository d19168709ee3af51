"""Descriptors that are waited for, and what is done when something arrives on each."""

from __future__ import annotations

import select
from typing import Callable, Optional

EXCLUSIVE = select.EPOLLEXCLUSIVE

#: epoll_wait() counts milliseconds in 32 bits; a day is well below that.
_LONGEST_WAIT = 86_400.0
#: At a time: Python makes room for more than a thousand otherwise, for a wait that nearly always brings one.
_MOST_EVENTS = 64


class Selector:
    """epoll(7), level-triggered. A handler must take it well that nothing has come: its descriptor
    may have been closed and given out again since the kernel reported it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], object]] = {}
        self._writing: set[int] = set()
        self._shared: set[int] = set()

    def watch(self, descriptor: int, handler: Callable[[], object], flags: int = 0) -> None:
        """Call ``handler`` when ``descriptor`` can be read. Raises OSError."""
        self._epoll.register(descriptor, select.EPOLLIN | flags)
        self._handlers[descriptor] = handler
        if flags & EXCLUSIVE:
            self._shared.add(descriptor)

    def turn(self, descriptor: int, writing: bool) -> None:
        """Call its handler when it can be written to instead of read, or again when it can be read."""
        if writing != (descriptor in self._writing):
            self._epoll.modify(descriptor, select.EPOLLOUT if writing else select.EPOLLIN)
            self._writing ^= {descriptor}

    def unwatch(self, descriptor: int) -> None:
        """Before the descriptor is closed, which is not enough: other processes may hold the same
        socket, and epoll goes by that. Does nothing for one that is not watched."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)
            self._writing.discard(descriptor)
            self._shared.discard(descriptor)

    def close(self) -> None:
        """In a forked process, which shares it."""
        self._epoll.close()

    def dispatch(self, timeout: Optional[float]) -> bool:
        """Wait up to ``timeout`` seconds, None for ever; handle what comes. False for nothing."""
        if timeout is not None:
            timeout = min(max(0.0, timeout), _LONGEST_WAIT)
        events = self._epoll.poll(timeout, _MOST_EVENTS)
        if len(events) > 1:
            # What other processes wait for as well comes last: one of them may be quicker.
            events.sort(key=lambda event: event[0] in self._shared)
        for descriptor, _ in events:
            handler = self._handlers.get(descriptor)
            if handler is not None:
                handler()
        return bool(events)

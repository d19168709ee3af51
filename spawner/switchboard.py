"""The master's ends of the channels to its children: who is listened to, and what has come."""

from __future__ import annotations

import os
import selectors
from typing import Callable, Iterator, Optional

from spawner.capture import Capture
from workers.channel import Channel, Message


class Switchboard:
    """All channels of one pool."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._channels: set[Channel] = set()

    def connect(self, channel: Channel, hear: Callable[[], None]) -> None:
        """Call ``hear`` when something has come on ``channel``, the end of it included."""
        channel.socket.setblocking(False)
        self._selector.register(channel, selectors.EVENT_READ, hear)
        self._channels.add(channel)

    def capture(self, describe: Callable[[], str]) -> Capture:
        """A pipe for what a child says in its own words."""
        return Capture(self._selector, describe)

    def hang_up(self, channel: Channel) -> None:
        """Close our end. Does nothing for one that is closed already."""
        if channel in self._channels:
            self._channels.discard(channel)
            self._selector.unregister(channel)
            channel.close()

    def close(self) -> None:
        """In a child: these lead to its siblings."""
        for channel in self._channels:
            channel.close()

    def messages(self, channel: Channel) -> Iterator[Optional[Message]]:
        """What has come; None last, when the other end is closed. Raises ValueError for garbage."""
        # Closed ones too: of one batch of events, an earlier one may have closed it.
        while channel in self._channels:
            try:
                message, descriptors = channel.receive()
            except BlockingIOError:
                return
            for descriptor in descriptors:
                os.close(descriptor)  # no child has any to give: the master must not fill up
            yield message
            if message is None:
                return

"""Sockets that were open before this program started, and that its pools take up again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from spawner.addresses import Address
from spawner.listeners import Listener
from spawner.settings import Settings
from workers.handoff import Handoff

#: In ``Listener.others``: in the new master, until it has taken over, and then in the old one.
PREDECESSOR, SUCCESSOR = "predecessor", "successor"


@dataclass
class Inheritance:
    """From the service manager, or from the master whose place this one takes. What a pool takes up
    is no longer here; what is left at the end is for nobody."""

    #: By what they were asked for as.
    listeners: dict[Address, Listener] = field(default_factory=dict)
    #: What the service manager has opened for a pool beside its settings, by the pool's name.
    additional: dict[str, list[Address]] = field(default_factory=dict)
    #: Where idle connections wait for another worker of the pool, by its name.
    handoffs: dict[str, Handoff] = field(default_factory=dict)
    #: Plugins that a pool could not load before, by the pool's name.
    broken: dict[str, frozenset[str]] = field(default_factory=dict)
    control: Optional[Listener] = None

    def addresses(self, settings: Settings) -> tuple[Address, ...]:
        """Where that pool listens."""
        return (*settings.listeners(), *self.additional.get(settings.name, ()))

    def close(self) -> None:
        """Let go of what is left."""
        for listener in self.listeners.values():
            listener.close()
        for handoff in self.handoffs.values():
            handoff.close()
        if self.control is not None:
            self.control.close()
        self.listeners, self.handoffs, self.control = {}, {}, None

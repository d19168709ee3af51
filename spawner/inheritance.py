"""Sockets that were open before this program started, and that its pools take up again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional, Sequence

from spawner.addresses import Address
from spawner.listeners import Listener
from spawner.settings import Settings
from workers.handoff import Handoff

#: In ``Listener.others``: in the new master, until it has taken over, and then in the old one; or in a
#: pool that a reload has removed, when another one has all that it had.
PREDECESSOR, SUCCESSOR = "predecessor", "successor"
#: The same when that one has only some of its addresses, and not its idle connections.
HEIR = "heir"


@dataclass
class Inheritance:
    """From the service manager, from the master whose place this one takes, or from a pool that a
    reload has removed. What a pool takes up is no longer here; what is left at the end is for nobody."""

    #: By what they were asked for as.
    listeners: dict[Address, Listener] = field(default_factory=dict)
    #: What the service manager has opened for a pool beside its settings, by the pool's name.
    additional: dict[str, list[Address]] = field(default_factory=dict)
    #: Where idle connections wait for another worker of the pool, by its name.
    handoffs: dict[str, Handoff] = field(default_factory=dict)
    #: Where that pool listened.
    homes: dict[str, frozenset[Address]] = field(default_factory=dict)
    #: Plugins that a pool could not load before, by the pool's name.
    broken: dict[str, frozenset[str]] = field(default_factory=dict)
    control: Optional[Listener] = None

    def addresses(self, settings: Settings) -> tuple[Address, ...]:
        """Where that pool listens."""
        return (*settings.listeners(), *self.additional.get(settings.name, ()))

    def take_handoff(self, settings: Settings) -> Optional[Handoff]:
        """Of the pool that was at the addresses of this one: all of it, when it had another name."""
        asked = set(self.addresses(settings))
        for name, home in self.homes.items():
            same = bool(home & asked) if name == settings.name else home <= asked
            if same and name in self.handoffs:
                return self.handoffs.pop(name)
        return None

    def bequeath(
        self, name: str, listeners: Sequence[Listener], handoff: Handoff, heirs: Sequence[Settings]
    ) -> None:
        """The pool of that name ends: ``heirs`` get those of its addresses that they are to have."""
        home = frozenset(listener.asked for listener in listeners)
        wanted = [set(heir.listeners()) for heir in heirs]
        whole = any(home <= addresses for addresses in wanted)
        for listener in listeners:
            if any(listener.asked in addresses for addresses in wanted):
                self.listeners[listener.asked] = listener.share(SUCCESSOR if whole else HEIR)
        if whole:
            self.handoffs[name], self.homes[name] = handoff.share(), home

    def close(self) -> None:
        """Let go of what is left."""
        for listener in self.listeners.values():
            listener.close()
        for handoff in self.handoffs.values():
            handoff.close()
        if self.control is not None:
            self.control.close()
        self.listeners, self.handoffs, self.homes, self.control = {}, {}, {}, None

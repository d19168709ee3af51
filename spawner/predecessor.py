"""The master whose place this program takes, seen from the new one."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
from typing import TYPE_CHECKING, MutableMapping, Optional

from spawner import HANDOVER, handover, totals
from spawner.control import BACKLOG
from spawner.inheritance import PREDECESSOR, Inheritance
from spawner.lifecycle import Event
from spawner.template import failure_message
from workers.channel import Channel
from workers.errors import BootError

if TYPE_CHECKING:
    from spawner.master import Master

log = logging.getLogger("trac-spawn")


class Predecessor:
    """It serves until this one has taken over, and for good when that never comes."""

    def __init__(self, channel: Channel, stderr: int) -> None:
        self.channel = channel
        self._stderr = stderr
        self.pid = os.getppid()
        #: It has made way; from here on there is no going back.
        self._gone = False

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Optional[Predecessor]:
        """As the variable HANDOVER says, which is removed."""
        text = environ.pop(HANDOVER, "")
        if not text:
            return None
        channel, stderr = (int(number) for number in text.split(":"))
        for descriptor in (channel, stderr):
            os.set_inheritable(descriptor, False)
        return cls(Channel.adopt(channel), stderr)

    def inherit(self) -> Inheritance:
        """What it hands over. From now on this process has a log, and stderr is where that is.

        Raises BootError when the old master is gone or says what is not understood.
        """
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        inheritance = Inheritance()
        try:
            while True:
                message, descriptors = self.channel.receive()
                if message is None:
                    raise BootError("the running trac-spawn has ended", os.EX_TEMPFAIL)
                if message["event"] == "end":
                    return inheritance
                handover.add(message, descriptors, inheritance)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise BootError(
                f"the running trac-spawn hands over what this version does not understand: {error!r}",
                os.EX_PROTOCOL,
            ) from error

    def watch(self, master: Master, selector: selectors.BaseSelector) -> None:
        """Take over when it is our turn; be warned when the old master is gone."""

        def hear() -> None:
            with contextlib.suppress(BlockingIOError):
                message, _ = self.channel.receive()
                if message is not None:
                    # Before anybody is shown it. Whatever an older version leaves out, or tells otherwise,
                    # is only a count.
                    with contextlib.suppress(AttributeError, TypeError, ValueError):
                        totals.take(message.get("totals", {}), master.pools)
                        if message.get("pool") in master.pools:
                            master.pools[message["pool"]].workplace.history.take(message["history"])
                    self._obey(message["command"], master)
                    return
                selector.unregister(self.channel)
                self.channel.close()
                self._left(master)

        self.channel.socket.setblocking(False)
        selector.register(self.channel, selectors.EVENT_READ, hear)

    def _obey(self, command: str, master: Master) -> None:
        if command == "take over" and master.serving:
            self._take_over(master)
        elif command == "reopen":
            master.happen(Event.REOPEN)
        elif command == "reload":
            master.happen(Event.RELOAD)

    def ready(self, addresses: list[str]) -> None:
        """The pools are ready to serve; ``addresses`` (as they were asked for) go on being served."""
        self.channel.send({"event": "ready", "addresses": addresses})

    def _take_over(self, master: Master) -> None:
        """The old master has made way."""
        try:
            master.open_pidfile()
            master.claim_listeners()
        except BootError as error:
            master.give_up(error)
            return
        except OSError as error:
            master.give_up(BootError(f"cannot listen: {error.strerror}", os.EX_OSERR))
            return
        for listener in master.all_listeners():
            listener.others.discard(PREDECESSOR)
        self._take_control(master)
        master.inheritance.close()
        master.helper.start()
        self._gone = True
        self.channel.send({"event": "done"})

    @staticmethod
    def _take_control(master: Master) -> None:
        control, master.inheritance.control = master.inheritance.control, None
        if control is None:
            return
        control.others.clear()
        if master.control is None:
            control.claim(BACKLOG)
            master.answer_at(control)
        else:
            control.close()

    def _left(self, master: Master) -> None:
        if self._gone:
            # Those that are here anew, and that all is well: as long as the old master lived, the
            # service manager may not have listened to us.
            master.store.update(master.listeners())
            master.systemd.ready("upgraded")
        else:
            master.give_up(BootError("the trac-spawn to be replaced has ended", os.EX_TEMPFAIL))
        master.predecessor = None

    def failed(self, error: BootError) -> None:
        """This one cannot take its place, and ends."""
        if self.channel.socket.fileno() < 0:
            log.error("upgrade failed: %s", error)  # nobody else is left to say it
        elif not self._gone:
            self._read_all()
            self.channel.send(failure_message(error))

    def _read_all(self) -> None:
        """What is left unread when a socket is closed resets it, and our last words with it."""
        with contextlib.suppress(BlockingIOError, ValueError):
            while self.channel.receive(socket.MSG_DONTWAIT)[0] is not None:
                pass

    def forget(self) -> None:
        """In a child: the channel is the master's alone."""
        self.channel.close()

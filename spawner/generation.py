"""One loading of the application: the template that has it, and how workers of it are made."""

from __future__ import annotations

import os
import signal
from typing import Callable, Optional

from spawner.children import SPARE, TemplateHandle, WorkerHandle, fork_child, send_signal
from spawner.pool import WorkerState
from spawner.switchboard import Switchboard
from spawner.template import run_template, run_worker
from spawner.workplace import Workplace
from workers.channel import Channel, Message


class Generation:
    """``without_template``: its workers load the application each by itself.

    ``number`` is that of the latest template, which is replaced when it dies.
    """

    def __init__(
        self,
        number: int,
        workplace: Workplace,
        switchboard: Switchboard,
        in_child: Callable[[Workplace], None],
        broken: Optional[frozenset[str]] = None,
    ) -> None:
        self.number = number
        #: Plugins that could not be loaded the last time; None when nothing has been loaded yet.
        self.broken = broken
        self.workplace = workplace
        self.without_template = not workplace.settings.template
        self.template: Optional[TemplateHandle] = None
        self._switchboard = switchboard
        self._in_child = in_child

    @property
    def can_spawn(self) -> bool:
        return self.without_template or (self.template is not None and self.template.takes_orders)

    def start_template(
        self, number: int, hear: Callable[[TemplateHandle], None], early: bool = False
    ) -> TemplateHandle:
        """Fork the process that loads the application, and takes orders ``early`` if that is wanted and
        possible. Raises OSError."""
        ours, theirs = Channel.pair()
        early = early and self.workplace.serves_cold

        def body() -> None:
            self._enter_child(ours)
            run_template(self.workplace, number, theirs, self.broken, early)

        pid = self._fork(body, ours, theirs)
        self.number = number
        self.template = template = TemplateHandle(number, ours, pid, label=self.workplace.label)
        self._switchboard.connect(ours, lambda: hear(template))
        return template

    def dismiss_template(self) -> None:
        """An idle one leaves at the end of its channel, a loading one by the signal."""
        if self.template is not None:
            self._switchboard.hang_up(self.template.channel)
            send_signal(self.template.pid, signal.SIGTERM)
            self.template = None

    def spawn(self, number: int, hear: Callable[[WorkerHandle], None]) -> Optional[WorkerHandle]:
        """Ask for a worker; None when the template takes no order now. Raises OSError.

        With SPARE for a number it waits for another one, and has no slot of its own until then.
        """
        ours, theirs = Channel.pair()
        board = self.workplace.scoreboard
        slot = board.slot(SPARE) if number == SPARE else board.assign(number)
        state = WorkerState.SPARE if number == SPARE else WorkerState.STARTING
        worker = WorkerHandle(number, self.number, ours, slot, state, label=self.workplace.label)
        try:
            self._equip(worker)
            if self.without_template:
                worker.pid = self._spawn_directly(worker, theirs)
            elif not self._order(worker, theirs):
                return None
        except OSError:
            # Often it is for want of descriptors: none of them may stay open.
            worker.close_files()
            ours.close()
            theirs.close()
            raise
        self._switchboard.connect(ours, lambda: hear(worker))
        return worker

    def _equip(self, worker: WorkerHandle) -> None:
        """Raises OSError."""
        worker.stacks = os.memfd_create("stacks")
        if self.workplace.settings.capture_output:
            worker.output = self._switchboard.capture(worker.describe)

    def _order(self, worker: WorkerHandle, theirs: Channel) -> bool:
        assert self.template is not None
        worker.cold = not self.template.ready
        order: Message = {"command": "spawn", "number": worker.number, "generation": self.number}
        given = {"channel": theirs.fileno(), **_extras(worker)}
        order["given"] = list(given)
        sent = self.template.channel.send(order, list(given.values()))
        theirs.close()
        if worker.output is not None:
            worker.output.given()
        if not sent:
            # The template has ended, which SIGCHLD tells, or it has a queue of orders to work off.
            worker.channel.close()
            worker.close_files()
        return sent

    def _spawn_directly(self, worker: WorkerHandle, theirs: Channel) -> int:
        def body() -> None:
            self._enter_child(worker.channel)
            number, broken = worker.number, self.broken
            run_worker(self.workplace, number, self.number, theirs, extras, broken)

        extras = _extras(worker)
        try:
            return self._fork(body, worker.channel, theirs)
        finally:
            if worker.output is not None:
                worker.output.given()

    def _enter_child(self, ours: Channel) -> None:
        self._in_child(self.workplace)
        ours.close()

    def _fork(self, body: Callable[[], None], ours: Channel, theirs: Channel) -> int:
        try:
            return fork_child(body)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()


def _extras(worker: WorkerHandle) -> dict[str, int]:
    """Files that a worker is given, by their use."""
    output = None if worker.output is None else worker.output.writing
    found = {"stacks": worker.stacks, "output": output}
    return {name: descriptor for name, descriptor in found.items() if descriptor is not None}

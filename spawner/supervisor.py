"""One pool at work: its template, its workers, and what the master does when one of them speaks or ends."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from collections import Counter
from typing import Callable, Iterator, Optional

from spawner.children import (
    TemplateHandle,
    WorkerHandle,
    describe_status,
    fork_child,
    send_signal,
)
from spawner.hardmemory import HardMemory
from spawner.lifecycle import Event
from spawner.pool import Backoff, WorkerState, plan
from spawner.template import reported_failure, run_template, run_worker
from spawner.workplace import Workplace
from workers.channel import Channel, Message
from workers.errors import BootError

log = logging.getLogger("trac-spawn")

#: Workers beyond the wanted number while one is being replaced.
SURGE = 1
#: A worker that was told to end at once and has not after this many seconds is killed.
KILL_AFTER = 5.0
#: A start that fails this often in a row, without saying why, has failed for good at first start-up.
SILENT_FAILURES = 3


class Supervisor:
    """Keeps the wanted number of workers ready. Never blocks, and survives whatever a child does."""

    def __init__(
        self,
        workplace: Workplace,
        selector: selectors.BaseSelector,
        happen: Callable[[Event], None],
        in_child: Callable[[], None],
    ) -> None:
        self._workplace = workplace
        self._selector = selector
        self._happen = happen
        #: Closes, in a child, what belongs to the master alone.
        self._in_child = in_child
        self.target = workplace.settings.workers
        self.generation = 0
        #: Why the pool never became ready.
        self.failure: Optional[BootError] = None
        #: How many workers were recycled, by the first word of the reason.
        self.recycled: Counter[str] = Counter()
        self._template: Optional[TemplateHandle] = None
        self._without_template = not workplace.settings.template
        self._workers: dict[int, WorkerHandle] = {}
        self._backoff = Backoff()
        self._serving = True
        self._was_ready = False
        #: While stopping: connections may be left in the queue, and no worker saw its end yet.
        self._queue_waits = False
        self._memory = HardMemory(workplace.settings.hard_memory)
        self._logged_traceback = ""

    # -- towards the wanted number ---------------------------------------------------------------

    def balance(self) -> None:
        """Take the next step towards the wanted number of ready workers; called after every event."""
        if not self._serving:
            self._finish()
            return
        steps = plan(list(self._workers.values()), self.target, SURGE)
        for worker in steps.retire:
            self._retire(worker)
        if self._backoff.remaining(time.monotonic()) > 0:
            return
        if not self._without_template and self._template is None:
            self._start_template()
        # Leaving workers keep their slots, and those that leave slowly may be many.
        room = self._workplace.scoreboard.slots - len(self._workers)
        for _ in range(min(steps.spawn, room) if self._can_spawn else 0):
            if not self._spawn():
                break
        if not self._was_ready and self.ready_workers >= self.target:
            self._was_ready = True
            self._happen(Event.POOL_READY)

    def _finish(self) -> None:
        """While stopping: once the last worker is gone, and the queue is answered, let all end."""
        if self._workers:
            return
        if self._queue_waits and self._can_spawn and self._spawn():
            (worker,) = self._workers.values()
            log.info("%s answers what the last one has left in the queue", worker.describe())
            self._drain_worker(worker)
            return
        self._dismiss_template()
        if self._template is None:
            self._happen(Event.POOL_EMPTY)

    @property
    def ready_workers(self) -> int:
        return sum(worker.state is WorkerState.READY for worker in self._workers.values())

    @property
    def _can_spawn(self) -> bool:
        return self._without_template or (self._template is not None and self._template.ready)

    def _retire(self, worker: WorkerHandle) -> None:
        worker.reason = worker.reason or "one worker fewer"
        worker.state = WorkerState.LEAVING
        self._count_recycled(worker, worker.reason)
        worker.tell("retire")

    def _count_recycled(self, worker: WorkerHandle, reason: str) -> None:
        log.info("%s recycled: %s", worker.describe(), reason)
        self.recycled[reason.partition(" (")[0]] += 1

    # -- starting children -----------------------------------------------------------------------

    def _start_template(self) -> None:
        ends = self._open_channel("a template")
        if ends is None:
            return
        ours, theirs = ends
        generation = self.generation + 1

        def body() -> None:
            self._in_child()
            ours.close()
            run_template(self._workplace, generation, theirs)

        pid = self._fork(body, "a template", ours, theirs)
        if pid is None:
            return
        self.generation = generation
        self._template = template = TemplateHandle(generation, ours, pid)
        self._listen_to(ours, lambda: self._hear_template(template))

    def _spawn(self) -> bool:
        """Ask for one more worker; False when that is not possible now."""
        number = next(n for n in range(1, len(self._workers) + 2) if n not in self._workers)
        ends = self._open_channel(f"worker {number}")
        if ends is None:
            return False
        ours, theirs = ends
        slot = self._workplace.scoreboard.slot(number)
        slot.clear()
        worker = WorkerHandle(number, self.generation or 1, ours, slot)
        asked = self._spawn_directly if self._without_template else self._spawn_from_template
        if not asked(worker, theirs):
            return False
        self._workers[number] = worker
        self._listen_to(ours, lambda: self._hear_worker(worker))
        return True

    def _spawn_from_template(self, worker: WorkerHandle, theirs: Channel) -> bool:
        assert self._template is not None
        order = {"command": "spawn", "number": worker.number, "generation": worker.generation}
        sent = self._template.channel.send(order, [theirs.fileno()])
        theirs.close()
        if not sent:
            # The template has ended, which SIGCHLD tells, or it has a queue of orders to work off.
            worker.channel.close()
        return sent

    def _spawn_directly(self, worker: WorkerHandle, theirs: Channel) -> bool:
        def body() -> None:
            self._in_child()
            worker.channel.close()
            run_worker(self._workplace, worker.number, worker.generation, theirs)

        pid = self._fork(body, worker.describe(), worker.channel, theirs)
        worker.pid = pid
        return pid is not None

    def _open_channel(self, what: str) -> Optional[tuple[Channel, Channel]]:
        try:
            return Channel.pair()
        except OSError as error:
            failure = BootError(f"no channel: {error.strerror}", os.EX_OSERR)
            self._start_failed(what, time.monotonic(), failure)
            return None

    def _fork(self, body: Callable[[], None], what: str, ours: Channel, theirs: Channel) -> Optional[int]:
        try:
            return fork_child(body)
        except OSError as error:
            ours.close()
            failure = BootError(f"cannot fork: {error.strerror}", os.EX_OSERR)
            self._start_failed(what, time.monotonic(), failure)
            return None
        finally:
            theirs.close()

    def _listen_to(self, channel: Channel, hear: Callable[[], None]) -> None:
        channel.socket.setblocking(False)
        self._selector.register(channel, selectors.EVENT_READ, hear)

    def _stop_listening_to(self, channel: Channel) -> None:
        if channel.fileno() >= 0:
            self._selector.unregister(channel)
            channel.close()

    def close_channels(self) -> None:
        """In a child: these lead to its siblings."""
        for worker in self._workers.values():
            worker.channel.close()
        if self._template is not None:
            self._template.channel.close()

    # -- what children say -----------------------------------------------------------------------

    @staticmethod
    def _messages(channel: Channel) -> Iterator[Optional[Message]]:
        """What has arrived; None last, when the other end is closed."""
        # Closed ones too: of one batch of events, an earlier one may have closed it.
        while channel.fileno() >= 0:
            try:
                message, descriptors = channel.receive()
            except BlockingIOError:
                return
            for descriptor in descriptors:
                os.close(descriptor)  # no child has any to give: the master must not fill up
            yield message
            if message is None:
                return

    def _hear_template(self, template: TemplateHandle) -> None:
        try:
            for message in self._messages(template.channel):
                if message is None:
                    self._stop_listening_to(template.channel)
                else:
                    self._obey_template(template, message)
        except (KeyError, TypeError, ValueError) as error:
            self._distrust(template.describe(), template.pid, error)

    def _obey_template(self, template: TemplateHandle, message: Message) -> None:
        if message["event"] == "ready":
            template.ready = True
            log.info("%s ready", template.describe())
        elif message["event"] == "unsafe":
            self._without_template = True
            log.warning(
                "%s: the loaded application is not safe to fork, so each worker loads it by"
                " itself: %s", template.describe(), "; ".join(message["reasons"]),
            )  # fmt: skip
        elif message["event"] == "failed":
            template.failure = reported_failure(message)

    def _hear_worker(self, worker: WorkerHandle) -> None:
        try:
            for message in self._messages(worker.channel):
                if message is None:
                    self._lost_contact(worker)
                else:
                    self._obey_worker(worker, message)
        except (KeyError, TypeError, ValueError) as error:
            self._distrust(worker.describe(), worker.pid, error)

    def _obey_worker(self, worker: WorkerHandle, message: Message) -> None:
        if message["event"] == "spawned" and worker.pid is None:
            worker.pid = message["sender"]
        elif message["event"] == "ready" and worker.state is WorkerState.STARTING:
            worker.state = WorkerState.LEAVING if worker.drains else WorkerState.READY
            self._backoff.succeeded()
            if self._template is not None and self._template.generation == worker.generation:
                self._template.proven = True
            log.info("%s ready", worker.describe())
        elif message["event"] == "recycle" and not worker.worn:
            worker.reason = message["reason"]
        elif message["event"] == "failed":
            worker.failure = reported_failure(message)

    @staticmethod
    def _distrust(who: str, pid: Optional[int], error: Exception) -> None:
        """The application has written to what is not its own; that must not end the master."""
        log.error("%s sends what is no message, so it is killed: %r", who, error)
        if pid is not None:
            send_signal(pid, signal.SIGKILL)

    def _lost_contact(self, worker: WorkerHandle) -> None:
        self._stop_listening_to(worker.channel)
        if worker.pid is None:
            # It never came to life: its template ended, or could not fork.
            del self._workers[worker.number]
            self._start_failed(worker.describe(), worker.born, worker.failure, "was not born")
        elif worker.kill_at is None:
            # It is about to be reaped; or the application has closed what it should not have.
            worker.kill_at = time.monotonic() + KILL_AFTER

    # -- what becomes of children ----------------------------------------------------------------

    def child_ended(self, pid: int, status: int) -> bool:
        """A child was reaped; False when it is none of this pool's."""
        template = self._template
        if template is not None and template.pid == pid:
            self._hear_template(template)  # its last words
            self._template_ended(template, status)
            return True
        # A copy: one that was not born is struck off the list when its end is heard of.
        for worker in list(self._workers.values()):
            if worker.pid in (None, pid):
                self._hear_worker(worker)
            if worker.pid == pid:
                self._worker_ended(worker, status)
                return True
        return False

    def _template_ended(self, template: TemplateHandle, status: int) -> None:
        self._stop_listening_to(template.channel)
        self._template = None
        if not self._serving or self._without_template:
            return
        if template.proven:
            log.warning("%s died: %s", template.describe(), describe_status(status))
        else:
            how = f"died early: {describe_status(status)}"
            self._start_failed(template.describe(), template.born, template.failure, how)

    def _worker_ended(self, worker: WorkerHandle, status: int) -> None:
        self._stop_listening_to(worker.channel)
        del self._workers[worker.number]
        slot = worker.slot.snapshot()
        if worker.state is WorkerState.STARTING:
            how = f"died before it was ready: {describe_status(status)}"
            self._start_failed(worker.describe(), worker.born, worker.failure, how)
        elif worker.state is WorkerState.LEAVING and status == 0:
            # Nobody new gets into the queue, so whoever saw its end saw it for all.
            self._queue_waits = self._queue_waits and not worker.drains
            log.info("%s left after %d requests", worker.describe(), slot.requests)
        else:
            log.warning(
                "%s died: %s after %d requests%s", worker.describe(), describe_status(status),
                slot.requests, ", in the middle of one" if slot.busy else "",
            )  # fmt: skip

    def _start_failed(self, who: str, born: float, failure: Optional[BootError], how: str = "") -> None:
        """A child ended before it was ready: say why once, and try again later and later."""
        self._queue_waits = False
        if not self._serving:
            return
        delay = self._backoff.failed(time.monotonic(), born)
        # Without a word it may have been killed by chance, so that gets another try.
        final = failure is not None or self._backoff.failures >= SILENT_FAILURES
        why = f"cannot start: {failure}" if failure else how
        failure = failure or BootError(f"{who} {how}")
        self._log_traceback_once(failure)
        if final and not self._was_ready:
            self.failure = self.failure or failure
            self._happen(Event.POOL_FAILED)
        else:
            log.error("%s %s; next try in %.1f s", who, why, delay)

    def _log_traceback_once(self, failure: BootError) -> None:
        if failure.unexpected and failure.traceback != self._logged_traceback:
            self._logged_traceback = failure.traceback
            log.error("%s\n%s", failure, failure.traceback.rstrip())

    # -- ending ----------------------------------------------------------------------------------

    def drain(self) -> None:
        """Every worker answers what is queued, then leaves; none are started but for the queue's sake."""
        self._serving = False
        # A template stays until then: the last worker may die with connections left in the queue.
        self._queue_waits = self._was_ready
        if not self._can_spawn:
            self._dismiss_template()
        for worker in self._workers.values():
            self._drain_worker(worker)

    def _drain_worker(self, worker: WorkerHandle) -> None:
        worker.drains = worker.state is not WorkerState.LEAVING
        worker.tell("drain")
        if worker.state is WorkerState.READY:
            worker.state = WorkerState.LEAVING
        elif self._without_template and not self._was_ready:
            worker.signal(signal.SIGTERM)  # still loading: nobody has been served yet

    def _dismiss_template(self) -> None:
        if self._template is not None and self._template.channel.fileno() >= 0:
            # An idle one leaves at the end of its channel, and a loading one by the signal.
            self._stop_listening_to(self._template.channel)
            send_signal(self._template.pid, signal.SIGTERM)

    def terminate(self) -> None:
        """Every child ends now, requests or not."""
        self._serving = self._queue_waits = False
        self._dismiss_template()
        for worker in self._workers.values():
            self._terminate_worker(worker)

    def _terminate_worker(self, worker: WorkerHandle) -> None:
        worker.tell("terminate")
        worker.signal(signal.SIGTERM)
        worker.state = WorkerState.LEAVING
        worker.kill_at = time.monotonic() + KILL_AFTER

    def kill(self) -> None:
        """What is left is killed."""
        for worker in self._workers.values():
            worker.signal(signal.SIGKILL)
        if self._template is not None:
            send_signal(self._template.pid, signal.SIGKILL)

    def reopen(self) -> None:
        """Tell every child to open its log files again."""
        for worker in self._workers.values():
            worker.tell("reopen")
        if self._template is not None:
            self._template.channel.send({"command": "reopen"})

    # -- time ------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """When check_clock() is due, on the monotonic clock; infinity when nothing is."""
        deadlines = [w.kill_at for w in self._workers.values() if w.kill_at is not None]
        now = time.monotonic()
        if self._serving and self._backoff.remaining(now):
            deadlines.append(now + self._backoff.remaining(now))
        if self._workers:
            deadlines.append(self._memory.due)
        return min(deadlines, default=float("inf"))

    def check_clock(self) -> None:
        """Kill those whose time is over, and look at the workers' memory."""
        now = time.monotonic()
        for worker in self._workers.values():
            if worker.kill_at is not None and worker.kill_at <= now:
                log.warning("%s does not end by itself: killed", worker.describe())
                worker.signal(signal.SIGKILL)
                worker.kill_at = None
        self._check_memory(now)

    def _check_memory(self, now: float) -> None:
        for worker, reason in self._memory.exceeding(self._workers.values(), now):
            if worker.state is WorkerState.STARTING:
                # Loading alone takes more: to recycle it would be to try for ever.
                worker.failure = BootError(f"{reason} before its first request", os.EX_CONFIG)
                worker.signal(signal.SIGKILL)
            else:
                self._count_recycled(worker, reason)
                self._terminate_worker(worker)

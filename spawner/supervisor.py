"""One pool at work: its template, its workers, and what the master does when one of them speaks or ends."""

from __future__ import annotations

import logging
import selectors
import signal
import time
from typing import Callable, Iterator, Optional

from spawner.children import (
    TemplateHandle,
    WorkerHandle,
    describe_status,
    fork_child,
    send_signal,
)
from spawner.lifecycle import Event
from spawner.pool import Backoff, WorkerState, plan
from spawner.template import run_template, run_worker
from spawner.workplace import Workplace
from workers.channel import Channel, Message
from workers.errors import BootError
from workers.recycling import private_memory, resident_memory

log = logging.getLogger("trac-spawn")

#: Workers beyond the wanted number while one is being replaced.
SURGE = 1
#: A worker that was told to end at once and has not after this many seconds is killed.
KILL_AFTER = 5.0
#: How often the memory of the workers is looked at when --hard-memory is set, in seconds.
MEMORY_INTERVAL = 0.5
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
        #: What a child has said of its own failure before it ends.
        self._reported: Optional[BootError] = None
        self._template: Optional[TemplateHandle] = None
        self._without_template = not workplace.settings.template
        self._workers: dict[int, WorkerHandle] = {}
        self._backoff = Backoff()
        self._serving = True
        self._was_ready = False
        self._memory_due = 0.0
        self._logged_traceback = ""

    # -- towards the wanted number ---------------------------------------------------------------

    def balance(self) -> None:
        """Take the next step towards the wanted number of ready workers; called after every event."""
        if not self._serving:
            if self.empty:
                self._happen(Event.POOL_EMPTY)
            return
        steps = plan(list(self._workers.values()), self.target, SURGE)
        for worker in steps.retire:
            self._retire(worker)
        if self._backoff.remaining(time.monotonic()) > 0:
            return
        if not self._without_template and self._template is None:
            self._start_template()
        for _ in range(steps.spawn if self._can_spawn else 0):
            if not self._spawn():
                break
        if not self._was_ready and self.ready_workers >= self.target:
            self._was_ready = True
            self._happen(Event.POOL_READY)

    @property
    def ready_workers(self) -> int:
        return sum(worker.state is WorkerState.READY for worker in self._workers.values())

    @property
    def empty(self) -> bool:
        """No child of this pool is left."""
        return not self._workers and self._template is None

    @property
    def _can_spawn(self) -> bool:
        return self._without_template or (self._template is not None and self._template.ready)

    def _retire(self, worker: WorkerHandle) -> None:
        worker.reason = worker.reason or "one worker fewer"
        worker.state = WorkerState.LEAVING
        log.info("%s recycled: %s", worker.describe(), worker.reason)
        worker.tell("retire")

    # -- starting children -----------------------------------------------------------------------

    def _start_template(self) -> None:
        ours, theirs = Channel.pair()
        generation = self.generation + 1

        def body() -> None:
            self._in_child()
            ours.close()
            run_template(self._workplace, generation, theirs)

        pid = self._fork(body, "a template", ours, theirs)
        if pid is None:
            return
        self.generation = generation
        self._template = TemplateHandle(generation, ours, pid)
        self._listen_to(ours, self._hear_template)

    def _spawn(self) -> bool:
        """Ask for one more worker; False when that is not possible now."""
        number = next(n for n in range(1, len(self._workers) + 2) if n not in self._workers)
        ours, theirs = Channel.pair()
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

    def _fork(self, body: Callable[[], None], what: str, ours: Channel, theirs: Channel) -> Optional[int]:
        try:
            return fork_child(body)
        except OSError as error:
            delay = self._backoff.failed(time.monotonic())
            log.error("cannot fork %s: %s; next try in %.1f s", what, error.strerror, delay)
            ours.close()
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
        while channel.fileno() >= 0:
            try:
                message, _ = channel.receive()
            except BlockingIOError:
                return
            yield message
            if message is None:
                return

    def _hear_template(self) -> None:
        template = self._template
        assert template is not None
        for message in self._messages(template.channel):
            if message is None:
                self._stop_listening_to(template.channel)
            elif message["event"] == "ready":
                template.ready = True
                self._backoff.succeeded()
                log.info("%s ready", template.describe())
            elif message["event"] == "unsafe":
                self._without_template = True
                log.warning(
                    "%s: the loaded application is not safe to fork, so each worker loads it by"
                    " itself: %s", template.describe(), "; ".join(message["reasons"]),
                )  # fmt: skip
            elif message["event"] == "failed":
                self._note_failure(message)

    def _hear_worker(self, worker: WorkerHandle) -> None:
        for message in self._messages(worker.channel):
            if message is None:
                self._lost_contact(worker)
            elif message["event"] == "spawned":
                worker.pid = message["pid"]
            elif message["event"] == "ready" and worker.state is WorkerState.STARTING:
                worker.state = WorkerState.READY
                self._backoff.succeeded()
                log.info("%s ready", worker.describe())
            elif message["event"] == "recycle" and not worker.worn:
                worker.reason = message["reason"]
            elif message["event"] == "failed":
                self._note_failure(message)

    def _note_failure(self, message: Message) -> None:
        self._reported = BootError(
            message["message"], message["exit_code"], message["traceback"], message["unexpected"]
        )

    def _lost_contact(self, worker: WorkerHandle) -> None:
        self._stop_listening_to(worker.channel)
        if worker.pid is None:
            # It never came to life: its template ended, or could not fork.
            del self._workers[worker.number]
            self._start_failed(worker.describe(), "was not born")
        elif worker.kill_at is None:
            # It is about to be reaped; or the application has closed what it should not have.
            worker.kill_at = time.monotonic() + KILL_AFTER

    # -- what becomes of children ----------------------------------------------------------------

    def child_ended(self, pid: int, status: int) -> bool:
        """A child was reaped; False when it is none of this pool's."""
        template = self._template
        if template is not None and template.pid == pid:
            self._hear_template()  # its last words
            self._template_ended(template, status)
            return True
        for worker in self._workers.values():
            if worker.pid is None:
                self._hear_worker_if_open(worker)
            if worker.pid == pid:
                self._hear_worker_if_open(worker)
                self._worker_ended(worker, status)
                return True
        return False

    def _hear_worker_if_open(self, worker: WorkerHandle) -> None:
        if worker.channel.fileno() >= 0:
            self._hear_worker(worker)

    def _template_ended(self, template: TemplateHandle, status: int) -> None:
        self._stop_listening_to(template.channel)
        self._template = None
        if not self._serving or self._without_template:
            return
        if template.ready:
            log.warning("%s died: %s", template.describe(), describe_status(status))
        else:
            self._start_failed(template.describe(), describe_status(status))

    def _worker_ended(self, worker: WorkerHandle, status: int) -> None:
        self._stop_listening_to(worker.channel)
        del self._workers[worker.number]
        slot = worker.slot.snapshot()
        if worker.state is WorkerState.STARTING:
            self._start_failed(worker.describe(), describe_status(status))
        elif worker.state is WorkerState.LEAVING and status == 0:
            log.info("%s left after %d requests", worker.describe(), slot.requests)
        else:
            log.warning(
                "%s died: %s after %d requests%s", worker.describe(), describe_status(status),
                slot.requests, ", in the middle of one" if slot.busy else "",
            )  # fmt: skip

    def _start_failed(self, who: str, how: str) -> None:
        """A child ended before it was ready: say why once, and try again later and later."""
        if not self._serving:
            return
        failure, self._reported = self._reported, None
        delay = self._backoff.failed(time.monotonic())
        # Without a word it may have been killed by chance, so that gets another try.
        final = failure is not None or self._backoff.failures >= SILENT_FAILURES
        if failure is None:
            failure = BootError(f"{who} died before it was ready: {how}")
        self._log_traceback_once(failure)
        if final and not self._was_ready:
            self.failure = failure
            self._happen(Event.POOL_FAILED)
        else:
            log.error("%s cannot start: %s; next try in %.1f s", who, failure, delay)

    def _log_traceback_once(self, failure: BootError) -> None:
        if failure.unexpected and failure.traceback != self._logged_traceback:
            self._logged_traceback = failure.traceback
            log.error("%s\n%s", failure, failure.traceback.rstrip())

    # -- ending ----------------------------------------------------------------------------------

    def drain(self) -> None:
        """Every worker answers what is queued, then leaves; no more are started."""
        self._serving = False
        self._dismiss_template()
        for worker in self._workers.values():
            worker.tell("drain")
            if worker.state is WorkerState.STARTING and self._without_template:
                worker.signal(signal.SIGTERM)  # still loading: it has nothing to answer yet
            worker.state = WorkerState.LEAVING

    def _dismiss_template(self) -> None:
        if self._template is not None:
            # An idle one leaves at the end of its channel, and a loading one by the signal.
            self._stop_listening_to(self._template.channel)
            send_signal(self._template.pid, signal.SIGTERM)

    def terminate(self) -> None:
        """Every child ends now, requests or not."""
        self._serving = False
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
        if self._workplace.settings.hard_memory and self._workers:
            deadlines.append(self._memory_due)
        return min(deadlines, default=float("inf"))

    def check_clock(self) -> None:
        """Kill those whose time is over, and look at the workers' memory."""
        now = time.monotonic()
        for worker in self._workers.values():
            if worker.kill_at is not None and worker.kill_at <= now:
                log.warning("%s does not end by itself: killed", worker.describe())
                worker.signal(signal.SIGKILL)
                worker.kill_at = None
        if self._workplace.settings.hard_memory and now >= self._memory_due:
            self._memory_due = now + MEMORY_INTERVAL
            for worker in self._workers.values():
                self._check_memory(worker)

    def _check_memory(self, worker: WorkerHandle) -> None:
        """--hard-memory: end a worker that is over it, in the middle of a request if need be."""
        limit = self._workplace.settings.hard_memory
        if worker.pid is None or worker.kill_at is not None:
            return
        try:
            if resident_memory(worker.pid) <= limit:
                return
            private = private_memory(worker.pid)
        except (OSError, IndexError):
            return  # it is ending
        if private > limit:
            log.warning("%s recycled: hard-memory (%d MiB private)", worker.describe(), private >> 20)
            self._terminate_worker(worker)

"""One pool at work: its template, its workers, and what the master does when one of them speaks or ends."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from collections import Counter, deque
from typing import Callable, Optional, Union

from spawner.children import SPARE, TemplateHandle, WorkerHandle, describe_status, send_signal
from spawner.deaths import Deaths
from spawner.generation import Generation
from spawner.growth import Growth
from spawner.inheritance import SUCCESSOR
from spawner.leaks import Leaks
from spawner.lifecycle import Event
from spawner.limits import Limits
from spawner.pool import WorkerState, plan
from spawner.replacement import RELOAD, Reloaded, Replacement
from spawner.scaling import Scaling
from spawner.setbacks import Setbacks
from spawner.settings import Settings
from spawner.spare import Spare
from spawner.stacks import read_crash, read_stack
from spawner.status import SlowRequest
from spawner.switchboard import Switchboard
from spawner.template import one_line, reported_failure
from spawner.workplace import Workplace
from workers.channel import Message
from workers.errors import BootError
from workers.logs import own_log_file

log = logging.getLogger("trac-spawn")

#: A worker that was told to end at once and has not after this many seconds is killed.
KILL_AFTER = 5.0
#: The reason of workers that were forked before the template had warmed up.
WARM_UP = "warm-up"
#: How many slow requests are kept to be shown.
SLOW_KEPT = 20


class Supervisor:
    """Keeps the wanted number of workers ready. Never blocks, and survives whatever a child does."""

    def __init__(
        self,
        workplace: Workplace,
        selector: selectors.BaseSelector,
        happen: Callable[[Supervisor, Event], None],
        in_child: Callable[[Workplace], None],
        broken: Optional[frozenset[str]] = None,
        succeeds: bool = False,
    ) -> None:
        """``broken``: plugins that could not be loaded before this program started, if that is known.
        ``succeeds``: the workers of another master serve until this pool is ready."""
        self._happen = happen
        #: Closes, in a child, what belongs to the master alone.
        self._in_child = in_child
        #: Workers have been retired, and the sockets queue.
        self.paused = False
        self.deaths = Deaths(workplace.settings.name)
        self.leaks = Leaks(workplace.settings.name)
        self._switchboard = Switchboard(selector)
        self._current = Generation(1, workplace, self._switchboard, in_child, broken)
        #: The highest number of a generation so far; a template gives its own.
        self._numbered = 0 if workplace.settings.template else 1
        #: Every template that has not been reaped, by pid; one that was dismissed is on its way out.
        self._templates: dict[int, TemplateHandle] = {}
        #: A generation that is to take over, if there is one.
        self.replacement = Replacement(self)
        self._growth = Growth(workplace, selector)
        #: Why the pool is not ready, and may never be.
        self.failure: Optional[BootError] = None
        #: How many workers were recycled, by the first word of the reason.
        self.recycled: Counter[str] = Counter()
        self._workers: dict[int, WorkerHandle] = {}
        self.spare = Spare(self._workers)
        self._setbacks = Setbacks()
        self._serving = True
        self._succeeds = succeeds
        #: Every worker has been ready at once.
        self.was_ready = False
        #: Told to stop, and no child is left.
        self.ended = False
        #: While stopping: connections may be left in the queue, and no worker saw its end yet.
        self._queue_waits = False
        #: The last requests that were found slow.
        self.slow_log: deque[SlowRequest] = deque(maxlen=SLOW_KEPT)
        self._limits = self._limits_of(workplace.settings)
        #: Slow requests under limits that a reload has replaced, and an earlier master's.
        self.slow_before = 0

    # -- towards the wanted number ---------------------------------------------------------------

    def balance(self) -> None:
        """Take the next step towards the wanted number of ready workers; called after every event."""
        if self._serving:
            self.replacement.advance()
            self._approach()
            self._keep_spare()
        else:
            self._finish()
        self._growth.attend(self._serving and self.was_ready and not self.paused)

    def _approach(self) -> None:
        if self.paused:
            self.scaling.rest()
        target = 0 if self.paused else self.target
        steps = plan(self._growth.in_order(self._counted), target, self.workplace.settings.max_surge)
        for worker in steps.retire:
            self._retire(worker)
        if self._setbacks.remaining() > 0:
            return
        if not self._current.without_template and self._current.template is None:
            self.start_template(self._current)
        # Leaving workers keep their slots, and those that leave slowly may be many.
        room = self._current.workplace.scoreboard.slots - len(self.workers)
        for _ in range(min(steps.spawn, room) if self._current.can_spawn else 0):
            if not self.spawn(self._current):
                break
        loaded = self._current.can_spawn and self.ready_workers >= self.target
        if not self.was_ready and loaded:
            self.was_ready, self.failure = True, None
            self.spare.rest()
            self._happen(self, Event.POOL_READY)

    def _keep_spare(self) -> None:
        if not self._wants_workers:
            self._dismiss_spare()
        elif self._may_fork_ahead and time.monotonic() >= self.spare.due:
            self.spare.rest()
            self._order(self._current, SPARE)

    def _dismiss_spare(self) -> None:
        spare = self.spare.dismiss()
        if spare is not None and spare.pid is None:
            # Nobody waits for its birth, which may never come; it will find that nobody is there.
            self._switchboard.hang_up(spare.channel)
            self._forget(spare)

    @property
    def _wants_workers(self) -> bool:
        return bool(self.target) and not self.paused

    @property
    def _may_fork_ahead(self) -> bool:
        template = self._current.template
        warm = self.was_ready and template is not None and template.ready
        return warm and self._serving and self._wants_workers and self.spare.lacking

    def _finish(self) -> None:
        """While stopping: once the last worker is gone, and the queue is answered, let all end."""
        if self._workers:
            return
        if self._queue_waits and self._current.can_spawn and self.spawn(self._current):
            (worker,) = self._workers.values()
            log.info("%s answers what the last one has left in the queue", worker.describe())
            self._drain_worker(worker)
            return
        self._current.dismiss_template()
        if not self._templates and not self.ended:
            self.ended = True
            self._happen(self, Event.POOL_EMPTY)

    @property
    def target(self) -> int:
        """How many workers are wanted now."""
        return self._growth.scaling.target

    @property
    def scaling(self) -> Scaling:
        """What moves that number."""
        return self._growth.scaling

    @property
    def _counted(self) -> list[WorkerHandle]:
        """Those that are part of the capacity, or are to be."""
        return [worker for worker in self._workers.values() if not self.replacement.is_tried_by(worker)]

    @property
    def workers(self) -> list[WorkerHandle]:
        """Those that live, or are about to."""
        return [worker for worker in self._workers.values() if worker.number != SPARE]

    @property
    def current(self) -> Generation:
        """The generation that serves."""
        return self._current

    @property
    def state(self) -> str:
        """In one word, as the status shows it."""
        if not self._serving:
            return "stopping"
        if self.paused:
            return "paused"
        if self.was_ready:
            return "running"
        return "failed" if self.failure else "starting"

    def recycle(self, number: Optional[int] = None) -> list[int]:
        """Replace the worker in one slot, or all; the slots of those that will be."""
        chosen = [
            worker
            for worker in self._workers.values()
            if worker.state is WorkerState.READY and not worker.worn and number in (None, worker.number)
        ]
        for worker in chosen:
            worker.reason = "asked for"
        return [worker.number for worker in chosen]

    def close_listeners(self) -> None:
        """Let go of the sockets, and remove their paths where they are still ours."""
        for listener in self.workplace.listeners:
            listener.close()
        if self.workplace.access is not None:
            self.workplace.access.close()

    @property
    def workplace(self) -> Workplace:
        """Of the generation that serves."""
        return self._current.workplace

    @property
    def slow_requests(self) -> int:
        """That took longer than --slow-after."""
        return self.slow_before + self._limits.slow

    @property
    def ready_workers(self) -> int:
        return sum(worker.state is WorkerState.READY for worker in self._workers.values())

    def _retire(self, worker: WorkerHandle) -> None:
        worker.reason = worker.reason or ("pause" if self.paused else self._growth.farewell)
        worker.state, worker.leaving_since = WorkerState.LEAVING, time.monotonic()
        self._count_recycled(worker, worker.reason)
        worker.tell(worker.farewell)

    def _count_recycled(self, worker: WorkerHandle, reason: str) -> None:
        log.info("%s recycled: %s", worker.describe(), reason)
        self.recycled[reason.partition(" (")[0]] += 1

    # -- starting children -----------------------------------------------------------------------

    def start_template(self, generation: Generation) -> None:
        try:
            early = generation is self._current and self._nobody_serves
            template = generation.start_template(self._numbered + 1, self._hear_template, early)
            self._numbered += 1
            self._templates[template.pid] = template
        except OSError as error:
            failure = BootError(f"cannot fork: {error.strerror}", os.EX_OSERR)
            self._start_failed("a template", time.monotonic(), failure)

    @property
    def _nobody_serves(self) -> bool:
        """So that cold workers are better than none."""
        return not self.ready_workers and (self.was_ready or not self._succeeds)

    def spawn(self, generation: Generation) -> bool:
        """Ask for one more worker; False when that is not possible now."""
        number = next(n for n in range(1, len(self._workers) + 2) if n not in self._workers)
        if generation is self._current:
            spare = self.spare.employ(number, self.workplace.scoreboard.assign(number))
            if spare is not None:
                self._workers[number] = spare
                return True
        return self._order(generation, number)

    def _order(self, generation: Generation, number: int) -> bool:
        try:
            worker = generation.spawn(number, self._hear_worker)
        except OSError as error:
            failure = BootError(f"cannot fork: {error.strerror}", os.EX_OSERR)
            who = f"worker {number}" if number != SPARE else "a spare worker"
            self._start_failed(who, time.monotonic(), failure)
            return False
        if worker is not None:
            self._workers[number] = worker
        return worker is not None

    def close_in_child(self, workplace: Optional[Workplace]) -> None:
        """In a child that works at ``workplace``, None for no pool's: close what is not for it.
        Channels lead to its siblings, and a listening socket stays open as long as anybody has it."""
        self._switchboard.close()
        candidate = self.replacement.candidate
        for own in (self.workplace, candidate.workplace if candidate else self.workplace):
            for listener in own.listeners:
                if workplace is None or listener not in workplace.listeners:
                    listener.close()
        for worker in self._workers.values():
            if worker.stacks is not None:
                os.close(worker.stacks)
            if worker.output is not None:
                worker.output.forget()
        access = self.workplace.access
        if access is not None and (workplace is None or access is not workplace.access):
            access.close()
        if workplace is None or self.workplace.handoff is not workplace.handoff:
            self.workplace.handoff.close()

    # -- what children say -----------------------------------------------------------------------

    def _hear_template(self, template: TemplateHandle) -> None:
        try:
            for message in self._switchboard.messages(template.channel):
                if message is None:
                    self._switchboard.hang_up(template.channel)
                else:
                    self._obey_template(template, message)
        except (KeyError, TypeError, ValueError) as error:
            self._distrust(template.describe(), template.pid, error)

    def _obey_template(self, template: TemplateHandle, message: Message) -> None:
        if message["event"] == "early":
            template.early = True
            log.info("%s warms up while its first workers serve", template.describe())
        elif message["event"] == "ready":
            template.ready = True
            log.info("%s ready", template.describe())
            self._replace_cold_workers(template)
        elif message["event"] == "unsafe":
            self._generation_of(template).without_template = True
            self._replace_cold_workers(template)
            log.warning(
                "%s: the loaded application is not safe to fork, so each worker loads it by"
                " itself: %s", template.describe(), "; ".join(message["reasons"]),
            )  # fmt: skip
        elif message["event"] == "failed":
            template.failure = reported_failure(message)
        elif message["event"] == "plugins":
            self._remember_plugins(self._generation_of(template), message["broken"])

    def _replace_cold_workers(self, template: TemplateHandle) -> None:
        """By those of this template; one that has died may have forked them."""
        for worker in self._workers.values():
            if worker.cold and not worker.worn and self._generation_of(template) is self._current:
                worker.reason = WARM_UP

    @staticmethod
    def _remember_plugins(generation: Generation, broken: list[str]) -> None:
        names = frozenset(one_line(name) for name in broken)
        for name in sorted(names - (generation.broken or frozenset())):
            log.warning("the plugin %s cannot be loaded; Trac goes on without it", name)
        generation.broken = names

    def _hear_worker(self, worker: WorkerHandle) -> None:
        try:
            for message in self._switchboard.messages(worker.channel):
                if message is None:
                    self._lost_contact(worker)
                else:
                    self._obey_worker(worker, message)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self._distrust(worker.describe(), worker.pid, error)

    def _obey_worker(self, worker: WorkerHandle, message: Message) -> None:
        if message["event"] == "spawned" and worker.pid is None:
            worker.pid = message["sender"]
        elif message["event"] == "ready" and worker.state is WorkerState.STARTING:
            worker.state = WorkerState.LEAVING if worker.drains else WorkerState.READY
            worker.ready_at = time.monotonic()
            self._setbacks.child_ready()
            for template in self._templates.values():
                template.proven = template.proven or template.generation == worker.generation
            log.info("%s ready", worker.describe())
        elif message["event"] == "leaving":
            worker.accepts = False
        elif message["event"] == "recycle" and not worker.worn:
            worker.reason = one_line(message["reason"])
        elif message["event"] == "failed":
            worker.failure = reported_failure(message)
        elif message["event"] == "growth":
            self.leaks.add(message["kinds"])
        elif message["event"] == "plugins" and worker.state is WorkerState.STARTING:
            trial = self.replacement.candidate if self.replacement.is_tried_by(worker) else None
            self._remember_plugins(trial or self._current, message["broken"])

    @staticmethod
    def _distrust(who: str, pid: Optional[int], error: Exception) -> None:
        """The application has written to what is not its own; that must not end the master."""
        log.error("%s sends what is no message, so it is killed: %r", who, error)
        if pid is not None:
            send_signal(pid, signal.SIGKILL)

    def _lost_contact(self, worker: WorkerHandle) -> None:
        self._switchboard.hang_up(worker.channel)
        if worker.number == SPARE:
            if worker.pid is None:
                self._forget(worker)
                self.spare.ended(worker, None)
        elif worker.pid is None:
            # It never came to life: its template ended, or could not fork.
            self._forget(worker)
            self._worker_failed(worker, "was not born")
        elif worker.kill_at is None:
            # It is about to be reaped; or the application has closed what it should not have.
            worker.kill_at = time.monotonic() + KILL_AFTER

    # -- what becomes of children ----------------------------------------------------------------

    def child_ended(self, pid: int, status: int) -> bool:
        """A child was reaped; False when it is none of this pool's."""
        template = self._templates.get(pid)
        if template is not None:
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

    def child_stopped(self, pid: int, stopped: bool) -> None:
        """A signal such as SIGSTOP keeps a child from running, or it goes on again."""
        children: list[Union[WorkerHandle, TemplateHandle]] = [*self._workers.values()]
        for child in [*children, *self._templates.values()]:
            if child.pid == pid:
                child.stopped = time.monotonic() if stopped else None
                if isinstance(child, WorkerHandle) and child.number == SPARE:
                    child.signal(signal.SIGKILL)  # it could not be employed
                log.info("%s %s", child.describe(), "is stopped by a signal" if stopped else "goes on")

    def _forget(self, worker: WorkerHandle) -> None:
        del self._workers[worker.number]
        self._limits.forget(worker)
        worker.close_files()

    def _template_ended(self, template: TemplateHandle, status: int) -> None:
        self._switchboard.hang_up(template.channel)
        del self._templates[template.pid]
        generation = self._generation_of(template)
        if generation.template is not template:
            return  # dismissed
        generation.template = None
        if not self._serving or generation.without_template:
            return
        if generation is self.replacement.candidate:
            self.replacement.fail(template.failure or BootError(f"{template.describe()} died early"))
        elif template.ready and template.proven:
            log.warning("%s died: %s", template.describe(), describe_status(status))
        else:
            how = f"died early: {describe_status(status)}"
            self._start_failed(template.describe(), template.born, template.failure, how)

    def _worker_ended(self, worker: WorkerHandle, status: int) -> None:
        self._switchboard.hang_up(worker.channel)
        stack = read_stack(worker) if worker.ended else read_crash(worker)
        if worker.ended:
            log.warning(
                "%s: %s: the stack of that request:\n%s", worker.describe(), worker.reason, stack or "unknown"
            )
            self.deaths.remember(worker, worker.reason, stack)
        self._forget(worker)
        if worker.number == SPARE:
            self.spare.ended(worker, status)
            return
        slot = worker.slot.snapshot()
        if worker.state is WorkerState.STARTING:
            self._worker_failed(worker, f"died before it was ready: {describe_status(status)}")
        elif worker.state is WorkerState.LEAVING and status == 0:
            # Nobody new gets into the queue, so whoever saw its end saw it for all.
            self._queue_waits = self._queue_waits and not worker.drains
            log.info("%s left after %d requests", worker.describe(), slot.requests)
        else:
            log.warning(
                "%s died: %s after %d requests%s%s", worker.describe(), describe_status(status),
                slot.requests, f", in the middle of one: {slot.request}" if slot.busy else "",
                f"\n{stack}" if stack and not worker.ended else "",
            )  # fmt: skip
            if not worker.ended:
                self.deaths.remember(worker, describe_status(status), stack)
            if worker.state is WorkerState.READY:
                delay = self._setbacks.died(worker.born, worker.ready_at, slot.requests)
                if delay and self._serving:
                    log.error("workers die as soon as they are ready; next try in %.1f s", delay)
        # At the very end: until here its slot tells what it did last.
        self.workplace.scoreboard.release(worker.number)

    def _worker_failed(self, worker: WorkerHandle, how: str) -> None:
        self.deaths.remember(worker, how)
        if self.replacement.is_tried_by(worker):
            self.replacement.fail(worker.failure or BootError(f"{worker.describe()} {how}"))
        else:
            self._start_failed(worker.describe(), worker.born, worker.failure, how)

    def _start_failed(self, who: str, born: float, failure: Optional[BootError], how: str = "") -> None:
        """A child ended before it was ready: say why once, and try again later and later."""
        self._queue_waits = False
        if not self._serving:
            return
        setback = self._setbacks.start_failed(who, born, failure, how)
        if setback.final and not self.was_ready:
            self.failure = self.failure or setback.failure
            self._happen(self, Event.POOL_FAILED)
        if self._serving:
            log.error("%s %s; next try in %.1f s", who, setback.why, setback.delay)

    # -- reload ----------------------------------------------------------------------------------

    def reload(self, workplace: Workplace, done: Reloaded) -> None:
        """Load the application anew, and let it take over once a worker of it is ready.

        ``done`` is called in the end, with the failure when the old generation serves on.
        """
        self.replacement.begin(workplace, done)

    def next_generation(self, workplace: Workplace) -> Generation:
        """One that is still to be loaded."""
        number = self._numbered + 1
        if not workplace.settings.template:
            self._numbered = number
        return Generation(number, workplace, self._switchboard, self._in_child, self._current.broken)

    def take_over(self, generation: Generation) -> None:
        """It has proved that it works: it is the one that serves, and the workers of others are worn."""
        # Before any socket is closed: the kernel would go on to tell of one that others have open.
        self._growth.adopt(generation.workplace)
        self._current.dismiss_template()
        self._dismiss_spare()
        self.workplace.leave_access_file(generation.workplace)
        abandoned = [one for one in self.workplace.listeners if one not in generation.workplace.listeners]
        for listener in abandoned:
            listener.stop_accepting()
            listener.close()
        # Only the old workers have these sockets now, and what is queued there wants its answer.
        farewell = "drain" if abandoned else "retire"
        self._current = generation
        self.paused = False
        self._setbacks.forgive()
        self.slow_before += self._limits.slow
        self._limits = self._limits_of(generation.workplace.settings)
        for worker in self._workers.values():
            if worker.generation != generation.number and worker.state is not WorkerState.LEAVING:
                worker.reason, worker.farewell = RELOAD, farewell

    def _generation_of(self, template: TemplateHandle) -> Generation:
        candidate = self.replacement.candidate
        return candidate if candidate and candidate.template is template else self._current

    # -- ending ----------------------------------------------------------------------------------

    def drain(self) -> None:
        """Let nobody new in; every worker answers what is queued, then leaves."""
        self._serving = False
        self._growth.attend(False)
        # First of all, so that nobody joins a queue that is not served any more.
        for listener in self.workplace.listeners:
            listener.stop_accepting()
        # A template stays until then: the last worker may die with connections left in the queue.
        listeners = self.workplace.listeners
        waits = bool(self._workers or self._growth.queued) and not all(one.lasting for one in listeners)
        self._queue_waits = self.was_ready and waits
        self.replacement.abandon("the pool is being stopped")
        self._dismiss_spare()
        if not self._current.can_spawn:
            self._current.dismiss_template()
        for worker in self.workers:
            self._drain_worker(worker)

    def _drain_worker(self, worker: WorkerHandle) -> None:
        worker.drains = worker.state is not WorkerState.LEAVING
        # The workers of a successor share the queue of idle connections with ours.
        succeeded = all(SUCCESSOR in listener.others for listener in self.workplace.listeners)
        worker.tell("retire" if succeeded else "drain")
        if worker.state is WorkerState.READY:
            worker.state = WorkerState.LEAVING
        elif self._current.without_template and not self.was_ready:
            worker.signal(signal.SIGTERM)  # still loading: nobody has been served yet

    def terminate(self) -> None:
        """Every child ends now, requests or not."""
        self._serving = self._queue_waits = False
        self._growth.attend(False)
        for listener in self.workplace.listeners:
            listener.stop_accepting()
        self.replacement.abandon("the pool is being stopped")
        self._current.dismiss_template()
        for worker in self._workers.values():
            self.terminate_worker(worker)

    def terminate_worker(self, worker: WorkerHandle) -> None:
        worker.tell("terminate")
        worker.signal(signal.SIGTERM)
        worker.state = WorkerState.LEAVING
        worker.kill_at = time.monotonic() + KILL_AFTER

    def kill(self) -> None:
        """What is left is killed."""
        for worker in self._workers.values():
            worker.signal(signal.SIGKILL)
        for pid in self._templates:
            send_signal(pid, signal.SIGKILL)

    def reopen(self) -> None:
        """Tell every child to open its log files again; those of trac-spawn, it is given."""
        access = self.workplace.access
        files = {"log": own_log_file()}
        if access is not None:
            access.reopen()
            files["access"] = access.descriptor
        given = {name: descriptor for name, descriptor in files.items() if descriptor is not None}
        order = {"command": "reopen", "files": list(given)}
        workers, templates = self._workers.values(), self._templates.values()
        for channel in [worker.channel for worker in workers] + [one.channel for one in templates]:
            channel.send(order, list(given.values()))

    # -- time ------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """When check_clock() is due, on the monotonic clock; infinity when nothing is."""
        limits = self._limits.next_deadline(self._workers.values(), self._templates.values())
        deadline = min(limits, self._growth.next_deadline(), self.replacement.next_deadline())
        delay = self._setbacks.remaining()
        if self._serving and delay:
            deadline = min(deadline, time.monotonic() + delay)
        if self._may_fork_ahead:
            deadline = min(deadline, self.spare.due)
        return deadline

    def check_clock(self) -> None:
        """Act on children that are over a limit of time or memory."""
        self._limits.check(list(self._workers.values()), self._templates.values())
        self._growth.check(self._counted, self._templates.values())

    def _retire_now(self, worker: WorkerHandle, reason: str) -> None:
        """No longer part of the capacity: its replacement does not wait for it."""
        self._count_recycled(worker, reason)
        worker.reason, worker.state = reason, WorkerState.LEAVING
        # One that does not listen now may do so later.
        worker.tell(worker.farewell)

    def _limits_of(self, settings: Settings) -> Limits:
        return Limits(settings, self._retire_now, self.terminate_worker, self.slow_log.append)

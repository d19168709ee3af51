"""What the children of one pool inherit from the master, and how a template or a worker moves in."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import Iterator, Mapping, Optional, Sequence

from setproctitle import setproctitle

from spawner import admission, logs, privileges
from spawner.accessfile import AccessFile
from spawner.ceilings import ceilings
from spawner.history import History
from spawner.inheritance import Inheritance
from spawner.listeners import Access, Listener, open_listener
from spawner.privileges import Identity
from spawner.settings import Settings
from workers import application
from workers.accesslog import take_files
from workers.application import Application, ApplicationSpec
from workers.channel import Channel, Message
from workers.connection import Ceilings
from workers.errors import BootError
from workers.handoff import Handoff
from workers.logs import reopen_log_files
from workers.peers import PeerRules
from workers.recycling import RecyclingLimits
from workers.scoreboard import Scoreboard, Slot
from workers.snapshot import PoolGauge
from workers.statuspages import Page, Pages, ping_page, status_page
from workers.worker import Worker, WorkerConfig

#: What --clear-env leaves: where programs are found, and who this is.
KEPT_VARIABLES = {"PATH", "HOME", "USER", "LOGNAME"}
#: SIGTTIN may add workers beyond --workers; memory of a slot that nobody uses is never touched.
SCOREBOARD_SLOTS = 4096


def open_workplace(
    settings: Settings, label: str, inherited: Inheritance, before: Optional[Workplace] = None
) -> Workplace:
    """Resolve the user and listen for a pool; what is inherited, or what ``before``, the same pool
    as it was, listens on already is taken up. Raises BootError, and then nothing has been opened."""
    identity = privileges.resolve(settings.user, settings.group)
    access = Access(settings.socket_mode, settings.socket_user, settings.socket_group)
    peers = admission.rules(settings)
    kept = dict(inherited.listeners)
    if before is not None:
        kept.update({listener.asked: listener for listener in before.listeners})
    listeners: list[Listener] = []
    try:
        for address in inherited.addresses(settings):
            listener = kept.get(address) or open_listener(address, settings.backlog, access)
            listeners.append(listener)
        if not listeners:
            raise BootError(f"the pool {settings.name} has nowhere to listen", os.EX_USAGE)
        admission.check_listeners(settings, listeners)
        access_file = _open_access_file(settings, before)
    except BootError:
        for listener in listeners:
            if listener.asked not in kept:
                listener.close()
        raise
    for listener in listeners:
        inherited.listeners.pop(listener.asked, None)
    if before is not None:
        return replace(
            before,
            settings=settings,
            identity=identity,
            listeners=listeners,
            access=access_file,
            label=label,
            peers=peers,
        )
    scoreboard = Scoreboard(SCOREBOARD_SLOTS)
    scoreboard.note(PoolGauge.STARTED, time.time_ns())
    handoff = inherited.take_handoff(settings) or Handoff()
    return Workplace(
        settings, identity, listeners, handoff, scoreboard, History(), os.getpid(),
        peers, access_file, label,
    )  # fmt: skip


def _open_access_file(settings: Settings, before: Optional[Workplace]) -> Optional[AccessFile]:
    target = settings.access_log
    if target is None:
        return None
    if before is not None and before.access is not None and before.access.target == target:
        return before.access
    return AccessFile(target)


@dataclass(frozen=True)
class Workplace:
    """Everything here is shared over fork; nothing of it belongs to one child alone."""

    settings: Settings
    identity: Identity
    listeners: Sequence[Listener]
    handoff: Handoff
    scoreboard: Scoreboard
    history: History
    master_pid: int
    peers: PeerRules
    #: Where the access log goes.
    access: Optional[AccessFile] = None
    #: Before "worker 3" in titles and the log: the pool's name, where there are several.
    label: str = ""

    def leave_access_file(self, kept: Workplace) -> None:
        """In the master, of two generations this one is left behind: close its own access log."""
        if self.access is not None and self.access is not kept.access:
            self.access.close()

    def drop_privileges(self) -> None:
        """Before any application code runs. Raises BootError."""
        settings = self.settings
        if settings.clear_env:
            for name in set(os.environ) - KEPT_VARIABLES:
                del os.environ[name]
        privileges.drop(
            self.identity,
            settings.chroot,
            settings.chdir,
            settings.umask,
            core_dumps=settings.rlimit_core is not None,
        )
        os.environ.update(settings.environment)
        time.tzset()
        if settings.max_memory and not os.path.exists("/proc/self/statm"):
            raise BootError(
                "--max-memory: there is no /proc behind --chroot, which tells how much memory a"
                " worker has; mount one there, or leave out --max-memory",
                os.EX_CONFIG,
            )

    def load(self) -> Application:
        """The application, without what warming() adds. Raises BootError."""
        settings = self.settings
        return application.load(
            ApplicationSpec(
                env=settings.env,
                env_parent_dir=settings.env_parent_dir,
                env_index_template=settings.env_index_template,
                base_url=settings.base_url,
                template_vars=settings.template_vars,
                app=settings.app,
                script_name=settings.script_name,
                trust_remote_user=settings.trust_remote_user,
                env_from_params=settings.env_from_params,
                static_files=settings.static_files,
                accelerate=settings.accelerate,
            )
        )

    def warming(self, loaded: Application) -> Iterator[None]:
        """Fill its caches, step by step. Raises BootError."""
        return loaded.warming(self.settings.warmup, self.settings.warmup_strict)

    @property
    def serves_cold(self) -> bool:
        """Whether the first workers need not wait for the warm-up. Pages of --warmup are requested
        "before visitors do", and an application of --app has nothing else to be warmed up."""
        return self.settings.app is None and not self.settings.warmup

    def reopen(self, message: Message, descriptors: Sequence[int]) -> None:
        """In a process that forks, or has not begun to work: as the master says, log to its new files."""
        reopen_log_files()
        log_of_workers = None if self.access is None else self.access.writer(self.settings)
        take_files(dict(zip(message["files"], descriptors)), log_of_workers)

    def stand_by(self, generation: int, channel: Channel) -> int:
        """Be a spare worker until the master has a number for it; 0 when it has no use for it any more."""
        setproctitle(f"trac-spawn: {self.label}spare gen {generation}")
        while True:
            message, descriptors = channel.receive()
            if message is None:
                return 0
            if message["command"] == "reopen":
                self.reopen(message, descriptors)
            else:
                number: int = message.get("number", 0)
                return number

    def work(
        self,
        loaded: Application,
        number: int,
        generation: int,
        channel: Channel,
        extras: Mapping[str, int],
    ) -> None:
        """Be a worker until told to leave. The calling process is a child of the master.

        ``extras``, which the master may give: where to write "stacks" to, and all "output".
        """
        if "output" in extras:
            logs.lead_output_to(extras["output"])
        settings = self.settings
        slot = self.scoreboard.slot(number)
        config = WorkerConfig(
            Ceilings(settings.max_body, settings.receive_timeout, settings.keep_alive_timeout),
            RecyclingLimits(
                settings.max_requests,
                settings.max_requests_jitter,
                settings.max_memory,
                settings.max_age,
            ),
            self.peers,
            settings.request_timeout,
            extras.get("stacks", -1),
            self._pages(slot),
            settings.gc_freezes,
            access_log=None if self.access is None else self.access.writer(settings),
            wsgi_errors=settings.wsgi_errors,
            pool=settings.name,
            number=number,
        )
        slot.occupy(os.getpid(), generation, time.time_ns())
        Worker(
            loaded,
            [listener.socket for listener in self.listeners],
            config,
            slot=slot,
            name=f"{self.label}worker {number} gen {generation}",
            channel=channel,
            handoff=self.handoff,
        ).run()

    def _pages(self, slot: Slot) -> Pages:
        settings = self.settings
        pages: dict[str, Page] = {}
        if settings.status_path is not None:
            pages[settings.status_path] = status_page(
                self.scoreboard, settings.name, settings.pm, ceilings(settings), slot.show_peak
            )
        if settings.ping_path is not None:
            pages[settings.ping_path] = ping_page(settings.ping_response)
        return Pages(pages)

    def wait_for_adoption(self, parent: int) -> bool:
        """In a process that was forked by ``parent`` to be adopted: True once the master has it.

        False when it has fallen to somebody else, because the master is gone.
        """
        while os.getppid() == parent:
            time.sleep(0)  # the parent is about to exit: it does nothing else
        return os.getppid() == self.master_pid

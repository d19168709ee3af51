"""What the children of one pool inherit from the master, and how a template or a worker moves in."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Sequence

from spawner import privileges
from spawner.listeners import Listener
from spawner.privileges import Identity
from spawner.settings import Settings
from workers import application, prctl
from workers.application import Application, ApplicationSpec
from workers.channel import Channel
from workers.connection import Ceilings
from workers.errors import BootError
from workers.handoff import Handoff
from workers.recycling import RecyclingLimits
from workers.scoreboard import Scoreboard
from workers.worker import Worker, WorkerConfig, web_servers_from_environment


@dataclass(frozen=True)
class Workplace:
    """Everything here is shared over fork; nothing of it belongs to one child alone."""

    settings: Settings
    identity: Identity
    listeners: Sequence[Listener]
    handoff: Handoff
    scoreboard: Scoreboard
    master_pid: int

    def drop_privileges(self) -> None:
        """Before any application code runs. Raises BootError."""
        settings = self.settings
        privileges.drop(
            self.identity,
            settings.chroot,
            settings.chdir,
            settings.umask,
            core_dumps=settings.rlimit_core is not None,
        )
        if settings.max_memory and not os.path.exists("/proc/self/statm"):
            raise BootError(
                "--max-memory: there is no /proc behind --chroot, which tells how much memory a"
                " worker has; mount one there, or leave out --max-memory",
                os.EX_CONFIG,
            )

    def load(self) -> Application:
        """The application, its caches filled. Raises BootError."""
        settings = self.settings
        loaded = application.load(
            ApplicationSpec(
                env=settings.env,
                env_parent_dir=settings.env_parent_dir,
                env_index_template=settings.env_index_template,
                base_url=settings.base_url,
                template_vars=settings.template_vars,
                app=settings.app,
            )
        )
        loaded.warm_up()
        return loaded

    def work(self, loaded: Application, number: int, generation: int, channel: Channel) -> None:
        """Be a worker until told to leave. The calling process is a child of the master."""
        prctl.die_with_parent(signal.SIGTERM)
        settings = self.settings
        config = WorkerConfig(
            Ceilings(settings.max_body, settings.receive_timeout, settings.keep_alive_timeout),
            RecyclingLimits(
                settings.max_requests,
                settings.max_requests_jitter,
                settings.max_memory,
                settings.max_age,
            ),
            web_servers_from_environment(),
        )
        Worker(
            loaded,
            [listener.socket for listener in self.listeners],
            config,
            slot=self.scoreboard.slot(number),
            name=f"worker {number} gen {generation}",
            channel=channel,
            handoff=self.handoff,
        ).run()

    def wait_for_adoption(self, parent: int) -> bool:
        """In a process that was forked by ``parent`` to be adopted: True once the master has it.

        False when it has fallen to somebody else, because the master is gone.
        """
        while os.getppid() == parent:
            time.sleep(0)  # the parent is about to exit: it does nothing else
        return os.getppid() == self.master_pid

"""How a master comes to be: by the command, by systemd, or by the master whose place it takes."""

from __future__ import annotations

import atexit
import logging
import os
from typing import Optional

from spawner import activation, logs, merging, privileges, signals, systemd
from spawner.configuration import Configuration
from spawner.daemon import daemonize
from spawner.master import Master, Origin
from spawner.predecessor import Predecessor
from spawner.settings import Settings
from spawner.upgrade import Program
from workers.errors import BootError

log = logging.getLogger("trac-spawn")


def run(
    configuration: Configuration, program: Program = (), predecessor: Optional[Predecessor] = None
) -> int:
    """Be the master until told to stop; the exit status. ``program`` is what an upgrade starts.

    Raises BootError when no pool can start. With --daemonize the calling process does not return:
    it ends once the pools are ready, or have failed, with a status that says which.
    """
    origin = Origin(program, predecessor)
    if predecessor is not None:
        origin.inheritance = predecessor.inherit()
    else:
        # Before a fork: they are for the process that was started, by its number.
        handed = systemd.listen_fds()
        origin.inheritance = activation.sort_out(handed, configuration.pools)
        if configuration.master.daemonize:
            origin.launcher = daemonize()
    try:
        return _run(configuration, origin)
    except BootError as error:
        if origin.launcher is not None:
            # At the very end: the starting process must not leave before the message is out.
            atexit.register(origin.launcher.failed, error.exit_code)
        raise


def _run(configuration: Configuration, origin: Origin) -> int:
    settings = configuration.master
    logs.configure(settings)
    for pool in configuration.pools:
        _warn_of_root(pool)
    if any(pool.ksm for pool in configuration.pools):
        merging.warn()
    privileges.set_rlimits(settings.rlimit_files, settings.rlimit_core)
    # From here on there is something to leave behind: a signal waits until the master watches.
    signals.block()
    master = Master(configuration, origin)
    try:
        return master.run()
    finally:
        master.close()


def _warn_of_root(pool: Settings) -> None:
    if os.geteuid() == 0 and pool.user is None:
        log.warning("running as root: the application can do anything here; use --user")

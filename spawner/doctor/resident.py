"""Where the application lives: a child process that has become what a worker of the pool is."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from spawner import privileges
from spawner.doctor.account import current_account
from spawner.doctor.apart import apart
from spawner.doctor.site import pool_user
from spawner.settings import Settings
from spawner.workplace import KEPT_VARIABLES

#: Importing Trac with many plugins takes a while on a slow machine.
PATIENCE = 60.0


def as_worker(pool: Settings, work: Callable[[], Any]) -> Any:
    """What ``work`` returns there. Raises Failed; PermissionError when we may not become that user."""
    if os.geteuid() != 0 and (pool.chroot or pool_user(pool).uid != current_account().uid):
        raise PermissionError(errno.EPERM, "only root can look as the user of the pool", pool_user(pool).name)
    identity = privileges.resolve(pool.user, pool.group)

    def become() -> None:
        if pool.clear_env:
            for name in set(os.environ) - KEPT_VARIABLES:
                del os.environ[name]
        privileges.drop(identity, pool.chroot, pool.chdir, pool.umask)
        os.environ.update(pool.environment)

    return apart(work, become, PATIENCE)

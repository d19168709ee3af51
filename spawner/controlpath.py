"""Where the control socket is."""

from __future__ import annotations

import os
from typing import Optional

from spawner.settings import Settings

_NAME = "trac-spawn.ctl"


def default_control_path(settings: Settings) -> Optional[str]:
    """Where it is when nobody says: beside the pid file, else in the runtime folder.

    None when there is no such folder. Not /tmp then: there, anybody could take the name first.
    """
    return runtime_path() if settings.pidfile is None else beside(settings.pidfile)


def beside(pidfile: str) -> str:
    """/run/trac.ctl for /run/trac.pid."""
    return os.path.splitext(os.path.abspath(pidfile))[0] + ".ctl"


def runtime_path() -> Optional[str]:
    """Of a master without a pid file that runs as the calling user."""
    user = os.geteuid()
    if user == 0:
        return f"/run/{_NAME}"
    # Not set for what cron or an init script starts, though the folder may be there.
    folder = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    try:
        ours = os.stat(folder).st_uid == user
    except OSError:
        return None
    return os.path.join(folder, _NAME) if ours else None

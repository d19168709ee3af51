"""What the system allows: open files and the queue of connections."""

from __future__ import annotations

from typing import Optional

from spawner.doctor.finding import Findings, warning
from spawner.doctor.site import Site
from spawner.settings import Settings
from spawner.values import UNLIMITED
from workers.connections import DESCRIPTORS_PER_CONNECTION

SOMAXCONN = "/proc/sys/net/core/somaxconn"
#: nginx keeps as many open to one pool when it is told "keepalive 100".
FEWEST_CONNECTIONS = 100


def examine_limits(pool: Settings, site: Site) -> Findings:
    yield from judge_files(_open_files(pool, site.master_pid))
    running = site.running(pool)
    queues = [] if running is None else [one["listen_queue"]["limit"] for one in running["addresses"]]
    known = [limit for limit in queues if limit is not None]
    yield from judge_backlog(pool.backlog, min(known) if known else read_somaxconn())


def _open_files(pool: Settings, master: Optional[int]) -> Optional[int]:
    """The soft limit of the workers; None when nobody can know it."""
    if pool.rlimit_files is not None:
        return pool.rlimit_files
    if master is None:
        return None
    try:
        with open(f"/proc/{master}/limits", encoding="ascii") as file:
            return parse_open_files(file.read())
    except OSError:
        return None


def parse_open_files(limits: str) -> Optional[int]:
    """The soft limit out of /proc/PID/limits, proc(5)."""
    for line in limits.splitlines():
        if line.startswith("Max open files"):
            soft = line.split()[3]
            return UNLIMITED if soft == "unlimited" else int(soft)
    return None


def read_somaxconn() -> Optional[int]:
    try:
        with open(SOMAXCONN, encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return None


def judge_files(soft: Optional[int]) -> Findings:
    needed = FEWEST_CONNECTIONS * DESCRIPTORS_PER_CONNECTION
    if soft is None or soft == UNLIMITED or soft >= needed:
        return
    yield warning(
        "limit-files",
        f"a worker may have only {soft} open files",
        f"It reckons with {DESCRIPTORS_PER_CONNECTION} for each connection, so it holds no more than "
        f"{max(soft // DESCRIPTORS_PER_CONNECTION, 1)} at a time; the others wait.",
        "--rlimit-files 4096 (LimitNOFILE=4096 in a systemd unit)",
    )


def judge_backlog(wanted: int, limit: Optional[int]) -> Findings:
    if limit is None or limit >= wanted:
        return
    yield warning(
        "limit-backlog",
        f"--backlog asks for {wanted} waiting connections, and the kernel grants {limit}",
        "In a burst of visitors the web server is refused, and shows them a 502 or 503.",
        f"sysctl -w net.core.somaxconn={wanted}, in /etc/sysctl.d/ for the next start of the machine; "
        "then start trac-spawn again",
    )

"""The kind of file system that a file is on, out of /proc/self/mountinfo, proc(5)."""

from __future__ import annotations

import os
import re
from typing import Optional

MOUNTS = "/proc/self/mountinfo"
#: Where locks of one machine may mean nothing to another, and mapped memory is not shared.
NETWORK = frozenset(
    ("9p", "afs", "ceph", "cifs", "davfs", "fuse.ceph", "fuse.davfs2", "fuse.glusterfs", "fuse.s3fs",
     "fuse.sshfs", "gfs2", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs")
)  # fmt: skip


def network_kind(path: str) -> Optional[str]:
    """Such as "nfs4"; None for a local one, and when nobody can know."""
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            kind = kind_of(os.path.realpath(path), file.read())
    except OSError:
        return None
    return kind if kind in NETWORK else None


def kind_of(path: str, mounts: str) -> Optional[str]:
    """``path`` has no symbolic links in it. Of two mounts on one place the later one counts."""
    best, kind = "", None
    for line in mounts.splitlines():
        # id parent device root place options [optional...] - kind source options
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if not separator or len(fields) < 5:
            continue
        place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        inside = path == place or path.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(best):
            best, kind = place, after.split(" ")[0]
    return kind

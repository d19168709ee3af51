"""The web servers that run on this machine: as whom, and what they see of its files."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from typing import List, Optional, Sequence

import psutil

from spawner.doctor.account import Account, account_of

NAMES = ("lighttpd", "nginx", "apache2", "httpd", "caddy", "haproxy")
#: What Debian and its heirs, Red Hat, Arch, and the packages of nginx and Caddy call them.
USERS = ("www-data", "http", "apache", "nginx", "caddy", "haproxy", "lighttpd")


@dataclass(frozen=True)
class WebServer:
    """One running process. ``root`` leads to its file system, as far as we may look."""

    name: str
    pid: int
    uid: int

    @property
    def root(self) -> str:
        return f"/proc/{self.pid}/root"

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def running_web_servers() -> List[WebServer]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() in NAMES:
                found.append(WebServer(process.name(), process.pid, process.uids().effective))
        except psutil.Error:
            continue  # it has ended, or is hidden from us
    return found


def likely_user(servers: Sequence[WebServer]) -> Optional[Account]:
    """The user that web servers run as: of one that runs now, or of the usual names one that there
    is; None when there is none."""
    for server in servers:
        if server.uid != 0:
            try:
                return account_of(pwd.getpwuid(server.uid).pw_name)
            except KeyError:
                continue
    for name in USERS:
        try:
            return account_of(pwd.getpwnam(name).pw_name)
        except KeyError:
            continue
    return None


def cannot_see(path: str, servers: Sequence[WebServer], root: str = "/") -> Optional[WebServer]:
    """A web server of this machine for which another file, or none, has the name ``path``.

    That of a container has another root; it is not meant here. Raises OSError when ``path`` is not
    there for us either.
    """
    ours = os.stat(path)
    for server in servers:
        try:
            if not os.path.samestat(os.stat(f"{server.root}/"), os.stat(root)):
                continue
        except OSError:
            continue  # it has ended, or we may not look
        try:
            if not os.path.samestat(os.stat(server.root + path), ours):
                return server
        except FileNotFoundError:
            return server
        except OSError:
            continue
    return None

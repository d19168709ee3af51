"""The sockets that web servers connect to: opening, adopting, and letting go."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn, Optional, Union

from spawner import holders
from spawner.addresses import Address, parse_address
from spawner.privileges import find_group, find_user
from workers.errors import BootError

__all__ = ["Access", "Address", "Listener", "open_listener", "parse_address"]

_SOMAXCONN = "/proc/sys/net/core/somaxconn"
_LOW_PORTS = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
# Whoever starts at the same moment holds the lock for as long as examine() takes, and no longer.
_LOCK_TIME = holders.ORPHAN_TIME + 3.0
_POLL = 0.02

_log = logging.getLogger("trac-spawn")


@dataclass(frozen=True)
class Access:
    """Who may connect to a Unix socket with a path; user and group by name or number."""

    mode: int = 0o660
    user: Optional[Union[str, int]] = None
    group: Optional[Union[str, int]] = None


class Listener:
    """A listening socket, non-blocking and close-on-exec. ``owned`` is False for one that
    somebody else opened and handed over: its name is not ours to remove.

    ``others`` says who else has it and sees to it that it is served when we have left, such as a
    successor or the service manager: then neither its name nor its queue is ended here.
    """

    def __init__(
        self,
        listening: socket.socket,
        address: Address,
        owned: bool,
        inode: tuple[int, int] | None = None,
    ) -> None:
        self.socket = listening
        self.address = address
        #: As it was asked for: with a port of 0, a name, or the number of a descriptor.
        self.asked = address
        self.owned = owned
        self.others: set[str] = set()
        self.inode = inode
        self._pid = os.getpid()

    @property
    def lasting(self) -> bool:
        """Whether it is served on when we have left."""
        return bool(self.others)

    def stop_accepting(self) -> None:
        """Let nobody new in; who is in the queue already is still to be accepted, by any process
        with the socket, until accept() says EAGAIN.

        TCP has no such state: what shutdown() does there is to reset the queue.
        """
        if self.lasting:
            return
        self._unlink()
        if self.owned and self.address.kind in ("unix", "abstract"):
            self.socket.shutdown(socket.SHUT_RD)

    def remember_name(self) -> None:
        """The file at its path is this socket: it is ours to remove."""
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(self.address.path, follow_symlinks=False)
            self.inode = (found.st_dev, found.st_ino)

    def claim(self, backlog: int) -> None:
        """Become the one whom SO_PEERCRED names as the listener, by which others see that the
        address is in use: a second listen(), which keeps the queue. Raises OSError."""
        if self.owned:
            self.socket.listen(backlog)

    def share(self, other: str) -> Listener:
        """The same socket, for ``other``, who sees to it from now on."""
        shared = Listener(self.socket.dup(), self.address, self.owned, self.inode)
        shared.asked, shared.others = self.asked, set(self.others)
        self.others.add(other)
        return shared

    def close(self) -> None:
        if not self.lasting:
            self._unlink()
        self.socket.close()

    def _unlink(self) -> None:
        # Not in a child that inherited this object, and not what somebody put in our place.
        if self.inode is None or os.getpid() != self._pid:
            return
        try:
            found = os.stat(self.address.path, follow_symlinks=False)
            if (found.st_dev, found.st_ino) == self.inode:
                os.unlink(self.address.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warning("cannot remove the socket %s: %s", self.address.path, error.strerror)
        self.inode = None


def open_listener(address: Address, backlog: int, access: Access) -> Listener:
    """Listen on ``address``, which on the result names the port that the kernel chose for 0.

    Call it in the process that stays (after daemonizing): that one owns the path. Raises
    BootError.
    """
    listener = _open(address, backlog, access)
    listener.asked = address
    return listener


def _open(address: Address, backlog: int, access: Access) -> Listener:
    if address.kind == "fd":
        return adopt_descriptor(address)
    _check_backlog(backlog)
    if address.kind == "unix":
        return _open_path(address, backlog, access)
    if address.kind == "abstract":
        return _open_abstract(address, backlog, access)
    return _open_tcp(address, backlog)


def _check_backlog(backlog: int) -> None:
    most = _read_number(_SOMAXCONN)
    if most is not None and backlog > most:
        _log.warning(
            "--backlog %d is cut to %d by the kernel; raise the sysctl net.core.somaxconn",
            backlog,
            most,
        )


def _read_number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return None  # a sandbox that hides the setting


def _open_path(address: Address, backlog: int, access: Access) -> Listener:
    uid, gid = _owners(access)
    listening = _new_socket(socket.AF_UNIX)
    try:
        with _start_lock(address.path):
            _clear_the_way(address.path)
            inode = _bind_private(listening, address.path)
            listener = Listener(listening, address, True, inode)
            try:
                _grant(address.path, inode, uid, gid, access.mode)
                # Last: up to here nobody can connect, whatever the mode says.
                listening.listen(backlog)
            except (BootError, OSError):
                listener.close()
                raise
            return listener
    except OSError as error:
        listening.close()
        _cannot_open(address, error)
    except BootError:
        listening.close()
        raise


def _new_socket(family: int) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setblocking(False)
    return listening


def _owners(access: Access) -> tuple[int, int]:
    uid = -1 if access.user is None else find_user(str(access.user), "--socket-user")
    gid = -1 if access.group is None else find_group(str(access.group), "--socket-group")
    return uid, gid


@contextlib.contextmanager
def _start_lock(path: str) -> Iterator[None]:
    """One starter at a time between looking at ``path`` and listening there.

    A file of our own beside the path, not the folder itself: anybody who can read a folder can
    lock it, but only who may write there, and so could take the path as well, gets in our way
    here. It is gone afterwards; a lock on a removed file counts for nothing, hence the loop.
    """
    folder, name = os.path.split(path)
    lock = os.path.join(folder, f".{name}.lock")
    deadline = time.monotonic() + _LOCK_TIME
    while True:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(lock, follow_symlinks=False)):
                break
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(fd)
        if time.monotonic() > deadline:
            raise BootError(
                f"{path}: somebody else has been starting there for {_LOCK_TIME:.0f} seconds and "
                f"holds {lock}",
                os.EX_TEMPFAIL,
            )
        time.sleep(_POLL)
    try:
        yield
    finally:
        os.unlink(lock)
        os.close(fd)


def _clear_the_way(path: str) -> None:
    """Remove a stale socket; refuse anything else. Raises BootError, OSError."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise BootError(
            f"{path} is there and is not a socket; it is left as it is: remove it, or choose "
            "another --socket",
            os.EX_CANTCREAT,
        )
    try:
        verdict = holders.examine(path, found.st_ctime)
    except PermissionError as error:
        raise BootError(
            f"{path} is a socket that we may not connect to, so it may be in use",
            os.EX_NOPERM,
        ) from error
    if verdict.live:
        _in_use(path, verdict.why)
    # Who takes no lock may have replaced it while we looked.
    if os.path.samestat(found, os.stat(path, follow_symlinks=False)):
        os.unlink(path)


def _in_use(where: str, why: str) -> NoReturn:
    raise BootError(
        f"{where} is in use: {why}; stop that first or choose another address", os.EX_UNAVAILABLE
    )


def _bind_private(listening: socket.socket, path: str) -> tuple[int, int]:
    """Bind so that the file is there with mode 0; device and inode tell it from others.

    The final name at once: getsockname() and /proc/net/unix show the name of bind() for ever.
    """
    umask = os.umask(0o777)
    try:
        listening.bind(path)
    finally:
        os.umask(umask)
    made = os.stat(path, follow_symlinks=False)
    return made.st_dev, made.st_ino


def _grant(path: str, inode: tuple[int, int], uid: int, gid: int, mode: int) -> None:
    # Through a descriptor: whoever may write to the folder could put a link in our place, and
    # root would change the owner of what it points to.
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        made = os.fstat(fd)
        ours = made.st_uid == os.geteuid() and stat.S_IMODE(made.st_mode) == 0
        if not (stat.S_ISSOCK(made.st_mode) and ours and (made.st_dev, made.st_ino) == inode):
            raise BootError(f"{path} was replaced while it was being made", os.EX_UNAVAILABLE)
        proc = f"/proc/self/fd/{fd}"
        if (uid, gid) != (-1, -1):
            try:
                os.chown(proc, uid, gid)
            except PermissionError as error:
                raise BootError(
                    f"{path}: only root may give it to another user or to a group it is not in; "
                    "start as root or leave out --socket-user and --socket-group",
                    os.EX_NOPERM,
                ) from error
        # The owner first: with the mode first, a moment would be open to the wrong people.
        os.chmod(proc, mode)
    finally:
        os.close(fd)


def _open_abstract(address: Address, backlog: int, access: Access) -> Listener:
    _owners(access)
    _log.warning(
        "every user of this machine can connect to %s: an abstract socket has no mode, user or "
        "group",
        address,
    )
    listening = _new_socket(socket.AF_UNIX)
    shown = f"@{address.path}"
    deadline = time.monotonic() + holders.ORPHAN_TIME
    while True:
        try:
            listening.bind(b"\0" + os.fsencode(address.path))
            listening.listen(backlog)
            return Listener(listening, address, True)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                listening.close()
                _cannot_open(address, error)
        # No file, so no time since when: whoever has the process number counts.
        verdict = holders.examine(shown, float("inf"))
        if verdict.live or time.monotonic() > deadline:
            listening.close()
            _in_use(str(address), verdict.why or "its last processes are still ending")
        time.sleep(_POLL)


def _open_tcp(address: Address, backlog: int) -> Listener:
    family, target = resolve(address)
    # A killed master's workers hold the port until they leave.
    deadline = time.monotonic() + holders.ORPHAN_TIME
    while True:
        listening = _new_socket(family)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # Or [::]:port would take the IPv4 port as well, behind the administrator's back.
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Two that start at once both pass bind(); listen() then refuses the second.
            listening.bind(target)
            listening.listen(backlog)
            break
        except OSError as error:
            listening.close()
            if error.errno != errno.EADDRINUSE:
                _cannot_open(address, error)
        if time.monotonic() > deadline:
            who = holders.describe_all(holders.tcp_listeners(address.port))
            _in_use(str(address), f"{who} listens there")
        time.sleep(_POLL)
    host, port = listening.getsockname()[:2]
    kind = "inet6" if family == socket.AF_INET6 else "inet"
    return Listener(listening, Address(kind, host=host, port=port), True)


def resolve(address: Address) -> tuple[int, tuple[object, ...]]:
    """The family and the socket address of a TCP address. Raises BootError."""
    family = socket.AF_INET6 if address.kind == "inet6" else socket.AF_UNSPEC
    try:
        found = socket.getaddrinfo(
            address.host,
            address.port,
            family,
            socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except (OSError, UnicodeError) as error:
        # UnicodeError: what IDNA makes of a label that is empty or too long.
        why = getattr(error, "strerror", None) or "not a host name"
        raise BootError(f"{address}: cannot resolve the host: {why}", os.EX_NOHOST) from error
    # Without brackets people mean IPv4; a name that has only IPv6 is taken at that.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return found[0][0], found[0][4]


def adopt_descriptor(address: Address) -> Listener:
    """Take over a listening socket that the parent opened. listen() is not called again: that
    would change the backlog that its owner chose, and the owner that SO_PEERCRED names."""
    fd = address.fd
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError as error:
        raise BootError(
            f"{address}: there is no open file descriptor {fd}; was it handed over?", os.EX_USAGE
        ) from error
    if not is_socket:
        raise BootError(f"{address}: file descriptor {fd} is not a socket", os.EX_USAGE)
    try:
        # Under a new number, because 0, 1 and 2 are where others look for the standard files.
        listening = socket.socket(fileno=fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))
        kind = listening.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        accepts = listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise BootError(f"{address}: {error.strerror}", os.EX_OSERR) from error
    if kind != socket.SOCK_STREAM or not accepts:
        listening.close()
        raise BootError(
            f"{address}: file descriptor {fd} is not a listening stream socket", os.EX_USAGE
        )
    _release(fd)
    listening.setblocking(False)
    return Listener(listening, address, False)


def _release(fd: int) -> None:
    if fd > 2:
        os.close(fd)
        return
    # Left closed, it would be the number of the next file that anybody opens.
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, fd)
    os.close(null)


def _cannot_open(address: Address, error: OSError) -> NoReturn:
    """Raise the BootError for a system call that failed."""
    status = os.EX_CANTCREAT
    folder = os.path.dirname(address.path)
    why = error.strerror or str(error)
    if address.kind == "unix":
        if error.errno == errno.ENOENT:
            why = f"there is no directory {folder}; make it first"
        elif error.errno == errno.ENOTDIR:
            why = f"{folder} is not a directory"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            why = f"{folder} does not let us create or replace files: {why}"
    elif error.errno == errno.EACCES:
        status = os.EX_NOPERM
        why = f"ports below {_read_number(_LOW_PORTS) or 1024} are for root; choose a higher one"
    elif error.errno == errno.EADDRNOTAVAIL:
        status = os.EX_UNAVAILABLE
        why = "this machine does not have that address"
    raise BootError(f"cannot listen on {address}: {why}", status) from error

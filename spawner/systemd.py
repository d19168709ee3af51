"""What a service and systemd say to each other: states, sockets, and sockets to keep.

After sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3) and systemd.service(5), without
libsystemd. Other supervisors and container engines (s6, podman) speak the same protocol.
"""

from __future__ import annotations

import array
import collections
import errno
import fcntl
import logging
import os
import re
import socket
import time
from typing import Callable, Deque, MutableMapping, NamedTuple, Optional, Sequence

from workers.errors import BootError

# sd_listen_fds(3): the first descriptor that is handed over.
SD_LISTEN_FDS_START = 3
# Its name when nobody gave it one.
UNKNOWN_NAME = "unknown"

# Messages that wait while the manager is too busy to take them. There are a handful in the life
# of a service; more than this were only status lines that nobody has read.
_MOST_WAITING = 16
_RETRY_TIME = 0.2
# Names of stored descriptors: sd_notify(3) says ASCII, no control characters, no colon, 255.
_FDNAME = re.compile(r"[ -9;-~]{1,255}")

_log = logging.getLogger("trac-spawn")


class _Message(NamedTuple):
    text: bytes
    fds: tuple[int, ...]


class Notifier:
    """Tells the service manager how the service is. Never waits and never raises because of the
    manager: without one, or when it has gone, every call does nothing.

    What a busy manager has no room for is kept, in order, until check_clock() gets it through.
    ``watchdog`` is the time in seconds within which the manager wants to hear of us, 0 for never;
    check_clock() sees to it twice as often.
    """

    def __init__(
        self,
        address: str = "",
        watchdog: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._watchdog = watchdog if address else 0.0
        self._clock = clock
        # At once: who takes another's place does not know when that one last gave a sign.
        self._next_sign = clock() if self._watchdog else float("inf")
        self._next_try = float("inf")
        self._waiting: Deque[_Message] = collections.deque()
        self._complained = False

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """As NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID say. They are removed, so that no
        child, and nothing that a plugin starts, speaks to the manager in our name."""
        address = environ.pop("NOTIFY_SOCKET", "")
        interval = environ.pop("WATCHDOG_USEC", "")
        whose = environ.pop("WATCHDOG_PID", "")
        if address and not address.startswith(("/", "@")):
            _log.warning("NOTIFY_SOCKET=%s is neither a path nor an abstract socket", address)
            address = ""
        # Without WATCHDOG_PID it is for whoever finds it, sd_watchdog_enabled(3).
        ours = whose in ("", str(os.getpid()))
        wanted = ours and re.fullmatch("[0-9]{1,18}", interval)
        return cls(address, int(interval) / 1_000_000 if wanted else 0.0)

    @property
    def active(self) -> bool:
        """Whether there is a manager to tell."""
        return bool(self._address)

    def environment(self) -> dict[str, str]:
        """The variables for a new program that shall take our place: without WATCHDOG_PID, for
        its process number is not ours."""
        variables = {}
        if self._address:
            variables["NOTIFY_SOCKET"] = self._address
        if self._watchdog:
            variables["WATCHDOG_USEC"] = str(round(self._watchdog * 1_000_000))
        return variables

    # -- states ----------------------------------------------------------------------------------

    def ready(self, status: str = "") -> None:
        """Start-up, or what reloading() began, has ended, well or not."""
        self._tell("READY=1", *_status(status))

    def reloading(self, status: str = "") -> None:
        """ready() must follow. With Type=notify-reload the manager that sent SIGHUP waits for
        this, and MONOTONIC_USEC tells it from one that was sent before the signal."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}", *_status(status))

    def stopping(self, status: str = "") -> None:
        self._tell("STOPPING=1", *_status(status))

    def status(self, text: str) -> None:
        """The line that ``systemctl status`` shows."""
        self._tell(*_status(text))

    def main_pid(self, pid: int) -> None:
        """Process ``pid`` is the service from now on. Said by the old one: with NotifyAccess=main
        nobody else is listened to, and from then on only the new one is."""
        self._tell(f"MAINPID={pid}")

    def barrier(self) -> Optional[int]:
        """A descriptor, the caller's to close, that becomes readable (end of file) when the
        manager has worked off all that was said before; None when that cannot be known.

        A process that says something and ends at once may not be recognised as part of the
        service any more when the manager reads it.
        """
        if not self._address or self._waiting:
            return None
        reading, writing = os.pipe()
        try:
            # The manager's copy becomes the only one; it closes it in its turn, BARRIER=1.
            sent = self._send(_Message(b"BARRIER=1", (writing,)))
        finally:
            os.close(writing)
        if sent:
            return reading
        os.close(reading)
        return None

    # -- descriptors to keep ---------------------------------------------------------------------

    def store(self, fds: Sequence[int], name: str) -> None:
        """Have the manager keep copies of ``fds``, at most 253, over a restart of the service:
        the next process gets them from listen_fds() under ``name``. Needs
        FileDescriptorStoreMax= in the unit. Storing the same open file again adds nothing.

        FDPOLL=0: else the manager drops a socket on which it sees a hang-up, as a listening one
        shows when it is shut down. Raises ValueError for a name that sd_notify(3) forbids.
        """
        self._tell("FDSTORE=1", f"FDNAME={_checked(name)}", "FDPOLL=0", fds=fds)

    def remove(self, name: str) -> None:
        """Let go of everything that is stored under ``name``. Raises ValueError as store()."""
        self._tell("FDSTOREREMOVE=1", f"FDNAME={_checked(name)}")

    # -- time ------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """When check_clock() is due, on the monotonic clock; infinity when nothing is."""
        return min(self._next_sign, self._next_try)

    def check_clock(self) -> None:
        """Send what waited, and the sign of life when it is due."""
        now = self._clock()
        if now >= self._next_try:
            self._send_waiting()
        if now >= self._next_sign:
            self._next_sign = now + self._watchdog / 2
            # One that waits says as much as two.
            if not self._waiting:
                self._tell("WATCHDOG=1")

    def forget(self) -> None:
        """In a child: say nothing from now on, and close the descriptors of what waits."""
        self._address = ""
        self._watchdog = 0.0
        self._next_sign = self._next_try = float("inf")
        while self._waiting:
            _close(self._waiting.popleft().fds)

    # -- the wire --------------------------------------------------------------------------------

    def _tell(self, *assignments: str, fds: Sequence[int] = ()) -> None:
        if not self._address:
            return
        message = _Message("\n".join(assignments).encode("utf-8", "replace"), tuple(fds))
        if not self._waiting and self._send(message):
            return
        if len(self._waiting) == _MOST_WAITING:
            _close(self._waiting.popleft().fds)
        try:
            # The caller may close its own before there is room.
            self._waiting.append(message._replace(fds=_copied(fds)))
        except OSError as error:
            self._complain(error)
        self._next_try = min(self._next_try, self._clock() + _RETRY_TIME)

    def _send_waiting(self) -> None:
        while self._waiting and self._send(self._waiting[0]):
            _close(self._waiting.popleft().fds)
        self._next_try = self._clock() + _RETRY_TIME if self._waiting else float("inf")

    def _send(self, message: _Message) -> bool:
        """False when there is no room now. What cannot be sent at all counts as sent.

        A socket for each message, as libsystemd does: a few system calls now and then, against
        one more descriptor that no child may have.
        """
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", message.fds))]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
                sock.sendmsg([message.text], rights if message.fds else [], flags, name)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                return False
            self._complain(error)
        return True

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            why = error.strerror or str(error)
            _log.warning("cannot tell the service manager at %s: %s", self._address, why)


def listen_fds(environ: MutableMapping[str, str] = os.environ) -> list[tuple[int, str]]:
    """The descriptors that were handed to this process by socket activation or from the
    descriptor store, with the names that they have there: sd_listen_fds_with_names(3).

    They are made close-on-exec, and the variables are removed, for they are for nobody else.
    Raises BootError when the variables do not fit what is there.
    """
    count = environ.pop("LISTEN_FDS", "")
    whose = environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "")
    environ.pop("LISTEN_PIDFDID", None)
    if not count or not whose:
        return []
    if whose != str(os.getpid()):
        # What started us was meant, and forked instead of making way by exec.
        _log.warning("LISTEN_FDS is for process %s, not for us, %d: ignored", whose, os.getpid())
        return []
    if not re.fullmatch("[0-9]{1,7}", count):
        raise BootError(f"LISTEN_FDS={count} is not a number of descriptors", os.EX_CONFIG)
    found = names.split(":") if names else []
    handed = []
    for index in range(int(count)):
        fd = SD_LISTEN_FDS_START + index
        try:
            os.set_inheritable(fd, False)
        except OSError as error:
            raise BootError(
                f"LISTEN_FDS={count}, but descriptor {fd} is not open; was it closed by what "
                "started us?",
                os.EX_OSFILE,
            ) from error
        handed.append((fd, found[index] if index < len(found) else UNKNOWN_NAME))
    return handed


def _status(text: str) -> list[str]:
    """A line break would begin the next assignment, and a NUL spoils the whole message."""
    return ["STATUS=" + " ".join(text.replace("\0", " ").splitlines())] if text else []


def _checked(name: str) -> str:
    if not _FDNAME.fullmatch(name):
        raise ValueError(f"not a name for a stored descriptor: {name!r}")
    return name


def _copied(fds: Sequence[int]) -> tuple[int, ...]:
    """Duplicates, close-on-exec. Raises OSError, and leaves none behind then."""
    copies: list[int] = []
    try:
        for fd in fds:
            copies.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0))
    except OSError:
        _close(copies)
        raise
    return tuple(copies)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)

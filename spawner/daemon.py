"""Into the background, and the pid file."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import sys
import tempfile
from typing import NoReturn

from spawner import holders
from workers.errors import BootError


class Launcher:
    """The daemon's line to the process that the shell or the init script waits for.

    The first ready() or failed() counts, later ones find nobody waiting. A child that the daemon
    forks before that calls forget(): an open copy would hide the daemon's death from the waiting
    process. Print what went wrong before failed(), or it comes after the prompt.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def ready(self) -> None:
        """The waiting process exits with 0; stdout and stderr are /dev/null from here on."""
        if self._fd < 0:
            return
        detach_output()
        self._report(os.EX_OK)

    def failed(self, status: int) -> None:
        """The waiting process exits with ``status``, 1 to 255; ending is the daemon's own part."""
        if not 1 <= status <= 255:
            raise ValueError(f"not a status of failure: {status}")
        self._report(status)

    def forget(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _report(self, status: int) -> None:
        if self._fd < 0:
            return
        try:
            os.write(self._fd, bytes([status]))
        except BrokenPipeError:
            pass  # interrupted by its user or timed out by its init script; the daemon goes on
        self.forget()


def daemonize() -> Launcher:
    """Go on as a daemon: own session, no terminal, stdin from /dev/null. stderr stays until
    Launcher.ready(), so that errors at start-up are seen. The original process never returns: it
    ends with the status that the daemon reports, EX_SOFTWARE when it dies without a word.

    Call it before anything is opened that belongs to one process: listening sockets (their
    SO_PEERCRED names the process that called listen()), the pid file, signal handlers. The
    working directory and umask stay. Raises BootError when it cannot fork.
    """
    # What is still buffered would be written by each copy of the process.
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    # Ctrl-C ends the waiting without a traceback; the daemon, in its own session, starts on.
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        child = os.fork()
    except OSError as error:
        raise BootError(f"cannot fork: {error.strerror}", os.EX_OSERR) from error
    if child:
        os.close(writing)
        _wait_for_word(child, reading)
    os.close(reading)
    # A leader of a session gets a terminal back by merely opening one; its child cannot.
    os.setsid()
    signal.signal(signal.SIGINT, interrupt)
    launcher = Launcher(writing)
    try:
        grandchild = os.fork()
    except OSError as error:
        _say(f"cannot fork: {error.strerror}")
        launcher.failed(os.EX_OSERR)
        os._exit(os.EX_OSERR)
    if grandchild:
        os._exit(os.EX_OK)
    _detach_stdin()
    return launcher


def detach_output() -> None:
    """stdout and stderr become /dev/null, in each process of a daemon: whoever reads them to their
    end, as ssh or a shell's $(...) does, would wait for as long as one has them open."""
    sys.stdout.flush()
    sys.stderr.flush()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def _wait_for_word(child: int, reading: int) -> NoReturn:
    os.waitpid(child, 0)
    word = os.read(reading, 1)
    if not word:
        _say("the daemon ended before it was ready and did not say why; look into its log")
    # _exit: atexit handlers and open files belong to the daemon now.
    os._exit(word[0] if word else os.EX_SOFTWARE)


def _say(message: str) -> None:
    print(f"trac-spawn: {message}", file=sys.stderr, flush=True)


def _detach_stdin() -> None:
    # A socket on descriptor 0 may be the one to listen on (--listen fd://0).
    try:
        if stat.S_ISSOCK(os.fstat(0).st_mode):
            return
    except OSError:
        pass  # closed: then it must become something, or the next open() takes its number
    null = os.open(os.devnull, os.O_RDONLY)
    if null != 0:
        os.dup2(null, 0)
        os.close(null)
    os.set_inheritable(0, True)


class PidFile:
    """A file with 'PID\\n', locked as long as this process lives.

    It appears at once complete and locked: written under another name, then linked or renamed.
    Raises BootError when another live process holds it or the file cannot be made; that process
    may be ``predecessor`` when it has called release().
    """

    def __init__(self, path: str, predecessor: int = 0) -> None:
        self.path = os.path.abspath(path)
        self._pid = os.getpid()
        self._predecessor = predecessor
        folder, name = os.path.split(self.path)
        try:
            self._fd, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        except OSError as error:
            self._cannot(error)
        try:
            os.fchmod(self._fd, 0o644)
            os.write(self._fd, b"%d\n" % self._pid)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self._publish(temporary)
        except OSError as error:
            self._give_up(temporary)
            self._cannot(error)
        except BootError:
            self._give_up(temporary)
            raise

    def close(self) -> None:
        """Remove the file when it is still ours, then release it."""
        if self._fd < 0:
            return
        if os.getpid() == self._pid and _is_at(self._fd, self.path):
            os.unlink(self.path)
        self.forget()

    def release(self) -> None:
        """Let a successor replace the file, or not; close() removes it when none has."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def forget(self) -> None:
        """In a child: close the inherited descriptor. The lock stays with the parent, and ends
        with it, which it would not while a child kept the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _publish(self, temporary: str) -> None:
        while True:
            try:
                os.link(temporary, self.path)
            except FileExistsError:
                pass
            else:
                os.unlink(temporary)
                return
            try:
                old = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                continue  # its owner has just ended
            try:
                self._refuse_if_held(old)
                # With the old file locked nobody else can be replacing it; but somebody may
                # have done so before we had the lock.
                if _is_at(old, self.path):
                    os.rename(temporary, self.path)
                    return
            finally:
                os.close(old)

    def _refuse_if_held(self, old: int) -> None:
        found = os.fstat(old)
        if not stat.S_ISREG(found.st_mode):
            raise BootError(
                f"--pidfile: {self.path} is not a regular file; it is left as it is",
                os.EX_CANTCREAT,
            )
        text = os.pread(old, 32, 0).strip()
        if text and not text.isdigit():
            raise BootError(
                f"--pidfile: {self.path} holds no process number; it is left as it is",
                os.EX_CANTCREAT,
            )
        pid = int(text or b"0")
        try:
            fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = False
        except BlockingIOError:
            locked = True
        # A program that takes no lock may have written it: alive since before that, it counts.
        ours = pid in (self._pid, self._predecessor)
        if locked or (not ours and holders.runs_since(pid, found.st_mtime)):
            raise BootError(
                f"--pidfile: {self.path} is held by {holders.describe(pid)}; stop that first",
                os.EX_UNAVAILABLE,
            )

    def _give_up(self, temporary: str) -> None:
        self.forget()
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass

    def _cannot(self, error: OSError) -> NoReturn:
        raise BootError(
            f"--pidfile: cannot create {self.path}: {error.strerror}", os.EX_CANTCREAT
        ) from error


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False

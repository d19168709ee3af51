"""``trac-spawn --demo``: an environment to try out, a pool that serves it, and a preview of it.

This process starts the master and the preview and only watches them. Both are in process groups
of their own, so that Ctrl-C comes here alone and is passed on once, as is a signal to our pid.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from types import FrameType
from typing import NoReturn, Optional

from setproctitle import setproctitle

from spawner import controlpath, demoenv, preview
from spawner.children import describe_status, fork_child, reap, send_signal
from spawner.configuration import Configuration
from spawner.settings import Settings
from workers import prctl
from workers.errors import BootError

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
#: What else a master understands.
PASSED_ON = (signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU)

BANNER = """
Trac is ready:  {url}   (Ctrl-C stops everything)

  serving       {served}
  FastCGI on    {socket}

The preview at this address is for trying out only. It is reached from this machine alone, but
everybody on this machine may do everything in the demo environment. For visitors, put a web
server before the pool, and choose a socket that it can reach (--socket, --socket-group).
This prints its configuration (likewise for apache, lighttpd, haproxy and caddy):

  trac-spawnctl {control}snippet nginx
"""


def run(settings: Settings) -> int:
    """Show the demonstration until told to stop; the exit status. Raises BootError."""
    # Until the processes are watched, a signal must not leave half an environment behind.
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, _leave)
    with contextlib.ExitStack() as leftovers:
        settings = _complete(settings, leftovers)
        listener = leftovers.enter_context(preview.bind())
        return Demo(settings, listener).run()


def _leave(number: int, frame: Optional[FrameType]) -> NoReturn:
    sys.exit(128 + number)


def _complete(settings: Settings, leftovers: contextlib.ExitStack) -> Settings:
    """Add what was not given: something to serve, and a socket that only this user can reach."""
    settings = dataclasses.replace(settings, demo=False)
    if settings.env is settings.env_parent_dir is settings.app is None:
        for name in ("user", "group", "chroot"):
            if getattr(settings, name) is not None:
                message = (
                    f"--{name}: the demo environment belongs to whoever starts it: "
                    f"leave out --{name}, or give --env"
                )
                raise BootError(message, os.EX_USAGE)
        settings = dataclasses.replace(settings, env=str(demoenv.ensure()))
    if "watch" not in settings.sources:
        settings = dataclasses.replace(settings, watch=True)
    if settings.socket is None:
        folder = tempfile.mkdtemp(prefix="trac-spawn-", dir=_runtime_folder())
        leftovers.callback(shutil.rmtree, folder, ignore_errors=True)
        settings = dataclasses.replace(settings, socket=os.path.join(folder, "trac.sock"))
        if settings.control is None:
            settings = dataclasses.replace(settings, control=os.path.join(folder, "control"))
    return settings


def _runtime_folder() -> Optional[str]:
    """The user's folder for sockets; None for that of temporary files."""
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    try:
        # After su(1) the variable can still name another user's.
        usable = folder.startswith("/") and os.stat(folder).st_uid == os.geteuid()
    except OSError:
        usable = False
    return folder if usable else None


class Demo:
    """The two processes, each of which ends when the other does."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        assert settings.socket is not None
        self._settings = settings
        self._socket = settings.socket
        self._listener = listener
        self._wakeup, self._wakeup_writer = socket.socketpair()
        self._pool: Optional[int] = None
        self._preview: Optional[int] = None
        self._status = os.EX_OK
        self._stopping = False

    def run(self) -> int:
        """Start both and watch them until neither is left; the exit status."""
        self._watch_signals()
        sys.stdout.flush()
        parent = os.getpid()
        self._pool = fork_child(lambda: self._run_pool(parent))
        self._preview = fork_child(lambda: self._run_preview(parent))
        while self._pool is not None or self._preview is not None:
            select.select([self._wakeup], [], [])
            for number in self._wakeup.recv(1024):
                self._handle(signal.Signals(number))
        return self._status

    def _watch_signals(self) -> None:
        self._wakeup.setblocking(False)
        self._wakeup_writer.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_writer.fileno())
        for number in (*STOPPING, *PASSED_ON, signal.SIGCHLD):
            # The handler does nothing: the loop reads the number from the wake-up descriptor.
            signal.signal(number, lambda number, frame: None)

    def _handle(self, number: signal.Signals) -> None:
        if number in STOPPING:
            self._stop()
        elif number in PASSED_ON and self._pool is not None:
            send_signal(self._pool, number)
        for pid, status in reap():
            if pid == self._pool:
                self._pool = None
                self._pool_ended(status)
            elif pid == self._preview:
                self._preview = None
                self._preview_ended(status)

    def _stop(self) -> None:
        """The pool first: the preview still brings its last answers to the browser.

        Said again, the pool stops at once.
        """
        self._stopping = True
        if self._pool is not None:
            send_signal(self._pool, signal.SIGTERM)

    def _pool_ended(self, status: int) -> None:
        if os.WIFSIGNALED(status):
            self._status = os.EX_SOFTWARE
        elif self._status == os.EX_OK:
            self._status = os.WEXITSTATUS(status)
        # One that could not start has said why itself.
        if not self._stopping and (os.WIFSIGNALED(status) or self._status == os.EX_OK):
            _say(f"the pool has ended ({describe_status(status)}), so the preview ends too")
        self._stopping = True
        if self._preview is not None:
            send_signal(self._preview, signal.SIGTERM)

    def _preview_ended(self, status: int) -> None:
        if self._stopping:
            return
        self._status = os.EX_SOFTWARE
        _say(f"the preview has ended ({describe_status(status)}), so the pool stops too")
        self._stop()

    def _run_pool(self, parent: int) -> None:
        from spawner import boot

        self._part_from(parent)
        # Otherwise every worker would hold the preview's port open.
        self._listener.close()
        try:
            status = boot.run(Configuration(self._settings, (self._settings,)))
        except BootError as error:
            if self._settings.debug:
                sys.stderr.write(error.traceback)
            _say(" ".join(str(error).splitlines()))
            status = error.exit_code
        sys.exit(status)

    def _run_preview(self, parent: int) -> None:
        self._part_from(parent)
        setproctitle("trac-spawn: preview")
        # Ended by SIGTERM, whose default action it has.
        preview.serve(self._listener, self._socket, self._announce)

    def _part_from(self, parent: int) -> None:
        """Become a process that hears of signals from its parent alone, and goes with it."""
        os.setpgid(0, 0)
        self._wakeup.close()
        self._wakeup_writer.close()
        prctl.die_with_parent(signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(os.EX_SOFTWARE)

    def _announce(self) -> None:
        settings = self._settings
        path = self._socket if self._socket.startswith("@") else os.path.abspath(self._socket)
        served = settings.env or settings.env_parent_dir or settings.app
        port = self._listener.getsockname()[1]
        control = settings.control or controlpath.default_control_path(settings)
        print(
            BANNER.format(
                url=f"http://127.0.0.1:{port}/",
                served=served,
                socket=path,
                control=f"-s {shlex.quote(control)} " if control else "",
            ),
            flush=True,
        )


def _say(message: str) -> None:
    print(f"trac-spawn: {message}", file=sys.stderr, flush=True)

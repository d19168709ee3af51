"""The process that loads the application once, freezes its heap, and from then on only forks workers.

When nobody serves yet it does not let visitors wait for the warm-up: it takes orders for workers before that
and, between its steps, during it. The master replaces these workers once the template is warm.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import signal
import site
from typing import Callable, Mapping, NoReturn, Optional, Sequence

from setproctitle import setproctitle

from spawner import forksafety, merging
from spawner.children import fork_child
from spawner.daemon import detach_output
from spawner.workplace import Workplace
from workers import plugins, prctl, sealing
from workers.application import Application
from workers.channel import TEXT_CEILING, Channel, Message
from workers.errors import BootError
from workers.text import escaped

log = logging.getLogger("trac-spawn")

#: The master orders the first workers at once: they do not wait for a step of the warm-up (seconds).
FIRST_ORDERS = 0.01
#: Plugins that cannot be loaded; who has more broken ones gets no protection from the rest.
MOST_TOLD = 50


def run_template(
    workplace: Workplace,
    generation: int,
    channel: Channel,
    broken: Optional[frozenset[str]],
    early: bool = False,
) -> None:
    """The body of the template process; returns when the master has closed its end of the channel.

    ``broken`` are the plugins that could not be loaded before; None when nothing has been. ``early``:
    orders are taken before the warm-up is over.
    """
    title = f"trac-spawn: {workplace.label}template gen {generation}"
    setproctitle(f"{title} loading")
    _prepare_signals()
    known = forksafety.open_descriptors()
    try:
        template = Template(workplace, channel, _load(workplace, channel, broken), known)
        if early:
            setproctitle(f"{title} warming up")
            template.offer("early", sealing.freeze)
            template.attend(FIRST_ORDERS)
        template.warm_up(early)
        template.offer("ready", sealing.seal)
        setproctitle(title)
        while True:
            template.obey()
    except BootError as error:
        report_failure(channel, error)
    except _Over:
        return


class _Over(Exception):
    """There is nothing to fork any more, or it would not be safe."""


class Template:
    """It has loaded the application. ``known`` are descriptors that workers may share.

    Each method raises _Over when that was all.
    """

    def __init__(
        self, workplace: Workplace, channel: Channel, application: Application, known: set[int]
    ) -> None:
        self._workplace = workplace
        self._channel = channel
        self._application = application
        self._known = known

    def offer(self, event: str, prepare: Callable[[], None]) -> None:
        """Tell the master that orders are taken; ``prepare`` the heap that the workers will share."""
        self._check_safety()
        _settle(self._workplace)
        prepare()
        self._channel.send({"event": event})

    def warm_up(self, early: bool) -> None:
        """``early``: obey meanwhile. Raises BootError."""
        for _ in self._workplace.warming(self._application):
            if early:
                self.attend()

    def attend(self, patience: float = 0.0) -> None:
        """Obey what has come, or comes within so many seconds."""
        if self._channel.waits(patience):
            self._check_safety()  # a page may have opened what must not cross a fork
        while self._channel.waits():
            self.obey()

    def obey(self) -> None:
        """Wait for an order."""
        message, descriptors = self._channel.receive()
        if message is None:
            raise _Over
        if message["command"] == "reopen":
            self._workplace.reopen(message, descriptors)
        else:
            self._fork(message, descriptors)

    def _check_safety(self) -> None:
        self._application.release()
        reasons = forksafety.hazards(self._known)
        if reasons:
            self._channel.send({"event": "unsafe", "reasons": reasons})
            raise _Over

    def _fork(self, message: Message, descriptors: Sequence[int]) -> None:
        extras = dict(zip(message["given"], descriptors))
        with Channel.adopt(extras.pop("channel")) as end:
            _fork_worker(self._workplace, self._application, message, end, self._channel, extras)
        for descriptor in extras.values():
            os.close(descriptor)


def run_worker(
    workplace: Workplace,
    number: int,
    generation: int,
    channel: Channel,
    extras: Mapping[str, int],
    broken: Optional[frozenset[str]],
) -> None:
    """The body of a worker without a template: it loads the application by itself."""
    setproctitle(f"trac-spawn: {workplace.label}worker {number} gen {generation} loading")
    _prepare_signals()
    channel.send({"event": "spawned"})
    try:
        application = _load(workplace, channel, broken)
        for _ in workplace.warming(application):
            pass
    except BootError as error:
        report_failure(channel, error)
    _settle(workplace)
    sealing.freeze()
    workplace.work(application, number, generation, channel, extras)


def _load(
    workplace: Workplace, channel: Channel, broken: Optional[frozenset[str]]
) -> Application:
    """Raises BootError."""
    workplace.drop_privileges()
    _find_what_is_new()
    _die_with_master(workplace)
    if workplace.settings.ksm:
        merging.begin()
    application = workplace.load()
    _look_at_plugins(channel, broken)
    return application


def _look_at_plugins(channel: Channel, known: Optional[frozenset[str]]) -> None:
    """Trac goes on without a plugin that it cannot load. At the very start so do we; later that would
    take from visitors what they have. Raises BootError."""
    found = plugins.broken()
    if known is not None:
        plugins.refuse_new(found, known)
    channel.send({"event": "plugins", "broken": sorted(found)[:MOST_TOLD]})


def _find_what_is_new() -> None:
    """What was installed since the master started: it has read the .pth files of that time."""
    importlib.invalidate_caches()
    for folder in site.getsitepackages():
        site.addsitedir(folder)


def _settle(workplace: Workplace) -> None:
    """The application is loaded: what it has said of that was for whoever started the program."""
    if workplace.settings.daemonize:
        detach_output()


def report_failure(channel: Channel, error: BootError) -> NoReturn:
    """Tell the master why the application cannot start; it is the one who decides what follows."""
    channel.send(failure_message(error))
    raise SystemExit(error.exit_code)


def failure_message(error: BootError) -> Message:
    """What reported_failure() reads."""
    return {
        "event": "failed",
        "message": str(error)[-TEXT_CEILING:],
        "traceback": error.traceback[-TEXT_CEILING:],
        "exit_code": error.exit_code,
        "unexpected": error.unexpected,
    }


def reported_failure(message: Message) -> BootError:
    """In the master: the error of which a child has sent the failure_message().

    Raises KeyError, TypeError or ValueError for anything else: the application may have written it.
    """
    status, traceback = message["exit_code"], message["traceback"]
    if type(status) is not int or not isinstance(traceback, str):
        raise TypeError("neither a status nor a traceback")
    if not 1 <= status <= 255:
        raise ValueError(f"{status} is no status of a failure")
    return BootError(one_line(message["message"]), status, traceback, bool(message["unexpected"]))


def one_line(text: object) -> str:
    """What a child has said, fit for one line of the log. Raises TypeError unless it is text."""
    if not isinstance(text, str):
        raise TypeError(f"{type(text).__name__} instead of a text")
    return escaped(text)


def _prepare_signals() -> None:
    # A terminal's Ctrl-C goes to the whole foreground group; stopping is the master's decision.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _die_with_master(workplace: Workplace) -> None:
    """So that a long import does not outlive the master. After the change of user, which clears it."""
    prctl.die_with_parent(signal.SIGTERM)
    if os.getppid() != workplace.master_pid:
        raise SystemExit(os.EX_TEMPFAIL)


def _fork_worker(
    workplace: Workplace,
    application: Application,
    message: Message,
    end: Channel,
    channel: Channel,
    extras: Mapping[str, int],
) -> None:
    """Fork a worker whose parent is the master: the child of a child that ends at once.

    When a fork fails, ``end`` is closed without a word, which is what the master goes by.
    """

    def worker(parent: int) -> None:
        # While any process keeps it, orders that a killed template has not read seem to be on
        # their way, and the master waits for workers that nobody will fork.
        channel.close()
        if workplace.wait_for_adoption(parent):
            prctl.die_with_parent(signal.SIGTERM)
            end.send({"event": "spawned"})
            generation = message["generation"]
            number = message["number"] or workplace.stand_by(generation, end)
            if number:
                workplace.work(application, number, generation, end, extras)

    def between() -> None:
        fork_child(functools.partial(worker, os.getpid()))

    try:
        pid = fork_child(between)
    except OSError:
        log.exception("cannot fork worker %s", message["number"])
        return
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # the application ignores SIGCHLD, so the kernel reaps

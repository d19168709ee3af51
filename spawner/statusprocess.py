"""The process that shows the pools' status apart from the pools: it answers when all workers are busy.

It is a worker whose application is the status page, so it takes no more from slow or broken clients
than a pool does. It reads what all share, the scoreboards and the master's page of news, and has
nothing to give: no rights, no sockets of the pools, no way to tell the master anything.
"""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from spawner import metrics, privileges
from spawner.ceilings import ceilings
from spawner.history import History
from spawner.news import NewsPage
from spawner.privileges import Identity
from spawner.settings import Settings
from workers import prctl
from workers.application import Application
from workers.channel import Channel
from workers.connection import Ceilings
from workers.http import SOFTWARE
from workers.scoreboard import Scoreboard
from workers.snapshot import PoolGauge
from workers.statuspages import UNCACHED, Page, ping_page, status_page
from workers.worker import Worker, WorkerConfig

DEFAULT_PATH = "/status"
METRICS_PATH = "/metrics"
PAGE_PATH = "/"
#: Whom root becomes: the kernel's own number for nobody, and everybody's.
NOBODY = Identity(65534, 65534, (65534,))
#: A status page is asked for in one small piece.
CEILINGS = Ceilings(max_body=65_536, receive_timeout=10.0, keep_alive_timeout=60.0)


@dataclass(frozen=True)
class View:
    """One pool, as far as it is shown."""

    settings: Settings
    scoreboard: Scoreboard
    history: History


def run_status_process(
    listeners: Sequence[socket.socket],
    http: Sequence[socket.socket],
    views: Sequence[View],
    news: NewsPage,
    channel: Channel,
    master: int,
) -> None:
    """Be the status process until the master says otherwise, or is gone. ``http``: those of the
    listeners where HTTP is spoken."""
    if http:
        # While it can be read: nobody may lack the right to, and a newer version may be installed.
        from spawner import dashboard

        dashboard.prepare()
    if os.geteuid() == 0:
        privileges.drop(NOBODY, None, "/", None)
    prctl.die_with_parent(signal.SIGTERM)
    if os.getppid() != master:
        return
    slot = Scoreboard(1).slot(1)
    slot.occupy(os.getpid(), 0, time.time_ns())
    found = {
        PAGE_PATH: dashboard_page(views, news),
        **pages(views),
        METRICS_PATH: metrics_page(views, news),
    }
    guarded = bool(http) and all(_is_loopback(sock) for sock in http)
    application = Application(by_path(found, guarded))
    config = WorkerConfig(CEILINGS, http=http)
    Worker(application, listeners, config, slot=slot, name="status", channel=channel).run()


def pages(views: Sequence[View]) -> dict[str, Page]:
    """Each pool at its --status-path, else at /status; PATH/NAME tells pools with one path apart."""
    found: dict[str, Page] = {}
    for view in views:
        settings = view.settings
        note = partial(show_peak, view.scoreboard)
        page = status_page(view.scoreboard, settings.name, settings.pm, ceilings(settings), note)
        path = settings.status_path or DEFAULT_PATH
        found.setdefault(path, page)
        found[f"{path}/{settings.name}"] = page
        if settings.ping_path is not None:
            found.setdefault(settings.ping_path, ping_page(settings.ping_response))
    return found


def show_peak(board: Scoreboard, active: int) -> None:
    """So many workers of a pool have been busy at once, as is told to who asks."""
    board.note(PoolGauge.ACTIVE_SHOWN, active)


def metrics_page(views: Sequence[View], news: NewsPage) -> Page:
    """A WSGI application that shows all pools to Prometheus."""

    def page(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        openmetrics = "application/openmetrics-text" in environ.get("HTTP_ACCEPT", "")
        boards = {view.settings.name: view.scoreboard.snapshot() for view in views}
        for view in views:
            show_peak(view.scoreboard, boards[view.settings.name].active_peak)
        text = metrics.render(boards, news.read().status, openmetrics)
        start_response("200 OK", [("Content-Type", metrics.media_type(openmetrics)), *UNCACHED])
        return [text.encode()]

    return page


def dashboard_page(views: Sequence[View], news: NewsPage) -> Page:
    """A WSGI application that shows all pools to people."""

    def page(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        from spawner import dashboard  # Jinja, for those who have --metrics

        now = time.time()
        pools = [
            dashboard.PoolView(
                view.settings.name, view.settings.pm, view.scoreboard.snapshot(), view.history.points(now)
            )
            for view in views
        ]
        text = dashboard.render(pools, news.read(), now, time.monotonic_ns())
        start_response("200 OK", [*dashboard.headers(), *UNCACHED])
        return [text.encode("utf-8", "replace")]

    return page


def by_path(found: dict[str, Page], guarded: bool = False) -> Page:
    """A WSGI application of these pages. ``guarded``: HTTP is for who asks for this machine. A page from
    elsewhere, in a browser that runs here, can give its own name this address and read what it likes."""

    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        if guarded and environ.get("SERVER_SOFTWARE") == SOFTWARE and not _is_local(environ):
            start_response("421 Misdirected Request", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"Ask for this by a number, such as 127.0.0.1, or as localhost.\n"]
        page = found.get(environ["SCRIPT_NAME"] + environ["PATH_INFO"])
        if page is None:
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"There are: {', '.join(found)}\n".encode()]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            allowed = [("Content-Type", "text/plain; charset=utf-8"), ("Allow", "GET, HEAD")]
            start_response("405 Method Not Allowed", allowed)
            return [b"This can only be looked at.\n"]
        return page(environ, start_response)

    return application


def _is_loopback(sock: socket.socket) -> bool:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return ipaddress.ip_address(sock.getsockname()[0]).is_loopback


def _is_local(environ: Mapping[str, Any]) -> bool:
    """Whether the request is for an address or for localhost; HTTP/1.0 need not say, and is no browser."""
    host = re.sub(r":[0-9]*$", "", environ.get("HTTP_HOST", "localhost")).strip("[]").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

"""The pages that a pool's workers answer before the application: --status-path and --ping-path."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Optional

from workers.poolstatus import PoolStatus, render
from workers.scoreboard import Scoreboard

Page = Callable[..., Iterable[bytes]]

#: As php-fpm sends them: what is true now is not to be kept.
UNCACHED = [
    ("Expires", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ("Cache-Control", "no-cache, no-store, must-revalidate, max-age=0"),
]


def status_page(
    board: Scoreboard, name: str, pm: str, limits: Mapping[str, float], show_peak: Callable[[int], None]
) -> Page:
    """A WSGI application that shows ``board``. ``limits`` as in PoolStatus. ``show_peak`` is told of how
    many active workers that says, so that nobody says less from then on."""

    def page(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        status = PoolStatus(name, pm, board.snapshot(), time.time_ns(), time.monotonic_ns(), limits)
        show_peak(status.board.active_peak)
        media_type, text = render(status, environ.get("QUERY_STRING", ""))
        start_response("200 OK", [("Content-Type", media_type), *UNCACHED])
        return [text.encode()]

    return page


def ping_page(response: str) -> Page:
    def page(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), *UNCACHED])
        return [response.encode()]

    return page


class Pages:
    """Pages by their path, which is that of the web server's own view: SCRIPT_NAME and PATH_INFO.

    Not REQUEST_URI, which is in the visitor's spelling: a web server that keeps others from a path
    goes by its own.
    """

    def __init__(self, pages: Mapping[str, Page] = MappingProxyType({})) -> None:
        self._pages = pages

    def find(self, params: dict[str, str]) -> Optional[Page]:
        return self._pages.get(params.get("SCRIPT_NAME", "") + params.get("PATH_INFO", ""))

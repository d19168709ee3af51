"""Servers that are Python classes and bring no command: run in the peers' own interpreter.

``python -m benchmarks.servers NAME MODULE:CALLABLE SOCKET WORKERS``; a server under spawn-fcgi
has its socket as descriptor 0 and takes no notice of the last two.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def trac_fcgi(application: WSGIApplication, socket: str, workers: int) -> None:
    """As trac.web.fcgi_frontend runs it: any number of threads in one process."""
    import_module("trac.web._fcgi").WSGIServer(application).run()


def flup(application: WSGIApplication, socket: str, workers: int) -> None:
    server = import_module("flup.server.fcgi_fork").WSGIServer(
        application, bindAddress=socket, minSpare=workers, maxSpare=workers, maxChildren=workers
    )
    server.run()


def flipflop(application: WSGIApplication, socket: str, workers: int) -> None:
    import_module("flipflop").WSGIServer(application).run()


SERVERS: dict[str, Callable[[WSGIApplication, str, int], None]] = {
    "trac_fcgi": trac_fcgi,
    "flup": flup,
    "flipflop": flipflop,
}


def main(name: str, target: str, socket: str, workers: str) -> None:
    module, _, attribute = target.partition(":")
    SERVERS[name](getattr(import_module(module), attribute), socket, int(workers))


if __name__ == "__main__":
    main(*sys.argv[1:])

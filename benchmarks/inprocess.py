"""Trac without any server: ``python -m benchmarks.inprocess ENV PATH SECONDS [accelerated]``.

Prints as JSON the milliseconds of processor time that a request takes, with a heap frozen after warm-up,
and how many samples have found it in which part of Trac. ``accelerated``: with what workers change in it.
"""

from __future__ import annotations

import gc
import io
import json
import os
import sys
import time
from typing import Any, Optional

from benchmarks.sampled import Samples
from workers.application import accelerate

WARM_UP = 20
#: What stands in the name of a file, and what its functions, or those that they call, are a part of.
PARTS = {
    ".html": "templates and HTML",
    "/trac/wiki/": "wiki text",
    "/workers/wikirules.py": "wiki text",
    "/trac/util/translation.py": "translations",
    "/workers/translations.py": "translations",
    "/trac/util/datefmt.py": "dates",
    "/workers/dates.py": "dates",
    "/babel/dates.py": "dates",
    "/trac/db/": "database",
    "/trac/perm.py": "permissions",
    "/trac/config.py": "options of trac.ini",
    "/workers/options.py": "options of trac.ini",
    "/trac/web/href.py": "links",
    "/workers/links.py": "links",
    "/workers/rendering.py": "templates and HTML",
    "/workers/markup.py": "templates and HTML",
    "/jinja2/": "templates and HTML",
    "/markupsafe/": "templates and HTML",
    "/trac/util/html.py": "templates and HTML",
    "/trac/web/main.py": "dispatching, garbage collection",
    "/trac/": "the rest of Trac",
}


def environ(path: str) -> dict[str, Any]:
    path, _, query = path.partition("?")
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/trac",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": _blocks,
    }


def _blocks(file: Any, size: int = 65536) -> Any:
    return iter(lambda: file.read(size), b"")


def _start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
    if not status.startswith("200"):
        sys.exit(f"status {status}")
    return lambda data: None


def main(env: str, path: str, seconds: float, accelerated: bool) -> None:
    os.environ["TRAC_ENV"] = env
    from trac.web.main import dispatch_request

    if accelerated:
        accelerate()

    def request() -> None:
        body = dispatch_request(environ(path), _start_response)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()

    for _ in range(WARM_UP):
        request()
    gc.collect()
    gc.freeze()
    samples = Samples(_part_of)
    number, begun, end = 0, time.process_time(), time.monotonic() + seconds
    samples.begin()
    while time.monotonic() < end:
        request()
        number += 1
    samples.end()
    each = (time.process_time() - begun) * 1000 / number
    json.dump({"ms": each, "parts": samples.parts}, sys.stdout)


def _part_of(file: str) -> Optional[str]:
    return next((part for place, part in PARTS.items() if place in file), None)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), "accelerated" in sys.argv[4:])

"""Files on their way to the visitor: there, of the right type and version, whole, and once only."""

from __future__ import annotations

import importlib.util
import os
from typing import Optional

from spawner.doctor import remedies
from spawner.doctor.finding import Findings, error, warning
from spawner.doctor.visit import Visit
from spawner.doctor.visitor import Reply

#: The largest file that each Trac has, with no permission needed: 250 KB.
LARGE = "js/jquery-ui.js"
STYLE = "css/trac.css"


def examine_transfers(visit: Visit) -> Findings:
    head = visit.visitor.request("HEAD", visit.path("") or "/")
    if head.status != visit.first.status:
        yield warning(
            "front-head",
            f"{visit.url}: HEAD is answered with status {head.status}, GET with {visit.first.status}",
            "Link checkers and monitoring take the site for broken.",
            "the location of Trac must take the method HEAD, with no limit_except or Limit",
        )
    style = visit.on_site(visit.page.main_stylesheet or "")
    if style is None or not style.endswith(STYLE):
        return  # from another host, which is not ours to examine
    reply = visit.visitor.get(style)
    bad = list(_file(visit, style, reply))
    yield from bad
    if bad:
        return
    yield from _again(visit, style, reply)
    yield from _large(visit, style[: -len(STYLE)] + LARGE)


def installed_file(name: str) -> Optional[bytes]:
    """As it is in Trac's package here; None without one. Trac is not imported for that."""
    spec = importlib.util.find_spec("trac")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        try:
            with open(os.path.join(folder, "htdocs", name), "rb") as file:
                return file.read()
        except OSError:
            continue
    return None


def _file(visit: Visit, path: str, reply: Reply) -> Findings:
    url = visit.visitor.url(path)
    if reply.status != 200:
        yield error(
            "front-static",
            f"the style sheet {url} is answered with status {reply.status}",
            "Pages have neither colours nor scripts.",
            f"{visit.mend_chrome()}\nor no line for chrome there, and Trac serves them itself",
        )
        return
    if reply.kind != "text/css":
        yield error(
            "front-static",
            f"the style sheet {url} has the type {reply.kind or 'unknown'} instead of text/css",
            "Browsers refuse it: pages have no colours.",
            visit.mend(remedies.TYPES),
        )
        return
    ours = installed_file(STYLE)
    if ours is not None and ours != reply.body and not reply.header("Content-Encoding"):
        yield warning(
            "chrome-stale",
            f"{url} is not the file of the Trac that is installed here",
            "What trac-admin deploy has copied is of another version: scripts and pages do not match.",
            f"{visit.mend_chrome()}\nor the same again, with the folder that the web server serves already",
        )


def _again(visit: Visit, path: str, reply: Reply) -> Findings:
    """What the browser has already need not be sent again."""
    told = {
        name: reply.header(source)
        for name, source in (("If-Modified-Since", "Last-Modified"), ("If-None-Match", "ETag"))
        if reply.header(source)
    }
    again = visit.visitor.request("GET", path, told)
    if again.status != 304:
        yield warning(
            "front-not-modified",
            f"{visit.visitor.url(path)} is sent again to a browser that has it already",
            "Each page costs the visitor all style sheets and scripts anew.",
            visit.mend(remedies.HEADERS, header="If-Modified-Since", param="HTTP_IF_MODIFIED_SINCE"),
        )


def _large(visit: Visit, path: str) -> Findings:
    """Read slowly, so that the web server has to keep what does not fit into its memory."""
    reply = visit.visitor.request("GET", path, slow=True)
    ours = installed_file(LARGE)
    if reply.status == 200 and not reply.cut and (ours is None or len(reply.body) == len(ours)):
        return
    yield error(
        "front-download",
        f"{visit.visitor.url(path)} arrives incomplete: {len(reply.body)} bytes, status {reply.status}",
        "Attachments and large pages are cut off for visitors with slow connections.",
        visit.mend(remedies.DOWNLOADS),
    )

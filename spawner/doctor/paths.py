"""Whether Trac is asked for the page that the visitor wants: path, query, host and scheme."""

from __future__ import annotations

import html
import re
from typing import Optional
from urllib.parse import urlsplit

from spawner.doctor import remedies
from spawner.doctor.finding import Finding, Findings, error
from spawner.doctor.visit import MARK, Visit, is_missing_page
from spawner.doctor.visitor import Reply

#: Longer than any query of Trac's own forms, shorter than what all web servers take by default.
LONG = 3072
#: One, two, three and four bytes of UTF-8 a character.
FOREIGN = "Zürich-日本-✓-😀"
#: A query that shows whether it arrived; without quick jumps, which would redirect.
QUESTION = f"noquickjump=1&q={MARK}"


def examine_paths(visit: Visit) -> Findings:
    """Asks for pages that do not exist: Trac's answer tells the path that it was asked for, and needs
    no permission."""
    plain = visit.visitor.get(visit.path(f"/{MARK}/page"))
    if not is_missing_page(plain, f"/{MARK}/page"):
        yield _lost(visit, plain)
        return
    if not is_missing_page(visit.visitor.get(visit.path(f"/{MARK}/{FOREIGN}")), f"/{MARK}/{FOREIGN}"):
        yield error(
            "front-utf8",
            f"{visit.url}: a path with letters beyond ASCII does not arrive as it was sent",
            "Wiki pages and attachments with such names cannot be reached.",
            visit.mend_paths(),
        )
    yield from _redirect(visit)
    yield from _query(visit)


def _lost(visit: Visit, reply: Reply) -> Finding:
    """A page that is there for every path, or another one than was asked for."""
    asked = re.search(r"No handler matched request to (\S*)", html.unescape(reply.text))
    if reply.status == 404 and asked:
        what = f"Trac is asked for {asked[1].rstrip('<')[:100]} instead of /{MARK}/page"
    elif reply.status == 404:
        return error(
            "front-not-passed",
            f"{visit.url} is Trac, and what lies below it is not: the web server answers by itself",
            "Every link of the first page is a page that is not found.",
            visit.mend_all(remedies.PASS_ON),
        )
    elif visit.first.status == reply.status:
        what = "every path shows the same page"
    else:
        what = f"a page that does not exist has status {reply.status}"
    return error(
        "front-path",
        f"{visit.url}: {what}",
        "Visitors get other pages than they ask for: PATH_INFO is missing or wrong.",
        visit.mend_paths(),
    )


def _redirect(visit: Visit) -> Findings:
    """Trac takes the slash from the end of a page that does not exist, by a redirect."""
    reply = visit.visitor.get(visit.path(f"/{MARK}/"))
    if reply.status not in (301, 302, 303, 307, 308):
        return
    location = reply.header("Location")
    target = urlsplit(location)
    wrong: Optional[str] = None
    if target.scheme != visit.origin.scheme:
        name, wrong, mend = "front-scheme", f"{target.scheme}://", visit.mend(remedies.SCHEME)
    elif target.netloc != visit.origin.netloc.rpartition("@")[2]:
        name, wrong, mend = "front-host", target.netloc, visit.mend(remedies.HOST)
    elif not visit.below(target.path):
        name, wrong, mend = "front-links", target.path, visit.mend_paths()
    if wrong is not None:
        yield error(
            name,
            f"{visit.url}: redirects lead to {location}, with {wrong}",
            "After each form that is sent, and after the login, visitors end there.",
            f"{mend}\nor, in trac.ini, where a proxy hides it from the web server:\n[trac]\n"
            f"base_url = {visit.url}\nuse_base_url_for_redirect = enabled",
        )


def _query(visit: Visit) -> Findings:
    short = visit.visitor.get(visit.path("/search", QUESTION))
    if short.status == 200 and MARK not in short.text:
        yield error(
            "front-query",
            f"{visit.url}: what stands behind the ? of a URL does not arrive",
            "Searches, queries and reports ignore what visitors ask for.",
            visit.mend(remedies.QUERY),
        )
        return
    # The question last: what is cut off is its end.
    long = visit.visitor.get(visit.path("/search", f"filler={'x' * LONG}&{QUESTION}"))
    if long.status != short.status or (MARK in short.text) != (MARK in long.text):
        yield error(
            "front-long-url",
            f"{visit.url}: a query of {LONG} bytes is answered with status {long.status}, "
            f"a short one with {short.status}",
            "Queries over many fields and links to searches fail.",
            visit.mend(remedies.LONG_URLS),
        )

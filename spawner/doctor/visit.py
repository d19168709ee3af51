"""What all checks of the front end share: the visitor, where the site is, its first page."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Optional
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from spawner.doctor import remedies
from spawner.doctor.page import Page
from spawner.doctor.visitor import Reply, Visitor

#: Of paths, users and files that no site has.
MARK = "trac-spawn-doctor"
#: Where to have Trac's static files, for who has no place for them yet.
DEPLOYED = "/var/www/trac-deployed"
#: What stands in remedies where nobody has told the settings of the pool.
PLACES: Mapping[str, str] = {
    "socket": "/PATH/OF/THE/SOCKET", "environment": "ENVIRONMENT", "deployed": DEPLOYED,
}  # fmt: skip


@dataclass(frozen=True)
class Visit:
    """``prefix`` is "/trac", or "" for the root of the host."""

    visitor: Visitor
    prefix: str
    first: Reply
    page: Page
    #: As ``Site.places``.
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> SplitResult:
        return self.visitor.origin

    @property
    def url(self) -> str:
        return self.visitor.url(self.prefix or "/")

    def mend(self, lines: remedies.Lines, **values: str) -> str:
        server = remedies.server_name(self.first.header("Server"))
        given = {**PLACES, **self.places, "below": self.prefix, **values}
        return remedies.remedy(lines, server, prefix=self.prefix or "/", **given)

    def mend_chrome(self) -> str:
        """Trac's static files anew, at a place that is right for every web server."""
        environment = {**PLACES, **self.places}["environment"]
        return f"trac-admin {environment} deploy {DEPLOYED}\n{self.mend(remedies.STATIC)}"

    def mend_all(self, lines: remedies.Lines) -> str:
        """The same for lines that make little sense alone."""
        name = remedies.server_name(self.first.header("Server")).lower() or "KIND"
        return f"{self.mend(lines)}\n(the whole of it prints: trac-spawnctl snippet {name})"

    def mend_paths(self) -> str:
        return remedies.SCRIPT_NAME.format(prefix=self.prefix or "/") + self.mend_all(remedies.PATHS)

    def path(self, path: str, query: str = "") -> str:
        """As it goes over the wire; ``path`` is text, below the prefix."""
        return quote(self.prefix + path) + (f"?{query}" if query else "")

    def below(self, path: str) -> bool:
        return path == self.prefix or path.startswith(self.prefix + "/")

    def on_site(self, link: str) -> Optional[str]:
        """The path of a link of the first page, with its query; None when it leads to another host."""
        target = urlsplit(urljoin(self.visitor.url(self.prefix + "/"), link))
        if target.netloc != self.origin.netloc:
            return None
        return target.path + (f"?{target.query}" if target.query else "")

    def moved(self, prefix: str, first: Reply) -> Visit:
        return replace(self, prefix=prefix, first=first, page=Page(first.text))


def is_missing_page(reply: Reply, path: str) -> bool:
    """Whether it is Trac's answer that it has no page ``path``."""
    return reply.status == 404 and f"No handler matched request to {path}" in html.unescape(reply.text)

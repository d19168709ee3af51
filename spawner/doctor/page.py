"""What a page of Trac says of itself: where its links lead, which files it needs."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Dict, List, Optional, Tuple

#: Links in the head of every page, whatever the visitor may see.
OWN_LINKS = ("start", "search", "help")


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        #: By "rel", as far as they have one.
        self.head_links: Dict[str, str] = {}
        self.stylesheets: List[str] = []
        self.anchors: List[str] = []
        self.asks_password = False
        self.words: List[str] = []
        self._hidden = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: List[Tuple[str, Optional[str]]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag == "link":
            for relation in given.get("rel", "").split():
                self.head_links.setdefault(relation, given.get("href", ""))
            if "stylesheet" in given.get("rel", ""):
                self.stylesheets.append(given.get("href", ""))
        elif tag == "a" and "href" in given:
            self.anchors.append(given["href"])
        elif tag == "input" and given.get("type") == "password":
            self.asks_password = True
        elif tag in ("script", "style"):
            self._hidden += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._hidden -= 1

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def main_stylesheet(self) -> Optional[str]:
        """Trac's own, which every page of Trac needs."""
        return next((one for one in self.stylesheets if one.endswith("common/css/trac.css")), None)

    @property
    def is_tracs(self) -> bool:
        return self.main_stylesheet is not None

    @property
    def own_links(self) -> List[str]:
        return [self.head_links[name] for name in OWN_LINKS if name in self.head_links]

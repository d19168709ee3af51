"""Links within Trac, quoted once. Imported only once Trac is.

The same links stand on a page each time that it is shown, and Trac puts each together from its parts: 5 to 10
microseconds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from trac.web.href import Href

#: Some 400 bytes each.
KEPT = 2048
#: Of these, two that are equal have the same place in a link.
_PLAIN = frozenset((str, int, type(None)))


def remember() -> None:
    """Let Trac make each link once in this process."""
    make = Href.__call__
    if set(vars(Href(""))) != {"base", "path_safe", "query_safe", "_derived"}:
        return

    @lru_cache(maxsize=KEPT)
    def made(base: str, path_safe: str, query_safe: str, parts: Any, query: Any) -> Any:
        return make(Href(base, path_safe, query_safe), *parts, **dict(query))

    def call(self: Any, *parts: Any, **query: Any) -> Any:
        if type(self) is Href and _PLAIN.issuperset(map(type, parts)):
            if not query or _PLAIN.issuperset(map(type, query.values())):
                return made(self.base, self.path_safe, self.query_safe, parts, tuple(query.items()))
        return make(self, *parts, **query)

    Href.__call__ = call

"""Which request it is: one id in the access log, the error log, the slow log and the answer."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping

#: The id of the request that this process answers now; empty between two.
current = ""

#: Where web servers and proxies put one: the header, Apache's mod_unique_id, nginx's $request_id.
SOURCES = ("HTTP_X_REQUEST_ID", "UNIQUE_ID", "REQUEST_ID")
#: Of no other characters can a line of a log be forged, and no header.
_FIT = re.compile(r"[A-Za-z0-9._~+/=@:-]{1,64}")


class RequestIds:
    """Of one process; to be made after it was forked."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex()
        self._numbers = itertools.count(1)

    def of(self, params: Mapping[str, str]) -> str:
        """The one that came with the request, when it is fit to be one, else another."""
        get = params.get
        if get("HTTP_X_REQUEST_ID") or get("UNIQUE_ID") or get("REQUEST_ID"):
            for name in SOURCES:
                given = get(name)
                if given is not None and _FIT.fullmatch(given):
                    return given
        return f"{self._prefix}{next(self._numbers):06x}"

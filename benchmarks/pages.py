"""What is requested, and how to tell that the answer is the right one."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.resources import files

from benchmarks import hello
from benchmarks.environment import SUMMARY, WELCOME

TRAC = "trac"
HELLO = "hello"


@dataclass(frozen=True)
class Page:
    title: str
    #: Which of a peer's two services answers it: TRAC or HELLO.
    application: str
    path: str
    #: What the body must contain, or, when ``whole``, be.
    expected: bytes
    whole: bool = False

    def complaint(self, status: int, body: bytes) -> str:
        """What is wrong with an answer, or nothing."""
        if status != 200:
            return f"status {status}: {body[:200]!r}"
        if self.whole and body != self.expected:
            return f"{len(body)} bytes instead of the expected {len(self.expected)}"
        if self.expected not in body:
            return f"{self.expected!r} is missing: {body[:200]!r}"
        return ""


WIKI = Page("/wiki/WikiStart", TRAC, "/wiki/WikiStart", WELCOME.encode())


@functools.lru_cache(maxsize=None)
def all_pages() -> tuple[Page, ...]:
    style = "css/trac.css"
    return (
        WIKI,
        Page("/timeline", TRAC, "/timeline", SUMMARY.encode()),
        Page("/report/1", TRAC, "/report/1", SUMMARY.encode()),
        Page(
            f"/chrome/common/{style}",
            TRAC,
            f"/chrome/common/{style}",
            files("trac").joinpath("htdocs").joinpath(style).read_bytes(),
            whole=True,
        ),
        Page("hello, 1 KiB", HELLO, "/", hello.BODY, whole=True),
    )

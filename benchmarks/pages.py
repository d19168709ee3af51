"""What is requested, and how to tell that the answer is the right one."""

from __future__ import annotations

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
    #: Its title where there is little room.
    short: str = ""

    def complaint(self, status: int, body: bytes) -> str:
        """What is wrong with an answer, or nothing."""
        if status != 200:
            return f"status {status}: {body[:200]!r}"
        if self.whole and body != self.expected:
            return f"{len(body)} bytes instead of the expected {len(self.expected)}"
        if self.expected not in body:
            return f"{self.expected!r} is missing: {body[:200]!r}"
        return ""


STYLE_FILE = files("trac") / "htdocs" / "css" / "trac.css"

WIKI = Page("/wiki/WikiStart", TRAC, "/wiki/WikiStart", WELCOME.encode(), short="WikiStart")
TIMELINE = Page("/timeline", TRAC, "/timeline", SUMMARY.encode(), short="timeline")
REPORT = Page("/report/1", TRAC, "/report/1", SUMMARY.encode(), short="report/1")
STYLE = Page(
    "/chrome/common/css/trac.css",
    TRAC,
    "/chrome/common/css/trac.css",
    STYLE_FILE.read_bytes(),
    whole=True,
    short="trac.css",
)
BARE = Page("hello, 1 KiB", HELLO, "/", hello.BODY, whole=True, short="hello, 1 KiB")
#: Those of Trac.
MADE = (WIKI, TIMELINE, REPORT, STYLE)
ALL = (*MADE, BARE)


def mixed() -> tuple[Page, ...]:
    """What visitors do in a while: pages of every kind, so that all of Trac is used."""
    paths = {
        "/wiki/BenchmarkPage1": "Page 1 of the benchmark",
        "/wiki/BenchmarkPage2?action=history": "BenchmarkPage2",
        "/wiki/TitleIndex": "BenchmarkPage3",
        "/ticket/1": f"{SUMMARY} 1",
        "/ticket/2": f"{SUMMARY} 2",
        "/query?status=new&max=20": SUMMARY,
        "/search?q=benchmark&noquickjump=1": "Search",
        "/roadmap": "milestone1",
        "/prefs": "Preferences",
        "/about": "About Trac",
    }
    others = [Page(path, TRAC, path, text.encode()) for path, text in paths.items()]
    return (*MADE, *others)

"""The findings as text for people."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator

from spawner.doctor.finding import Diagnosis

WIDTH = 100


def lines(diagnosis: Diagnosis) -> Iterator[str]:
    for finding in diagnosis["findings"]:
        yield from _wrapped(f"{finding['severity']}: {finding['what']}", "")
        yield from _wrapped(finding["why"], "    ")
        # Commands and configuration are there to be copied: line by line, as they are.
        for number, line in enumerate(finding["mend"].splitlines()):
            yield ("  > " if number == 0 else "    ") + line
        yield ""
    yield f"looked at: {', '.join(diagnosis['looked_at']) or 'nothing'}"
    for reason in diagnosis["left_out"]:
        yield from _wrapped(f"left out: {reason}", "")
    yield _total(diagnosis)


def _wrapped(text: str, indent: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent or "    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _total(diagnosis: Diagnosis) -> str:
    counted = Counter(finding["severity"] for finding in diagnosis["findings"])
    if not counted:
        return "nothing found"
    kinds = (("error", "errors"), ("warning", "warnings"), ("advice", "pieces of advice"))
    return ", ".join(
        f"{counted[one]} {one if counted[one] == 1 else many}" for one, many in kinds if counted[one]
    )

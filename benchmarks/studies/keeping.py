"""Connections that nginx keeps open (fastcgi_keep_conn) against one for every request, in turns."""

from __future__ import annotations

import dataclasses

from benchmarks.bench import Bench
from benchmarks.figures import Outcome
from benchmarks.pages import BARE, WIKI
from benchmarks.peers import OURS
from benchmarks.studies import variant


def study(bench: Bench) -> Outcome:
    kept = dataclasses.replace(
        OURS, name=f"{OURS.name}-kept", title="fastcgi_keep_conn on", protocol="fastcgi-kept"
    )
    bench.say("connections kept open, and others closed after each request")
    return variant.compare(bench, "Connections kept open", kept, "off", [BARE, WIKI])

"""How much of its template's memory a worker makes its own, request by request, and by writing what."""

from __future__ import annotations

from benchmarks import private
from benchmarks.bench import Bench
from benchmarks.figures import Outcome, Row, Table
from benchmarks.pages import WIKI, mixed
from benchmarks.peers import OURS, titled, titled_workers


def study(bench: Bench) -> Outcome:
    found: dict[str, dict[str, float]] = {}
    failures: list[str] = []
    bench.say(f"one worker's own pages after {', '.join(map(str, bench.plan.marks))} mixed pages")
    with bench.stage([OURS]) as stage:
        stage.start([WIKI], 1)
        for peer in stage.peers:
            service = stage.service(peer, WIKI)
            master = service.program.roots[0]
            (worker,) = titled_workers(master)
            (template,) = titled(master, "template")
            done = 0
            for mark in bench.plan.marks:
                failures += service.visits(mixed(), mark - done)
                done = mark
                pages = private.pages(template.pid, worker.pid)
                found[str(mark)] = {
                    kind: number * private.PAGE / 1e6 for kind, number in pages.items()
                }
                found[str(mark)]["all"] = sum(found[str(mark)].values())
    titles = {"all": "private memory, MB", **{kind: f"{kind}, MB" for kind in private.KINDS}}
    rows = [
        Row(title, {mark: figures[kind] for mark, figures in found.items()}, min)
        for kind, title in titles.items()
    ]
    table = Table("Sharing: one worker's own memory after so many mixed pages", {m: m for m in found}, rows)
    return Outcome([table], found, failures=failures)

"""Memory of trac-spawn over a great many requests, of workers that are never recycled."""

from __future__ import annotations

from benchmarks import memory, pictures
from benchmarks.bench import Bench
from benchmarks.figures import Outcome, Row, Table
from benchmarks.pages import WIKI, mixed
from benchmarks.peers import OURS


def study(bench: Bench) -> Outcome:
    plan = bench.plan
    points: list[tuple[float, float]] = []
    failures: list[str] = []
    step = plan.endurance // plan.looks
    with bench.stage([OURS]) as stage:
        stage.say(f"{plan.endurance:,} requests for mixed pages")
        stage.start([WIKI], plan.workers)
        for left in stage.peers:
            service = stage.service(left, WIKI)
            for look in range(1, plan.looks + 1):
                failures += service.visits(mixed(), step)
                size = memory.measure(service.program)
                points.append((look * step, size.pss_bytes / 1e6))
    picture = {"endurance.svg": pictures.of_endurance({OURS.title: points})}
    return Outcome([_table(points, plan.workers)], points, picture, failures)


def _table(points: list[tuple[float, float]], workers: int) -> Table:
    """After a twentieth, a quarter, half and all of the requests."""
    count = len(points)
    chosen = sorted({points[max(1, count * part // 20) - 1] for part in (1, 5, 10, 20) if points})
    columns = {f"{requests:.0f}": f"{requests:,.0f} requests" for requests, _ in chosen}
    figures = {f"{requests:.0f}": size for requests, size in chosen}
    title = f"Memory over time, {workers} workers, none recycled"
    return Table(title, columns, [Row("sum of PSS, MB", figures, min)])

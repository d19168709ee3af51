"""What the master has answered, as text for people. Each function is pure: JSON in, lines out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional

from spawner.ceilings import BYTES, SECONDS
from spawner.doctor import report as doctor_report
from spawner.status import (
    Config,
    Death,
    LastDeaths,
    Leaks,
    Pongs,
    Pools,
    PoolStatus,
    Recycled,
    Reloaded,
    Scaled,
    Status,
    Upgraded,
    WorkerStatus,
)

Lines = Iterator[str]
#: Workers of a pool that status tells of one by one: it is to fit a screen.
SHOWN = 8


def status(answer: Status) -> Lines:
    master = answer["master"]
    yield (
        f"trac-spawn {master['version']} (pid {master['pid']}): {master['state']}, "
        f"started {moment(master['started'])}, {span(master['age_s'])} ago"
    )
    for pool in answer["pools"]:
        yield ""
        yield from _pool(pool)


def _pool(pool: PoolStatus) -> Lines:
    ready = sum(worker["state"] in ("idle", "busy") for worker in pool["workers"])
    busy = sum(worker["state"] == "busy" for worker in pool["workers"])
    yield (
        f"pool {pool['name']}: {pool['state']}, generation {pool['generation']}, "
        f"{ready} of {pool['target']} workers ready, {busy} busy"
    )
    if pool["pm"] != "static":
        yield (
            f"  {pool['pm']}: at most {pool['max_workers']} workers, "
            f"max children reached {pool['max_children_reached']} times"
        )
    for address in pool["addresses"]:
        queue = address["listen_queue"]
        yield f"  {address['address']}: {known(queue['waiting'])} of {known(queue['limit'])} waiting"
    template = pool["template"]
    if template is not None:
        # A master of an older version does not say it.
        unready = "warming up" if template.get("warming_up") else "loading"
        yield (
            f"  template: pid {template['pid']}, generation {template['generation']}, "
            f"{'ready' if template['ready'] else unready}"
        )
    if pool.get("spare"):
        yield f"  spare worker: pid {pool['spare']}"
    reloads = pool["reloads"]
    yield f"  reloads: {reloads['ok']} done, {reloads['failed']} failed"
    if reloads["last_error"]:
        yield f"  the last reload that failed: {_one_line(reloads['last_error'])}"
    yield f"  recycled: {counts(pool['recycles'])}; died: {counts(pool['deaths'])}"
    # A master of an older version does not say these.
    limits = [f"{name} {value}" for name, value in limits_in_words(pool)]
    if limits:
        yield f"  limits: {', '.join(limits)}"
    if pool.get("refused"):
        yield f"  connections refused by who made them: {pool['refused']}"
    if pool["workers"]:
        yield f"  scoreboard: {pool['scoreboard']} (_ waits, W answers, G leaves); {_answers(pool)}"
        yield from _workers(pool["workers"])


def _workers(workers: Sequence[WorkerStatus]) -> Lines:
    by_urgency = sorted(workers, key=_urgency)
    shown = sorted(by_urgency[:SHOWN], key=lambda worker: worker["slot"])
    head = ("SLOT", "GEN", "PID", "STATE", "REQUESTS", "REQUEST", "AGE", "MEMORY", "PRIVATE")
    yield from table([head, *(_worker(worker) for worker in shown)])
    rest = Counter(worker["state"] for worker in by_urgency[SHOWN:])
    if rest:
        yield f"  and {sum(rest.values())} more, {counts(rest)}: see trac-spawnctl top"
    for worker in shown:
        request = worker["request"]
        if request is not None:
            user = f" ({request['user']})" if request["user"] else ""
            yield f"  slot {worker['slot']}: {_one_line(request['method'] + ' ' + request['uri'])}{user}"


def _urgency(worker: WorkerStatus) -> tuple[float, bool, int]:
    """The longest request first, and last whoever only waits."""
    return -busy_for(worker), worker["state"] == "idle", worker["slot"]


def busy_for(worker: WorkerStatus) -> float:
    """Seconds, negative for one that answers nothing."""
    return worker["request"]["started_s_ago"] if worker["request"] else -1.0


def limits_in_words(pool: PoolStatus) -> list[tuple[str, str]]:
    """Each limit that there is, by its option."""
    units: dict[str, Callable[[float], str]] = {
        **dict.fromkeys(BYTES, lambda value: size(int(value))),
        **dict.fromkeys(SECONDS, span),
    }
    limits = pool.get("limits", {}).items()
    return [(name, units.get(name, "{:g}".format)(value)) for name, value in limits if value]


def _answers(pool: PoolStatus) -> str:
    """How many requests were answered, and how."""
    kinds: dict[str, int] = {}
    for name, count in pool["totals"].get("answers", {}).items():
        kind = name.rpartition(" ")[2]
        kinds[kind] = kinds.get(kind, 0) + count
    return f"answered {pool['totals'].get('requests', 0)}: {counts(dict(sorted(kinds.items())))}"


def _worker(worker: WorkerStatus) -> Sequence[str]:
    request = worker["request"]
    return (
        str(worker["slot"]),
        str(worker["generation"]),
        known(worker["pid"]),
        worker["state"],
        str(worker["requests"]),
        span(request["started_s_ago"]) if request is not None else "-",
        span(worker["age_s"]),
        size(worker["rss"]),
        size(worker["private"]),
    )


def ping(answer: Pongs) -> Lines:
    for pong in answer["addresses"]:
        seconds = pong["answer_s"]
        found = pong["error"] or "no answer"
        if seconds is not None:
            found = f"answers after {seconds * 1000:.1f} ms"
        yield f"{pong['pool']}: {pong['address']}: {_one_line(found)}"
    if not answer["addresses"]:
        yield "no pool listens anywhere"


def reload(answer: Reloaded) -> Lines:
    for name, generation in answer["pools"].items():
        yield f"{name}: generation {generation} serves"


def upgrade(answer: Upgraded) -> Lines:
    yield f"process {answer['pid']} is the master now"


def scale(answer: Scaled) -> Lines:
    target, most = answer["target"], answer["max_workers"]
    wanted = f"{target} workers wanted"
    yield f"{answer['pool']}: {wanted if target == most else f'{wanted}, at most {most}'}"


def recycle(answer: Recycled) -> Lines:
    for name, slots in answer["pools"].items():
        yield f"{name}: replacing {', '.join(map(str, slots)) or 'nothing'}"


def _done(verb: str) -> Callable[[object], Lines]:
    def report(answer: object) -> Lines:
        yield verb

    return report


def _of_pools(what: str) -> Callable[[Pools], Lines]:
    def report(answer: Pools) -> Lines:
        for name in answer["pools"]:
            yield f"{name}: {what}"

    return report


def config(answer: Config) -> Lines:
    section: Optional[str] = None
    for setting in answer["settings"]:
        header = "[trac-spawn]" if setting["pool"] is None else f"[pool {setting['pool']}]"
        if header != section:
            if section is not None:
                yield ""
            yield header
            section = header
        yield f"{setting['name']} = {_one_line(setting['value'])}  # {setting['source']}"


def last_deaths(answer: LastDeaths) -> Lines:
    if not answer["deaths"]:
        yield "no worker has died"
    for index, death in enumerate(answer["deaths"]):
        if index:
            yield ""
        yield from _death(death)


def _death(death: Death) -> Lines:
    yield (
        f"{moment(death['at'])} {death['pool']}: worker {death['slot']} gen {death['generation']} "
        f"(pid {known(death['pid'])}): {_one_line(death['reason'])}"
    )
    yield f"  after {death['requests']} requests and {span(death['age_s'])}, memory {size(death['rss'])}"
    if death["request"]:
        yield f"  last request: {_one_line(death['request'])}"
    for line in (death["traceback"] or "").splitlines():
        yield f"    {line}"


def leaks(answer: Leaks) -> Lines:
    if not answer["leaks"]:
        yield "nothing has been weighed: it is one request in some, of a worker that has answered a few"
        return
    head = ("GROWTH EACH", "WEIGHED", "GROWTH", "POOL", "REQUEST")
    rows = [
        (
            f"{leak['per_request'] / 1024:.1f}K",
            str(leak["weighed"]),
            size(leak["growth"]),
            leak["pool"],
            _one_line(leak["kind"]),
        )
        for leak in answer["leaks"]
    ]
    yield from table([head, *rows])


def _top(answer: Status) -> Lines:
    from spawner import top  # rich takes a tenth of a second to import

    return top.lines(answer)


REPORTS: Mapping[str, Callable[[Any], Lines]] = {
    "status": status,
    "top": _top,
    "ping": ping,
    "reload": reload,
    "upgrade": upgrade,
    "stop": _done("stopped"),
    "scale": scale,
    "recycle": recycle,
    "reopen": _done("log files opened again"),
    "pause": _of_pools("paused"),
    "resume": _of_pools("resumed"),
    "config": config,
    "last-deaths": last_deaths,
    "leaks": leaks,
    "doctor": doctor_report.lines,
    "snippet": lambda answer: iter(answer["text"].splitlines()),
}


# -- pieces --------------------------------------------------------------------------------------


def _one_line(text: str) -> str:
    return " ".join(text.split())


def known(value: Optional[int]) -> str:
    return "?" if value is None else str(value)


def counts(causes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {cause}" for cause, count in causes.items() if count) or "none"


def size(number: Optional[int]) -> str:
    """Bytes in the units of the options, as in --max-memory 500M."""
    return "-" if number is None else f"{number / (1 << 20):.1f}M"


def span(seconds: float) -> str:
    """The two largest units that matter: 0.4s, 45s, 3m 20s, 2h 5m, 4d 3h."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f}s"
    whole = int(seconds)
    for unit, smaller, long, short in (("d", "h", 86400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1)):
        if whole >= long:
            return f"{whole // long}{unit} {whole % long // short}{smaller}"
    return f"{whole}s"


def moment(timestamp: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(timestamp))


def table(rows: Sequence[Sequence[str]]) -> Lines:
    """In columns, aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        yield "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths))

"""Creates the demonstration's Trac environment: ``python -m spawner.democontent PATH``.

The one module of this package that imports Trac. It is only ever run as a program.
"""

from __future__ import annotations

import signal
import sys
from importlib.resources import files

from trac.env import Environment
from trac.perm import PermissionSystem
from trac.ticket.model import Component, Milestone, Ticket
from trac.wiki.admin import WikiAdmin
from trac.wiki.model import WikiPage

from workers import prctl

OPTIONS = [
    # It asks the web server who somebody is, and the preview asks nobody.
    ("components", "trac.web.auth.loginmodule", "disabled"),
    ("project", "name", "trac-spawn demo"),
    ("project", "descr", "A Trac to try out, served by a pool of workers"),
    ("trac", "database", "sqlite:db/trac.db"),
    ("attachment", "max_size", str(64 << 20)),
]

PAGES = {
    "WikiStart": """\
= Welcome to the trac-spawn demo =

This Trac is served over FastCGI by a pool of worker processes. Everything works, and you may
do everything: edit this page, open a [/newticket ticket], attach a file, look at the
[/timeline timeline] and the [/report reports].

 * TryThis: what to try while you watch the processes
 * HowItWorks: who does what
 * TracGuide: Trac's own manual
""",
    "TryThis": """\
= Try this =

Watch the pool in another terminal:
{{{
watch -n 0.5 'ps -eo pid,rss,args | grep "[t]rac-spawn: "'
}}}
 * Click around: the process titles show which worker answers which request.
 * `kill -9` a worker: another one is there before you can reload the page.
 * Start the demo again with `--max-requests 5`: workers retire, and no click fails.
 * Attach a large file to [ticket:1] and fetch it again.
""",
    "HowItWorks": """\
= How it works =

 * The '''master''' owns the socket and decides; it never runs application code.
 * The '''template''' loads Trac once and forks the workers, which share its memory.
 * Each '''worker''' answers one request at a time, and is replaced when it has grown too large.
 * The '''preview''' that you look at is no web server for visitors: put lighttpd, nginx or Apache
   before the pool.
""",
}

#: summary, type, component, priority, milestone, description
TICKETS = [
    ("Put the pool behind a web server", "task", "deployment", "major", "First site",
     "The demo printed a snippet for lighttpd and one for nginx. See HowItWorks."),
    ("Choose how many workers", "task", "deployment", "minor", "First site",
     "`--workers`: about one more than there are processors."),
    ("A worker that grows is replaced", "enhancement", "memory", "major", "First site",
     "With `--max-memory 300M` a worker retires after the request that took it beyond that."),
    ("The page is slow after a plugin was installed", "defect", "memory", "critical", "",
     "An example of a defect. Close it, or attach a file to it."),
]  # fmt: skip


def create(path: str) -> None:
    """A new environment with default data, pages, tickets, and no restrictions."""
    env = Environment(path, create=True, options=OPTIONS)
    try:
        WikiAdmin(env).load_pages(str(files("trac.wiki") / "default-pages"))
        for name, text in PAGES.items():
            page = WikiPage(env, name)
            page.text = text
            page.save("trac-spawn", "First version")
        _fill_tickets(env)
        # It is reached from this machine only, and there is no login.
        PermissionSystem(env).grant_permission("anonymous", "TRAC_ADMIN")
    finally:
        env.shutdown()


def _fill_tickets(env: Environment) -> None:
    for name in ("component1", "component2"):
        Component(env, name).delete()
    for name in ("milestone1", "milestone2", "milestone3", "milestone4"):
        Milestone(env, name).delete()
    for name in ("deployment", "memory"):
        component = Component(env)
        component.name = name
        component.insert()
    milestone = Milestone(env)
    milestone.name = "First site"
    milestone.insert()
    for summary, kind, component_name, priority, milestone_name, description in TICKETS:
        ticket = Ticket(env)
        ticket.populate(
            {
                "summary": summary,
                "type": kind,
                "component": component_name,
                "priority": priority,
                "milestone": milestone_name,
                "description": description,
                "reporter": "trac-spawn",
                "status": "new",
            }
        )
        ticket.insert()


if __name__ == "__main__":
    # Whoever started this would remove what is half made; nobody else could.
    prctl.die_with_parent(signal.SIGKILL)
    create(sys.argv[1])

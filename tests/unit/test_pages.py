"""Whole pages of Trac, as the application answers them and as Trac alone does, in a process each."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from trac.env import Environment
from trac.perm import PermissionSystem
from trac.ticket.model import Ticket

from workers.application import Application
from workers.environ import make_environ
from workers.wsgi import server_keys

ROOT = Path(__file__).parents[2]
PATHS = (
    "/wiki/WikiStart", "/wiki/WikiFormatting", "/wiki/TracLinks", "/wiki/TitleIndex", "/wiki/TracIni",
    "/wiki/WikiStart?action=history", "/wiki/WikiStart?action=edit", "/wiki/NoSuchPage", "/timeline",
    "/timeline?format=rss", "/report", "/report/1", "/report/6?sort=summary&asc=1", "/report/1?format=csv",
    "/ticket/1", "/ticket/1?format=rss", "/ticket/99", "/newticket", "/query", "/roadmap",
    "/query?status=!closed&group=owner&col=id&col=summary&col=time", "/search?q=ticket&noquickjump=1",
    "/milestone/milestone1", "/prefs", "/about", "/nowhere",
)  # fmt: skip
VISITORS = (("en-US", ""), ("de", "admin"), ("ja", ""))
#: Tokens, ages, and the names of diagrams, which are other ones each time.
CHANGING = re.compile(
    r'(?:__FORM_TOKEN|form_token)"?[^"\n]*"[^"\n]*"(?: value="\w+")?|graph-\w+'
    r"|\d+ (?:second|minute|Sekunde|Minute)n?s?|\d+ ?[\u79d2\u5206]"
)
SCRIPT = """
import sys
from tests.unit.test_pages import answers
from workers.application import ApplicationSpec, load
env, ours = sys.argv[1], sys.argv[2] == "ours"
application = load(ApplicationSpec(env=env, static_files=ours), ahead=ours)
application.warm_up()
print(answers(application))
"""


def answers(application: Application) -> str:
    """All pages twice, as what has been remembered must be the same."""
    found = {
        f"{path} {language} {user} {time}": ask(application, path, language, user)
        for time in ("first", "again")
        for path in PATHS
        for language, user in VISITORS
    }
    return json.dumps(found)


def ask(application: Any, page: str, language: str, user: str) -> str:
    path, _, query = page.partition("?")
    params = {"SCRIPT_NAME": "/trac", "PATH_INFO": path, "QUERY_STRING": query, "HTTP_HOST": "h"}
    params.update({"HTTP_ACCEPT_LANGUAGE": language}, **{"REMOTE_USER": user} if user else {})
    environ = make_environ(params, io.BytesIO(), sys.stderr, {**server_keys(), **application.environ})
    seen: list[str] = []
    written: list[bytes] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        seen.append(status)
        return written.append

    written += application.call(environ, start_response)
    return CHANGING.sub("*", f"{seen[-1]}\n{b''.join(written).decode()}")


def test_pages_are_those_of_trac_byte_for_byte(tmp_path: Path) -> None:
    env = Environment(str(tmp_path / "made"), create=True, options=[("logging", "log_type", "none")])
    for number in range(1, 8):
        ticket = Ticket(env)
        ticket.populate({"summary": f"<{number}> & 'so'", "reporter": "me@example.org", "status": "new"})
        ticket["description"] = "See WikiStart, [wiki:TracGuide it]: ''a'' ^2^\n||= b =|| r1 ||"
        ticket.insert()
    PermissionSystem(env).grant_permission("admin", "TRAC_ADMIN")
    env.shutdown()
    found = {}
    for way in ("Trac's", "ours"):
        # Visitors leave traces in the database.
        shutil.rmtree(tmp_path / "env", ignore_errors=True)
        shutil.copytree(tmp_path / "made", tmp_path / "env")
        command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path / "env"), way]
        # Trac writes some sets as they come.
        said = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "0"}, stdout=subprocess.PIPE, check=True
        )
        found[way] = json.loads(said.stdout)
    assert len(found["ours"]) == 2 * len(PATHS) * len(VISITORS)
    assert sum(page.startswith("200") for page in found["ours"].values()) > len(found["ours"]) / 2
    for asked, page in found["ours"].items():
        assert page == found["Trac's"][asked], asked

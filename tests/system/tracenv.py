"""Real Trac environments: made once, copied for whoever changes them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .pools import base_environment

CONFIG = """\
[trac]
debug_mode = disabled
default_handler = WikiModule

[attachment]
max_size = 33554432

[logging]
log_type = none
"""

#: A plugin that answers to /greeting.
GREETING = """
from trac.core import Component, implements
from trac.web.api import IRequestHandler

class Greeting(Component):
    implements(IRequestHandler)

    def match_request(self, req):
        return req.path_info == '/greeting'

    def process_request(self, req):
        req.send(b'hello from a plugin', 'text/plain')
"""

#: A plugin that answers to /whose with the module of the function that makes links.
WHOSE = """
from trac.core import Component, implements
from trac.web.api import IRequestHandler
from trac.web.href import Href

class Whose(Component):
    implements(IRequestHandler)

    def match_request(self, req):
        return req.path_info == '/whose'

    def process_request(self, req):
        req.send(Href.__call__.__module__.encode(), 'text/plain')
"""


def trac_admin(env: Path, *words: str) -> str:
    """Run trac-admin on an environment; AssertionError with its output when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "trac.admin.console", str(env), *words],
        env=base_environment(env.parent),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"trac-admin {env} {' '.join(words)}:\n{done.stdout}"
    return done.stdout


def open_to_all(path: Path) -> None:
    """Let every user read and write it: the tests serve it as root, www-data and themselves."""
    for folder, _, files in os.walk(path):
        os.chmod(folder, 0o777)
        for name in files:
            os.chmod(os.path.join(folder, name), 0o666)


def make(path: Path, name: str = "Test project") -> Path:
    """A fresh environment on SQLite in which everybody may do everything."""
    config = path.parent / f"{path.name}.ini"
    config.write_text(CONFIG)
    trac_admin(path, "initenv", f"--config={config}", name, "sqlite:db/trac.db")
    trac_admin(path, "permission", "add", "anonymous", "TRAC_ADMIN")
    open_to_all(path)
    return path


def copy(source: Path, target: Path, name: str = "") -> Path:
    """A copy of an environment that nobody serves, under another project name if given."""
    shutil.copytree(source, target)
    if name:
        configure(target, "project", "name", name)
    open_to_all(target)
    return target


def configure(env: Path, section: str, option: str, value: str) -> None:
    """Set an option in trac.ini."""
    trac_admin(env, "config", "set", section, option, value)

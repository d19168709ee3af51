"""mod_wsgi in daemon mode: an Apache of its own, behind the same nginx as everybody else."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import psutil

from benchmarks.errors import BenchmarkError
from benchmarks.job import Job

USER = "www-data"
#: As Debian's apache2 has it.
MODULES = "/usr/lib/apache2/modules"
CONFIG = """\
ServerRoot {home}
ServerName localhost
DefaultRuntimeDir {home}
PidFile {home}/pid
ErrorLog /dev/stderr
LogLevel error
Listen 127.0.0.1:{port}
{user}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
# One process that passes requests on is enough for 8 connections, and takes the least memory.
StartServers 1
ThreadsPerChild 25
MinSpareThreads 1
MaxSpareThreads 50
LoadModule authz_core_module {modules}/mod_authz_core.so
{module}
WSGISocketPrefix {home}/wsgi
# Without this, each of Apache's own processes would get a Python that is not used.
WSGIRestrictEmbedded On
WSGIDaemonProcess served processes={workers} threads=1 display-name={name} python-path={path}
# Named here, group and application make the daemons load the script at once.
WSGIScriptAlias {mount} {script} process-group=served application-group=%{{GLOBAL}}
<Directory {home}>
    Require all granted
</Directory>
"""
NAME = "(wsgi:served)"


def write(job: Job) -> Path:
    """Write Apache's configuration and the script that it serves; return the configuration."""
    module, _, attribute = job.target.partition(":")
    script = job.home / "served.wsgi"
    script.write_text(f"from {module} import {attribute} as application\n")
    as_root = os.geteuid() == 0
    if as_root:
        # Apache refuses to serve as root.
        _give(job.home)
    config = job.home / "apache.conf"
    config.write_text(
        CONFIG.format(
            home=job.home, port=job.port, mount=job.mount, workers=job.workers, script=script,
            name=NAME, user=f"User {USER}\nGroup {USER}" if as_root else "", modules=MODULES,
            module=_module(job.python), path=Path(__file__).resolve().parents[1],
        )
    )  # fmt: skip
    return config


def daemons(root: psutil.Process) -> list[psutil.Process]:
    """Apache cuts their title off at the length of its own name."""
    return [process for process in root.children() if process.cmdline()[:1] == [NAME[:7]]]


def _module(python: Path) -> str:
    """The lines that load the module which pip has built."""
    command = [str(python.with_name("mod_wsgi-express")), "module-config"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchmarkError(f"mod_wsgi does not say where its module is:\n{done.stderr}")
    return done.stdout


def _give(home: Path) -> None:
    user = pwd.getpwnam(USER)
    for place in [home, *home.rglob("*")]:
        os.chown(place, user.pw_uid, user.pw_gid)

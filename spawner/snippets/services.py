"""What the templates for init systems, logrotate and tmpfiles.d are given besides."""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator, List, Sequence

from spawner.controlpath import default_control_path
from spawner.setting import Scope
from spawner.settings import DEFAULT_POOL, SETTINGS, Settings
from spawner.snippets.kinds import Form
from spawner.snippets.plain import refuse_unsafe
from spawner.snippets.programs import command
from spawner.snippets.source import Described
from workers.errors import BootError

#: Between the end of --stop-timeout and the end of the master.
_MARGIN = 15
#: What systemd does itself.
_NOT_FOR_SYSTEMD = ("daemonize", "pidfile")
#: Folders in which only root makes files.
_OF_ROOT = {"/", "/run", "/var/log"}
_TEMPORARY = ("/tmp/", "/var/tmp/")
#: Sockets of a service that nobody has named a better place for.
_RUN = "/run/trac-spawn"


def service_facts(form: Form, conf_dir: str, run_dir: str, described: Described) -> Dict[str, Any]:
    """Raises BootError for what a unit cannot say."""
    pool, master = described.pool, described.master
    if form.name.startswith("template"):
        refuse_unsafe(conf_dir, quoted=False)
    name = "trac-spawn" if pool.name == DEFAULT_POOL or described.file else f"trac-spawn-{pool.name}"
    instance = "%i" if form.name.startswith("template") else name.partition("trac-spawn-")[2] or DEFAULT_POOL
    paths = set(_paths(described))
    runtime = {path for path in paths if path.startswith("/run/")}
    shared = described.file or form.any_pool
    # What one user alone may do, the service need not be root for.
    run_as = None if shared or paths & _OF_ROOT else pool.user
    return {
        "conf_dir": conf_dir,
        "run_dir": run_dir,
        "unit": name,
        "instance": instance,
        "pools": len(described.pools),
        "shown_pools": ", ".join(one.name for one in described.pools),
        "spawn_program": command("trac-spawn"),
        "control_program": command("trac-spawnctl"),
        "start": _start(described, run_as is None) if form.name == "service" else "",
        "runtime": " ".join([f"trac-spawn/{instance}", *sorted(path[len("/run/") :] for path in runtime)]),
        "control": _control(form, instance, described),
        "run_as": run_as,
        "socket_mode": f"{pool.socket_mode:04o}",
        "socket_user": pool.socket_user,
        "socket_group": pool.socket_group,
        "backlog": pool.backlog,
        "stop_time": int(master.stop_timeout) + _MARGIN,
        "in_tmp": any(f"{path}/".startswith(_TEMPORARY) for path in paths),
        "writable": sorted(f'"{path}"' if " " in path else path for path in paths - runtime),
        "folders": sorted({os.path.dirname(path) for path in _in_run(described)} - {"/run"}),
        "logs": list(_logs(described)),
    }


def _start(described: Described, as_root: bool) -> str:
    """The command line of the service."""
    words = [command("trac-spawn")]
    if described.file:
        refuse_unsafe(described.file, quoted=False)
        return f"{words[0]} -f {described.file}"
    if len(described.pools) > 1:
        raise BootError(
            "the options of several pools cannot stand in one command: give their file, with -f", os.EX_USAGE
        )
    for settings, scopes in (
        (described.master, (Scope.MASTER,)),
        (described.pool, (Scope.POOL, Scope.SINGLE_POOL)),
    ):
        for setting in SETTINGS:
            if setting.name in ("user", "group") and not as_root:
                continue
            if setting.scope in scopes and setting.name in settings.sources:
                words += _words(setting.name, settings)
    return " \\\n    ".join(words)


def _words(name: str, settings: Settings) -> Iterator[str]:
    setting = next(one for one in SETTINGS if one.name == name)
    value = getattr(settings, name)
    if name in _NOT_FOR_SYSTEMD or not setting.is_set(value):
        return
    if setting.is_switch:
        yield setting.option if setting.written(value) == "yes" else setting.opposite
        return
    for one in value if setting.many else [value]:
        text = str(one) if setting.many else setting.written(value)
        refuse_unsafe(text)
        if not text.startswith("fd://"):
            yield f'{setting.option} "{text}"' if " " in text else f"{setting.option} {text}"


def _control(form: Form, instance: str, described: Described) -> str:
    if form.name in ("service", "template"):
        return described.master.control or f"{_RUN}/{instance}/control"
    return described.control or described.master.control or default_control_path(described.master) or ""


# -- files ---------------------------------------------------------------------------------------


def _sockets(described: Described) -> Iterator[str]:
    for pool in described.pools:
        yield from (address.path for address in pool.listeners() if address.kind == "unix")


def _log_files(settings: Sequence[Settings]) -> Iterator[str]:
    for one in settings:
        for name in ("log_file", "slow_log", "access_log"):
            path = getattr(one, name, None)
            if isinstance(path, str) and "/" in path:
                yield os.path.abspath(path)


def _environments(described: Described) -> Iterator[str]:
    for pool in described.pools:
        for path in (pool.env, pool.env_parent_dir):
            if path is not None:
                yield os.path.abspath(path)


def _paths(described: Described) -> Iterator[str]:
    """What the service writes to."""
    yield from _environments(described)
    for path in (*_log_files([described.master, *described.pools]), *_sockets(described)):
        if not path.startswith(f"{_RUN}/"):
            yield os.path.dirname(path)


def _in_run(described: Described) -> Iterator[str]:
    for path in (*_sockets(described), described.master.control or "", described.master.pidfile or ""):
        if path.startswith("/run/"):
            yield path


def _logs(described: Described) -> Iterator[Dict[str, Any]]:
    ours = sorted(set(_log_files([described.master, described.pool])))
    if ours:
        yield {"files": ours, "user": None}
    pool = described.pool
    where: List[str] = []
    if pool.env is not None:
        where.append(f"{os.path.abspath(pool.env)}/log/*.log")
    elif pool.env_parent_dir is not None:
        where.append(f"{os.path.abspath(pool.env_parent_dir)}/*/log/*.log")
    if where:
        yield {"files": where, "user": pool.user}

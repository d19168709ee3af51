"""A reload: new code and settings take over while everybody is served, and broken ones never do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from .clients import Load, fcgi_load
from .control import ctl, reload
from .pools import MODES, Pool, Spawner
from .processes import wait_until
from .tracenv import GREETING, configure
from .visits import APP, Visit, busy_visit, get

VERSIONED = """
from tests.system.apps import application as whole

VERSION = "one"

def application(environ, start_response):
    if environ["PATH_INFO"] != "/version":
        return whole(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [VERSION.encode()]
"""


def versioned(spawn: Spawner, tmp_path: Path, *options: object) -> Pool:
    (tmp_path / "versioned.py").write_text(VERSIONED)
    return spawn("-n", 2, "--app", "versioned:application", *options, cwd=tmp_path)


def change(tmp_path: Path, text: str) -> None:
    """As an editor or pip does; the compiled file of a second ago must not be taken for it."""
    (tmp_path / "versioned.py").write_text(text)
    stamp = (tmp_path / "versioned.py").stat().st_mtime + 5
    os.utime(tmp_path / "versioned.py", (stamp, stamp))


@MODES
def test_five_reloads_under_load_lose_nothing(spawn: Spawner, tmp_path: Path, mode: list[str]) -> None:
    pool = versioned(spawn, tmp_path, *mode)
    with fcgi_load(pool.socket) as load:
        load.wait_for(50)
        for number in range(5):
            change(tmp_path, VERSIONED.replace('"one"', f'"version {number}"'))
            reload(pool)
            assert get(pool, "/version") == f"version {number}"
            load.wait_for(20)
    load.check(100)
    assert {worker.generation for worker in pool.workers()} == {6}
    assert pool.stop() == 0


@MODES
def test_a_broken_application_changes_nothing(spawn: Spawner, tmp_path: Path, mode: list[str]) -> None:
    pool = versioned(spawn, tmp_path, *mode)
    before = {worker.pid for worker in pool.workers()}
    change(tmp_path, "this is no Python")
    with fcgi_load(pool.socket) as load:
        load.wait_for(20)
        mark = pool.mark()
        os.kill(pool.pid, signal.SIGHUP)
        pool.wait_for_line("reload failed, the old generation serves on: .*SyntaxError", after=mark)
        pool.wait_for_line("Traceback", after=mark)
        load.wait_for(20)
    load.check()
    assert {worker.pid for worker in pool.workers()} == before
    assert get(pool, "/version") == "one"
    if not mode:
        # The old template is still there, and still has the code that works.
        os.kill(min(before), signal.SIGKILL)
        wait_until(lambda: len({worker.pid for worker in pool.workers("idle")} - before) == 1)
    change(tmp_path, VERSIONED.replace('"one"', '"mended"'))
    reload(pool)
    assert get(pool, "/version") == "mended"
    assert pool.stop() == 0


def test_a_worker_that_is_busy_finishes(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP)
    visit = busy_visit(pool, "/sleep?seconds=1")
    reload(pool)
    get(pool, "/echo")
    visit.body()
    assert pool.stop() == 0


def test_a_reload_overtaken_by_another(spawn: Spawner, tmp_path: Path) -> None:
    pool = versioned(spawn, tmp_path)
    for _ in range(5):
        os.kill(pool.pid, signal.SIGHUP)
    change(tmp_path, VERSIONED.replace('"one"', '"last"'))
    reload(pool)
    assert get(pool, "/version") == "last"
    wait_until(lambda: len(pool.workers()) == 2)
    wait_until(lambda: len(pool.members()) == 4)  # one master, one template, two workers
    assert pool.stop() == 0


def test_a_stop_in_the_middle_of_a_reload(spawn: Spawner, tmp_path: Path) -> None:
    pool = versioned(spawn, tmp_path)
    os.kill(pool.pid, signal.SIGHUP)
    pool.wait_for_line("reloading: generation 2")
    assert pool.stop() == 0


def test_what_trac_alone_does_not_notice(spawn: Spawner, own_env: Path) -> None:
    pool = spawn("-n", 2, "--env", own_env)
    (own_env / "plugins").mkdir(exist_ok=True)
    (own_env / "plugins" / "greeting.py").write_text(GREETING)
    assert Visit(pool, "/greeting").status() == 404
    reload(pool)
    assert get(pool, "/greeting") == "hello from a plugin"
    configure(own_env, "components", "greeting.*", "disabled")
    reload(pool)
    assert Visit(pool, "/greeting").status() == 404
    assert pool.stop() == 0


@MODES
def test_a_broken_plugin_changes_nothing(spawn: Spawner, own_env: Path, mode: list[str]) -> None:
    """Trac would go on without it, and visitors would miss what it did."""
    plugins = own_env / "plugins"
    (plugins / "hopeless.py").write_text("1 / 0\n")
    (plugins / "greeting.py").write_text(GREETING)
    pool = spawn("-n", 1, "--env", own_env, *mode)
    assert get(pool, "/greeting") == "hello from a plugin"
    (plugins / "greeting.py").write_text(GREETING + "this is no Python\n")
    with Load(lambda id: (200, f"{get(pool, '/greeting')} {id}".encode()), pause=0.05) as load:
        failed = ctl(pool, "reload")
        assert failed.returncode == os.EX_SOFTWARE
        assert "greeting.py cannot be loaded: SyntaxError" in failed.stderr
        assert "Traceback" in failed.stderr
        load.wait_for(3)
    load.check()
    # What was broken from the start keeps nobody from reloading.
    (plugins / "greeting.py").write_text(GREETING.replace("hello", "hello again"))
    reload(pool)
    assert get(pool, "/greeting") == "hello again from a plugin"
    assert pool.stop() == 0


def test_settings_of_the_file(spawn: Spawner, tmp_path: Path) -> None:
    file = tmp_path / "trac-spawn.conf"
    first, second = tmp_path / "first.sock", tmp_path / "second.sock"
    text = f"[trac-spawn]\n[pool one]\nsocket = {first}\napp = tests.system.apps:application\n"
    file.write_text(text + "workers = 1\n")
    pool = spawn("-f", file, listen=False, cwd=tmp_path)
    get(str(first), "/echo")
    with fcgi_load(first) as load:
        load.wait_for(10)
        file.write_text(text + f"workers = 3\nlisten = unix:{second}\n")
        reload(pool)
        pool.wait_workers(3)
        get(str(second), "/echo")
        load.wait_for(10)
        # What is wrong is told, and changes nothing.
        file.write_text(text + "wokers = 8\n")
        mark = pool.mark()
        os.kill(pool.pid, signal.SIGHUP)
        pool.wait_for_line("reload failed, nothing is changed: .*workers", after=mark)
        assert len(pool.workers()) == 3
        # An address that is left out is let go of.
        file.write_text(text + "workers = 2\n")
        reload(pool)
        wait_until(lambda: not second.exists())
        load.wait_for(10)
    load.check()
    assert pool.stop() == 0


def test_a_change_is_noticed(spawn: Spawner, tmp_path: Path) -> None:
    pool = versioned(spawn, tmp_path, "--watch")
    with fcgi_load(pool.socket) as load:
        load.wait_for(10)
        change(tmp_path, VERSIONED.replace('"one"', '"watched"'))
        pool.wait_for_line("changed: .*versioned.py")
        pool.wait_for_line("reloaded: generation 2")
        assert get(pool, "/version") == "watched"
    load.check()
    # What the reload itself has left behind, such as compiled files, starts no other one: the next
    # thing that is noticed is the next change.
    change(tmp_path, VERSIONED.replace('"one"', '"again"'))
    pool.wait_for_line("reloaded: generation 3")
    assert get(pool, "/version") == "again"
    assert pool.log.count("changed: ") == 2
    assert pool.stop() == 0


def test_what_writes_to_itself_is_not_loaded_for_ever(spawn: Spawner, tmp_path: Path) -> None:
    restless = VERSIONED + "\nopen(__file__, 'a').write('#')\n"
    (tmp_path / "versioned.py").write_text(restless)
    pool = spawn("-n", 1, "--app", "versioned:application", "--watch", cwd=tmp_path)
    for seconds in (2, 4):
        pool.wait_for_line(f"versioned.py has changed while .*: .* nothing changes for {seconds} s")
    get(pool, "/echo")
    assert pool.stop() == 0


def test_trac_ini_is_watched(spawn: Spawner, own_env: Path) -> None:
    pool = spawn("-n", 1, "--env", own_env, "--watch")
    assert "<title>" in get(pool, "/about")
    configure(own_env, "components", "trac.about.*", "disabled")
    pool.wait_for_line("changed: .*trac.ini")
    pool.wait_for_line("reloaded: generation 2")
    assert Visit(pool, "/about").status() == 404
    assert pool.stop() == 0

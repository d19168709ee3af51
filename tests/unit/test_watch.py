"""What is watched, what counts as a change, and when."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spawner import watchlist
from spawner.watch import LONGEST_QUIET, Fingerprint, Look, Source, Watcher, differences


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Disk:
    """A source whose findings the test decides."""

    def __init__(self, **found: int) -> None:
        self.found = found

    def __call__(self, look: Look) -> None:
        for name, number in self.found.items():
            look.found[name] = (number, 0, 0)


def fingerprint(source: Source) -> Fingerprint:
    look = Look()
    source(look)
    return look.found


def seen(source: Source) -> set[str]:
    return set(fingerprint(source))


def change(path: Path, text: str = "changed") -> None:
    """Replace a file as editors do: the new one gets another number, whatever the clock says."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


# -- when ----------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_change_counts_once_it_is_quiet_for_a_second(clock: Clock) -> None:
    disk = Disk(a=1, b=1)
    watcher = Watcher(disk, clock=clock)
    disk.found = {"a": 2, "c": 1}
    assert watcher.next_deadline() == 1001.0
    assert watcher.changed() == []  # not looked yet
    clock.now = 1001.0
    assert watcher.changed() == []  # seen now
    clock.now = 1001.9
    assert watcher.changed() == []
    clock.now = 1002.0
    assert watcher.changed() == ["a", "b", "c"]
    # Known from then on.
    clock.now = 1010.0
    assert watcher.changed() == []


def test_each_further_change_begins_the_second_anew(clock: Clock) -> None:
    disk = Disk(a=1)
    watcher = Watcher(disk, clock=clock)
    for number in range(2, 20):
        disk.found["a"] = number
        clock.now += 1.0
        assert watcher.changed() == []
    clock.now += 1.0
    assert watcher.changed() == ["a"]


def test_what_changes_back_was_no_change(clock: Clock) -> None:
    disk = Disk(a=1)
    watcher = Watcher(disk, clock=clock)
    disk.found["b"] = 1
    clock.now += 1.0
    assert watcher.changed() == []
    del disk.found["b"]
    for _ in range(3):
        clock.now += 1.0
        assert watcher.changed() == []


def test_changes_of_several_looks_are_named_together(clock: Clock) -> None:
    disk = Disk()
    watcher = Watcher(disk, clock=clock)
    for name in ("b", "a"):
        disk.found[name] = 1
        clock.now += 1.0
        assert watcher.changed() == []
    clock.now += 1.0
    assert watcher.changed() == ["a", "b"]


def test_between_looks_the_disk_is_left_alone(clock: Clock) -> None:
    looks: list[Look] = []
    watcher = Watcher(looks.append, clock=clock)
    assert len(looks) == 1
    for _ in range(100):
        watcher.changed()
    assert len(looks) == 1
    # Late is late: one look, and the next a whole interval later.
    clock.now += 60.0
    watcher.changed()
    watcher.changed()
    assert len(looks) == 2
    assert watcher.next_deadline() == clock.now + 1.0


def test_after_a_reset_what_is_there_is_known(clock: Clock) -> None:
    disk = Disk(a=1)
    watcher = Watcher(disk, clock=clock)
    disk.found["a"] = 2
    clock.now += 1.0
    assert watcher.changed() == []
    watcher.reset()
    for _ in range(3):
        clock.now += 1.0
        assert watcher.changed() == []
    disk.found["a"] = 3
    clock.now += 1.0
    watcher.changed()
    clock.now += 1.0
    assert watcher.changed() == ["a"]


def quiet_seconds(watcher: Watcher, clock: Clock) -> float:
    """How long a change that is there now has to wait, from the look that finds it."""
    clock.now += 1.0
    assert watcher.changed() == []
    found = clock.now
    while not watcher.changed():
        clock.now += 1.0
    return clock.now - found


def reloading(before: Watcher, disk: Disk, clock: Clock) -> Watcher:
    watcher = Watcher(disk, clock=clock)
    watcher.follow(before)
    return watcher


def test_what_loading_itself_changes_waits_longer_and_longer(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(ini=1)
    watcher = Watcher(disk, clock=clock)
    disk.found["ini"] += 1
    waits = [quiet_seconds(watcher, clock)]
    for _ in range(16):
        watcher = reloading(watcher, disk, clock)
        disk.found["ini"] += 1
        watcher.loaded()
        waits.append(quiet_seconds(watcher, clock))
    assert waits[:5] == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert waits[-1] == LONGEST_QUIET == max(waits)
    assert len(caplog.messages) == 16
    assert caplog.messages[1].startswith("ini has changed while the application was being loaded")
    # It has learned better.
    watcher = reloading(watcher, disk, clock)
    watcher.loaded()
    clock.now += 60.0
    disk.found["ini"] += 1
    assert quiet_seconds(watcher, clock) == 1.0
    assert len(caplog.messages) == 16


def test_workers_that_change_something_when_they_start_count_as_well(clock: Clock) -> None:
    disk = Disk(ini=1)
    watcher = reloading(Watcher(disk, clock=clock), disk, clock)
    watcher.loaded()
    for _ in range(4):
        clock.now += 1.0
        disk.found["ini"] += 1
        assert watcher.changed() == []
    clock.now += 1.0
    assert watcher.changed() == []
    clock.now += 1.0
    assert watcher.changed() == ["ini"]  # one echo, however often it was written


def test_an_edit_is_seen_soon_while_an_echo_waits(clock: Clock) -> None:
    disk = Disk(ini=1, plugin=1)
    watcher = Watcher(disk, clock=clock)
    for _ in range(6):
        watcher = reloading(watcher, disk, clock)
        disk.found["ini"] += 1
        watcher.loaded()
        clock.now += 1.0
        assert watcher.changed() == []
    clock.now += 5.0
    assert watcher.changed() == []
    disk.found["plugin"] += 1
    assert quiet_seconds(watcher, clock) == 1.0
    watcher = reloading(watcher, disk, clock)
    disk.found["ini"] += 1
    watcher.loaded()
    assert quiet_seconds(watcher, clock) == 2.0  # and it begins anew


def test_one_loading_does_not_overtake_another(clock: Clock) -> None:
    disk = Disk(a=1)
    watcher = reloading(Watcher(disk, clock=clock), disk, clock)
    disk.found["a"] += 1
    for _ in range(30):
        clock.now += 1.0
        assert watcher.changed() == []
    watcher.loaded()
    clock.now += 1.0
    assert watcher.changed() == ["a"]


def test_sources_are_looked_at_together(clock: Clock) -> None:
    first, second = Disk(a=1), Disk(b=1)
    watcher = Watcher(first, second, clock=clock)
    second.found["b"] = 2
    clock.now += 1.0
    watcher.changed()
    clock.now += 1.0
    assert watcher.changed() == ["b"]


def test_differences_name_what_came_went_or_changed() -> None:
    old = {"same": (1, 1, 1), "time": (1, 1, 1), "gone": (1, 1, 1)}
    new = {"same": (1, 1, 1), "time": (2, 1, 1), "come": (1, 1, 1)}
    assert differences(old, new) == ["come", "gone", "time"]
    assert differences(old, dict(old)) == []


# -- one look ------------------------------------------------------------------------------------


def any_name(name: str) -> bool:
    return True


def test_every_kind_of_change_shows(tmp_path: Path) -> None:
    path = tmp_path / "f"
    source = watchlist.files(str(path))

    def differs() -> bool:
        before = dict(last)
        last.clear()
        last.update(fingerprint(source))
        return before != last

    last: Fingerprint = {}
    assert not differs()
    path.write_text("one")
    assert differs()
    assert not differs()
    os.utime(path, ns=(5, 5))
    assert differs()
    path.write_text("longer")
    os.utime(path, ns=(5, 5))
    assert differs()
    # Same size, same time, another file.
    change(path, "LONGER")
    os.utime(path, ns=(5, 5))
    assert differs()
    path.unlink()
    assert differs()
    assert last == {}


def test_files_that_cannot_be_looked_at_are_states(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "dangling").symlink_to("nowhere")
    look = Look()
    for name in ("missing", "file/below", "circle", "dangling", "nul\0"):
        look.at(f"{tmp_path}/{name}")
        look.into(f"{tmp_path}/{name}", any_name, any_name)
        look.entries(f"{tmp_path}/{name}", (".pth",))
    assert look.found == {}
    # The others in the folder are seen all the same.
    look.into(str(tmp_path), any_name, any_name)
    assert set(look.found) == {f"{tmp_path}/file"}
    # A name that is too long is an error of another kind, for root as well.
    long = f"{tmp_path}/{'x' * 300}"
    look = Look()
    look.at(long)
    look.into(long + "1", any_name, any_name)
    look.entries(long + "2", (".pth",))
    assert len(look.found) == 3
    assert all(signature[0] < 0 for signature in look.found.values())


def test_editors_pip_and_python_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text("")
    before = fingerprint(lambda look: look.into(str(tmp_path), any_name, any_name))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "plugin.cpython-311.pyc").write_text("")
    for name in (".plugin.py.swp", "plugin.py~", "#plugin.py#", "plugin.pyc", "~ip.dist-info"):
        (tmp_path / name).write_text("")
    (tmp_path / "empty").mkdir()
    assert fingerprint(lambda look: look.into(str(tmp_path), any_name, any_name)) == before


def test_a_look_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "file").write_text("")
    look = Look()
    look.into(str(tmp_path), any_name, any_name)
    assert 1 < len(look.found) < 20
    assert not look.cut_short
    for number in range(100):
        (tmp_path / f"{number}").write_text("")
    look = Look(most=50)
    look.into(str(tmp_path), any_name, any_name)
    assert len(look.found) <= 50
    assert look.cut_short


# -- Trac environments ---------------------------------------------------------------------------


@pytest.fixture
def env(tmp_path: Path) -> Path:
    return make_env(tmp_path / "env")


def make_env(path: Path) -> Path:
    for name in ("conf", "plugins", "templates", "log", "db"):
        (path / name).mkdir(parents=True)
    (path / "VERSION").write_text("Trac Environment Version 1\n")
    (path / "conf" / "trac.ini").write_text("[trac]\n")
    (path / "plugins" / "one.py").write_text("")
    (path / "templates" / "site.html").write_text("")
    return path


def test_an_environments_own_files(env: Path) -> None:
    (env / "plugins" / "Two-1.0-py3.11.egg" / "two").mkdir(parents=True)
    (env / "plugins" / "Two-1.0-py3.11.egg" / "two" / "core.py").write_text("")
    (env / "log" / "trac.log").write_text("")
    (env / "db" / "trac.db").write_text("")
    assert seen(watchlist.Environment(str(env))) == {
        str(env / name)
        for name in (
            "VERSION",
            "conf/trac.ini",
            "plugins/one.py",
            "plugins/Two-1.0-py3.11.egg/two/core.py",
            "templates/site.html",
        )
    }


def test_inherited_files_are_followed_as_far_as_they_go(env: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "deep").mkdir(parents=True)
    (shared / "site.ini").write_text("[inherit]\nfile = deep/base.ini\n")
    (shared / "deep" / "base.ini").write_text(f"[inherit]\nfile = {env}/conf/trac.ini\n")
    other = tmp_path / "other.ini"
    ini = env / "conf" / "trac.ini"
    ini.write_text(
        "[trac]\nx = %(broken\n[inherit]\nfile = ../../shared/site.ini,\n       "
        f"{other}, missing.ini\nFile_ = x\n[logging]\n"
    )
    source = watchlist.Environment(str(env))
    inherited = {str(shared / "site.ini"), str(shared / "deep" / "base.ini")}
    assert inherited <= seen(source)
    assert str(other) not in seen(source)
    other.write_text("")
    (env / "conf" / "missing.ini").write_text("")
    assert inherited | {str(other), str(env / "conf" / "missing.ini")} <= seen(source)
    # And no longer than they are named.
    change(ini, "[inherit]\nfile = missing.ini\n")
    assert not inherited & seen(source)
    assert str(env / "conf" / "missing.ini") in seen(source)


def test_shared_plugins_and_templates(env: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared.ini"
    # As in Trac: relative to the environment's trac.ini, wherever it is written.
    shared.write_text("[inherit]\nplugins_dir = ../../more-plugins\n")
    (env / "conf" / "trac.ini").write_text(
        f"[inherit]\nfile = {shared}\nTemplates_Dir = {tmp_path}/more-templates\nplugins_dir =\n"
    )
    source = watchlist.Environment(str(env))
    before = seen(source)
    for name in ("more-plugins", "more-templates"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file.py").write_text("")
    expected = {f"{tmp_path}/more-plugins/file.py", f"{tmp_path}/more-templates/file.py"}
    assert seen(source) - before == expected


@pytest.mark.parametrize(
    "text",
    [
        b"file = x.ini\n",
        b"[inherit\nfile = x.ini\n",
        b"[inherit]\nnonsense\n",
        b"[inherit]\n= = =\nfile\n",
        b"[inherit]\nfile = \0.ini\n",
        b"[inherit]\nfile = , ,\n",
        b"\xff\xfe\0[\0i\0",
        b"",
    ],
)
def test_a_broken_file_is_its_signature(text: bytes, env: Path) -> None:
    before = seen(watchlist.Environment(str(env)))
    (env / "conf" / "trac.ini").write_bytes(text)
    assert seen(watchlist.Environment(str(env))) == before


def test_what_is_broken_elsewhere_does_not_hide_what_is_inherited(env: Path) -> None:
    (env / "conf" / "site.ini").write_text("")
    (env / "conf" / "trac.ini").write_bytes(
        b"nonsense\n[trac]\nbroken\n[inherit]\nfile = site.ini\n[inherit]\nx = \xff\n[other]\n???\n"
    )
    assert str(env / "conf" / "site.ini") in seen(watchlist.Environment(str(env)))


def test_nothing_but_files_is_read(env: Path) -> None:
    """Whoever watches may be root, and trac.ini belongs to somebody else."""
    os.mkfifo(env / "conf" / "fifo")
    (env / "conf" / "folder.ini").mkdir()
    (env / "conf" / "trac.ini").write_text("[inherit]\nfile = fifo, /dev/zero, /dev/tty, folder.ini\n")
    assert str(env / "conf" / "fifo") in seen(watchlist.Environment(str(env)))


def test_an_endless_chain_of_files_has_an_end(env: Path) -> None:
    for number in range(200):
        (env / "conf" / f"{number}.ini").write_text(f"[inherit]\nfile = {number + 1}.ini\n")
    (env / "conf" / "trac.ini").write_text("[inherit]\nfile = 0.ini\n")
    assert 50 < len(seen(watchlist.Environment(str(env)))) < 100


@pytest.mark.parametrize("missing", ["conf", "plugins", "templates", "VERSION", "."])
def test_an_environment_with_something_missing(missing: str, env: Path) -> None:
    source = watchlist.Environment(str(env))
    before = fingerprint(source)
    path = env / missing
    path.rename(env.parent / "aside")
    after = fingerprint(source)
    assert set(after) < set(before)
    (env.parent / "aside").rename(path)
    assert fingerprint(source) == before


def test_environments_come_and_go(tmp_path: Path) -> None:
    parent = tmp_path / "projects"
    source = watchlist.environments(str(parent))
    assert seen(source) == set()
    one = make_env(parent / "one")
    (parent / "no-environment").mkdir()
    assert seen(source) == seen(watchlist.Environment(str(one)))
    two = make_env(parent / "two")
    both = {*seen(watchlist.Environment(str(one))), *seen(watchlist.Environment(str(two)))}
    assert seen(source) == both
    shutil.rmtree(one)
    assert seen(source) == seen(watchlist.Environment(str(two)))


@pytest.mark.parametrize(
    "name", ["conf/trac.ini", "VERSION", "plugins/one.py", "templates/site.html"]
)
def test_a_watcher_names_the_file_that_changed(name: str, env: Path, clock: Clock) -> None:
    watcher = Watcher(watchlist.Environment(str(env)), clock=clock)
    change(env / name)
    clock.now += 1.0
    assert watcher.changed() == []
    clock.now += 1.0
    assert watcher.changed() == [str(env / name)]


# -- what is installed ---------------------------------------------------------------------------


def test_installing_upgrading_and_removing_show(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    source = watchlist.distributions([str(site)])
    assert seen(source) == set()
    (site / "Plugin-1.0.dist-info").mkdir(parents=True)
    (site / "plugin").mkdir()
    (site / "plugin" / "__init__.py").write_text("")
    for name in ("easy-install.pth", "Other.egg-link", "Old-1.0.egg-info", "Older-1.0-py3.egg"):
        (site / name).write_text("")
    (site / "typing_extensions.py").write_text("")
    names = ("easy-install.pth", "Other.egg-link", "Old-1.0.egg-info", "Older-1.0-py3.egg")
    assert seen(source) == {str(site / name) for name in (*names, "Plugin-1.0.dist-info")}
    before = fingerprint(source)
    # The same version again.
    shutil.rmtree(site / "Plugin-1.0.dist-info")
    (site / "Plugin-1.0.dist-info").mkdir()
    (site / "Plugin-1.0.dist-info" / "RECORD").write_text("")
    assert differences(before, fingerprint(source)) == [str(site / "Plugin-1.0.dist-info")]
    (site / "Plugin-1.0.dist-info").rename(site / "Plugin-1.1.dist-info")
    assert len(differences(before, fingerprint(source))) == 2


def test_by_default_what_this_interpreter_has() -> None:
    found = {os.path.basename(path).lower() for path in seen(watchlist.distributions())}
    assert any(name.startswith("trac-") and name.endswith(".dist-info") for name in found)


# -- --app ---------------------------------------------------------------------------------------


@pytest.fixture
def code(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "code"
    for name in (
        "single.py",
        "beside.py",
        "package/__init__.py",
        "package/core.py",
        "package/sub/__init__.py",
        "package/sub/deep.py",
        "package/data/not_code.py",
        "package/page.html",
        "loose/part.py",
        "single/no_package.py",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    yield folder


PACKAGE = {"package/__init__.py", "package/core.py", "package/sub/__init__.py", "package/sub/deep.py"}


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("single", {"single.py", "beside.py"} | PACKAGE),
        ("package", PACKAGE),
        ("package.sub.deep", PACKAGE),
        ("loose.part", {"loose/part.py"}),
        ("nowhere", set()),
    ],
)
def test_a_local_module_and_what_is_beside_it(name: str, names: set[str], code: Path) -> None:
    source = watchlist.modules(name, str(code), [])
    assert seen(source) == {str(code / name) for name in names}
    # Along the path as well, and behind a folder of that name that is no package.
    elsewhere = code.parent / "elsewhere"
    (elsewhere / name.partition(".")[0]).mkdir(parents=True)
    source = watchlist.modules(name, str(elsewhere), [str(code)])
    expected = set() if name.startswith("loose") else {str(code / name) for name in names}
    assert seen(source) == expected


def test_a_module_that_appears_later(tmp_path: Path) -> None:
    source = watchlist.modules("late", str(tmp_path), [])
    assert seen(source) == set()
    (tmp_path / "late.py").write_text("")
    assert seen(source) == {str(tmp_path / "late.py")}


@pytest.mark.parametrize("name", ["wsgiref.simple_server", "json", "click", "trac.web.main"])
def test_what_is_installed_is_no_local_module(name: str, tmp_path: Path) -> None:
    assert seen(watchlist.modules(name, str(tmp_path))) == set()


def test_finding_a_module_does_not_import_it(tmp_path: Path) -> None:
    (tmp_path / "explosive.py").write_text("raise SystemExit")
    assert seen(watchlist.modules("explosive", str(tmp_path))) == {str(tmp_path / "explosive.py")}
    assert "explosive" not in sys.modules

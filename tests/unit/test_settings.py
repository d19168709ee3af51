"""Every setting from every place it can come from, and what is said when it is wrong."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

import pytest

from spawner import values
from spawner.checks import check_application, check_places, check_privileges
from spawner.layers import (
    Given,
    Layer,
    read_command_line,
    read_environment,
    refuse_contradictions,
    resolve,
)
from spawner.setting import Rank, Setting, Source
from spawner.settings import BY_NAME, GROUPS, SETTINGS, Settings
from workers import fcgi
from workers.errors import BootError

BASIS = {"app": "site:app", "socket": "/run/trac.sock"}


def settle(
    options: Optional[Dict[str, Any]] = None, environ: Optional[Dict[str, str]] = None
) -> Settings:
    return resolve(read_command_line(options or {}), read_environment(environ or {}))


def refusal(options: Dict[str, Any], environ: Optional[Dict[str, str]] = None) -> str:
    with pytest.raises(BootError) as caught:
        settle(options, environ)
    assert caught.value.exit_code == os.EX_USAGE
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The table


def test_table_and_attributes_are_the_same_thing() -> None:
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert set(BY_NAME) == fields - {"name", "environment", "sources"} == set(SAMPLES)
    assert {setting.name for setting in SETTINGS} == set(BY_NAME)
    assert {setting.group for setting in SETTINGS} == set(GROUPS)


@pytest.mark.parametrize("setting", BY_NAME.values(), ids=lambda setting: setting.name)
def test_each_setting_is_documented_and_at_its_default(setting: Setting) -> None:
    assert setting.help.endswith(".")
    assert setting.is_switch != bool(setting.metavar)
    assert getattr(Settings(), setting.name) == setting.default
    assert str(Settings().source(setting.name)) == "default"


def test_no_flag_is_used_twice() -> None:
    flags = [flag for setting in BY_NAME.values() for flag in (*setting.flags, setting.option)]
    assert len(flags) == len(set(flags))


def test_spawn_fcgi_letters_mean_what_they_mean_there() -> None:
    letters = {flag: setting.name for setting in SETTINGS for flag in setting.flags}
    theirs = {
        "-s": "socket", "-a": "address", "-p": "port", "-M": "socket_mode", "-U": "socket_user",
        "-G": "socket_group", "-u": "user", "-g": "group", "-c": "chroot", "-d": "chdir",
        "-P": "pidfile", "-b": "backlog", "-F": "workers",
    }  # fmt: skip
    assert {letter: letters[letter] for letter in theirs} == theirs


def test_workers_follow_the_cpus_that_may_be_used() -> None:
    assert Settings().workers == len(os.sched_getaffinity(0)) + 1


# One sample for each setting: what is written, what results.
SAMPLES: Dict[str, Tuple[str, Any]] = {
    "socket": ("/s", "/s"), "address": ("::1", "::1"), "port": ("9000", 9000),
    "listen": ("127.0.0.1:1", ("127.0.0.1:1",)), "backlog": ("9", 9), "socket_mode": ("600", 0o600),
    "socket_user": ("www", "www"), "socket_group": ("7", "7"), "env": ("/e", "/e"),
    "env_parent_dir": ("/p", "/p"), "app": ("a.b:c.d", "a.b:c.d"),
    "env_index_template": ("/t.html", "/t.html"), "template_vars": ("a=1,b=2", "a=1,b=2"),
    "base_url": ("https://x/", "https://x/"), "workers": ("12", 12), "max_requests": ("5", 5),
    "max_requests_jitter": ("25%", 0.25), "max_memory": ("500M", 500 << 20),
    "hard_memory": ("1.5G", 1536 << 20), "max_age": ("2h", 7200.0), "template": ("yes", False),
    "gc_freezes": ("3", 3), "ksm": ("yes", True), "static_files": ("yes", False),
    "accelerate": ("yes", False),
    "max_body": ("0", 0), "receive_timeout": ("5", 5.0), "keep_alive_timeout": ("10m", 600.0),
    "stop_timeout": ("0", 0.0), "user": ("trac", "trac"), "group": ("trac", "trac"),
    "chroot": ("/jail", "/jail"), "chdir": ("/srv", "/srv"), "umask": ("027", 0o027),
    "rlimit_files": ("unlimited", -1), "rlimit_core": ("1K", 1024), "daemonize": ("on", True),
    "pidfile": ("/p", "/p"), "log_file": ("/l", "/l"), "log_level": ("DEBUG", "debug"),
    "debug": ("1", True), "check": ("true", True), "demo": ("YES", True),
    "config": ("/c.conf", "/c.conf"), "print_config": ("yes", True), "control": ("/c", "/c"),
    "clear_env": ("yes", True), "watch": ("yes", True), "warmup": ("/wiki", ("/wiki",)),
    "script_name": ("/my%20trac/", "/my trac"), "allow": ("2001:db8::/32", ("2001:db8::/32",)),
    "trust_remote_user": ("Auth-Type", "auth-type"), "env_from_params": ("/srv", ("/srv",)),
    "allow_user": ("33", ("33",)), "allow_group": ("www-data", ("www-data",)),
    "warmup_strict": ("yes", True), "pm": ("OnDemand", "ondemand"), "max_workers": ("20", 20),
    "start_workers": ("7", 7), "min_spare": ("2", 2), "max_spare": ("9", 9),
    "idle_timeout": ("1m", 60.0), "max_surge": ("2", 2), "pool_memory": ("2G", 2 << 30),
    "startup_timeout": ("0", 0.0), "request_timeout": ("5m", 300.0), "kill_after": ("1.5", 1.5),
    "slow_log": ("/slow", "/slow"), "slow_after": ("2", 2.0),
    "log_format": ("JSON", "json"), "capture_output": ("on", True), "wsgi_errors": ("both", "both"),
    "access_log": ("/a", "/a"), "access_format": ("%R %s", "%R %s"), "access_suppress": ("/p", ("/p",)),
    "status_path": ("/s", "/s"), "status_listen": ("127.0.0.1:9", "127.0.0.1:9"),
    "metrics": ("127.0.0.1:9", "127.0.0.1:9"), "ping_path": ("/p", "/p"), "ping_response": ("fine", "fine"),
}  # fmt: skip
# What each sample needs beside it to be a whole configuration.
_DYNAMIC = {"pm": "dynamic", "max_workers": "20"}
COMPANY = {
    "address": {"port": "1"}, "max_workers": {"pm": "ondemand"}, "start_workers": _DYNAMIC,
    "min_spare": _DYNAMIC, "max_spare": _DYNAMIC, "idle_timeout": {"pm": "ondemand"},
    "slow_log": {"slow_after": "1"},
}  # fmt: skip
EXCLUSIVE = {
    "env": "app", "env_parent_dir": "app", "address": "socket", "port": "socket",
}  # fmt: skip


def basis_for(name: str) -> Dict[str, str]:
    basis = {**BASIS, **COMPANY.get(name, {})}
    basis.pop(EXCLUSIVE.get(name, ""), None)
    basis.pop(name, None)
    return basis


@pytest.mark.parametrize("name", sorted(setting.name for setting in SETTINGS))
def test_each_setting_from_the_environment(name: str) -> None:
    text, result = SAMPLES[name]
    environ = {BY_NAME[key].variables[0]: value for key, value in basis_for(name).items()}
    variable = BY_NAME[name].variables[0]
    settings = settle(environ={**environ, variable: text})
    assert getattr(settings, name) == result
    assert str(settings.source(name)) == f"environment {variable}"


@pytest.mark.parametrize("name", sorted(setting.name for setting in SETTINGS))
def test_each_setting_from_the_command_line_wins(name: str) -> None:
    setting = BY_NAME[name]
    text, result = SAMPLES[name]
    typed: Any = True if setting.is_switch else (text,) if setting.many else text
    settings = settle({**basis_for(name), name: typed}, {setting.variables[0]: "nonsense"})
    assert getattr(settings, name) == result
    assert settings.source(name) == Source(Rank.COMMAND_LINE, setting.option)


def test_variable_for_switch_that_is_on_by_default_carries_the_name_of_its_option() -> None:
    assert BY_NAME["template"].option == "--no-template"
    assert BY_NAME["template"].variables == ("TRAC_SPAWN_NO_TEMPLATE",)


def test_switch_can_be_taken_back_on_the_command_line() -> None:
    environ = {"TRAC_SPAWN_DAEMONIZE": "yes", "TRAC_SPAWN_NO_TEMPLATE": "yes"}
    settings = settle({**BASIS, "daemonize": False, "template": False}, environ)
    assert (settings.daemonize, settings.template) == (False, True)
    assert str(settings.source("daemonize")) == "command line --no-daemonize"
    assert str(settings.source("template")) == "command line --template"


def test_file_stands_between_environment_and_default() -> None:
    where = Source(Rank.FILE, "trac-spawn.conf:3", "some-key")
    file: Layer = {
        "workers": Given(("7",), where), "backlog": Given(("7",), where),
        "env": Given(("/from-file",), where),
    }  # fmt: skip
    environ = read_environment({"TRAC_SPAWN_WORKERS": "5", "TRAC_ENV_PARENT_DIR": "/all"})
    settings = resolve(read_command_line({"socket": "/s"}), environ, file)
    assert (settings.workers, settings.backlog, settings.max_requests) == (5, 7, 0)
    assert (settings.env, settings.env_parent_dir) == (None, "/all")
    assert str(settings.source("backlog")) == "file trac-spawn.conf:3"
    assert settings.blame("--backlog: no") == "trac-spawn.conf:3: some-key: no"


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_value_as_a_file_has_it_is_read_as_the_same_value(name: str) -> None:
    setting = BY_NAME[name]
    text, value = SAMPLES[name]
    assert setting.parse(text) == (value[0] if setting.many else value)
    again = setting.parse(value[0] if setting.many else setting.written(value))
    assert again == (value[0] if setting.many else value)


@pytest.mark.parametrize("empty", ["", " "])
def test_empty_variable_counts_as_unset(empty: str) -> None:
    environ = {"TRAC_SPAWN_WORKERS": empty, "TRAC_SPAWN_ENV": empty, "TRAC_ENV": "/srv/trac"}
    settings = settle({"socket": "/s"}, environ)
    assert settings.workers == Settings().workers
    assert str(settings.source("env")) == "environment TRAC_ENV"


def test_empty_option_is_an_error() -> None:
    # As in --user "$NOBODY_SET_THIS", which must not mean root.
    assert refusal({**BASIS, "user": ""}) == "--user: the value is empty"


# What a value can be


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "65536"), ("port", "tcp://10.0.0.1:80"), ("workers", "0"), ("workers", "-1"),
        ("workers", "٣"), ("workers", "1_0"), ("backlog", "0"), ("max_requests", "1e3"),
        ("socket_mode", "0888"), ("socket_mode", "1777"), ("umask", "rwx"), ("max_memory", "1.5X"),
        ("max_memory", "-1M"), ("max_memory", "M"), ("max_age", "1w"), ("max_age", "inf"),
        ("max_age", "nan"), ("max_requests_jitter", "10"), ("max_requests_jitter", "101%"),
        ("receive_timeout", "0"), ("keep_alive_timeout", "-1"), ("app", "mysite.wsgi"),
        ("app", "a:b()"), ("app", "1:2"), ("template_vars", "a"), ("log_level", "loud"),
        ("rlimit_files", "-1"), ("socket", "@"), ("daemonize", "maybe"), ("template", "2"),
    ],
)  # fmt: skip
def test_wrong_value_is_refused_with_the_name_of_its_variable(name: str, text: str) -> None:
    variable = BY_NAME[name].variables[0]
    assert refusal({}, {variable: text}).startswith(variable + ": ")


@pytest.mark.parametrize(
    ("parse", "text", "result"),
    [
        (values.size, "1024K", 1 << 20), (values.size, "1.5g", 3 << 29), (values.size, "7", 7),
        (values.size, "500MB", 500 << 20), (values.size, "2 GiB", 2 << 30),
        (values.duration, "30s", 30.0), (values.duration, "1.5", 1.5),
        (values.duration, "1d", 86400.0), (values.share, "10%", 0.1), (values.share, "0.1", 0.1),
        (values.share, "0", 0.0), (values.octal, "0o660", 0o660), (values.octal, "0", 0),
        (values.url_path, "/report/1?max=5", "/report/1?max=5"),
    ],
)  # fmt: skip
def test_ways_to_write_a_value(parse: Callable[[str], Any], text: str, result: Any) -> None:
    assert parse(text) == pytest.approx(result)


@pytest.mark.parametrize("text", ["1.5", "0.1", "1.1h", "999999999.5d", "999999999h", "2d", "0"])
def test_shown_time_is_read_as_the_same(text: str) -> None:
    seconds = values.duration(text)
    assert values.duration(values.show_duration(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["wiki", "", "http://x/", "/a b", "/ä", "/a\n/b"])
def test_what_is_no_path_of_a_page(text: str) -> None:
    with pytest.raises(ValueError, match="no path of a URL"):
        values.url_path(text)


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = settle(
        {"socket": "t.sock", "env": ".", "pidfile": "run/pid", "listen": ("unix:b.sock",)}
    )
    here = str(tmp_path)
    assert (settings.socket, settings.env) == (here + "/t.sock", here)
    assert (settings.pidfile, settings.listen) == (here + "/run/pid", (f"unix:{here}/b.sock",))


def test_abstract_socket_is_no_path() -> None:
    assert settle({**BASIS, "socket": "@trac"}).socket == "@trac"


# What goes together


def test_nothing_to_serve_and_nowhere_to_listen() -> None:
    assert "--env-parent-dir" in refusal({"socket": "/s"})
    assert "--socket" in refusal({"app": "a:b"})
    assert settle({"demo": True}).demo


@pytest.mark.parametrize(
    ("options", "environ", "kept"),
    [
        ({"env": "/e"}, {"TRAC_ENV_PARENT_DIR": "/p"}, "env"),
        ({"app": "a:b"}, {"TRAC_ENV": "/e"}, "app"),
        ({"env_parent_dir": "/p"}, {"TRAC_SPAWN_ENV": "/e"}, "env_parent_dir"),
        ({}, {"TRAC_SPAWN_ENV": "/e", "TRAC_ENV": "/other"}, "env"),
    ],
)
def test_one_application(options: Dict[str, Any], environ: Dict[str, str], kept: str) -> None:
    settings = settle({"socket": "/s", **options}, environ)
    found = {name for name in ("env", "env_parent_dir", "app") if getattr(settings, name)}
    assert found == {kept}
    assert settings.env in (None, "/e")


@pytest.mark.parametrize(
    ("options", "environ", "names"),
    [
        ({"env": "/e", "app": "a:b"}, {}, ("--env", "--app")),
        ({}, {"TRAC_ENV": "/e", "TRAC_ENV_PARENT_DIR": "/p"}, ("TRAC_ENV", "TRAC_ENV_PARENT_DIR")),
        ({**BASIS, "port": "1"}, {}, ("--socket", "--port")),
    ],
)
def test_two_of_the_same_rank_exclude_each_other(
    options: Dict[str, Any], environ: Dict[str, str], names: Tuple[str, str]
) -> None:
    message = refusal({"socket": "/s", **options}, environ)
    assert message.startswith(f"{names[0]} and {names[1]} exclude each other")


def test_addresses_of_the_command_line_replace_those_of_the_environment() -> None:
    environ = {"TRAC_SPAWN_SOCKET": "/env.sock", "TRAC_SPAWN_LISTEN": "unix:/a  127.0.0.1:1"}
    settings = settle({"app": "a:b", "port": "9000"}, environ)
    assert [str(address) for address in settings.listeners()] == ["127.0.0.1:9000"]
    settings = settle({"app": "a:b"}, environ)
    assert [str(address) for address in settings.listeners()] == [
        "unix:/env.sock", "unix:/a", "127.0.0.1:1",
    ]  # fmt: skip


def test_host_from_the_environment_and_port_from_the_command_line_belong_together() -> None:
    settings = settle({"app": "a:b", "port": "9000"}, {"TRAC_SPAWN_ADDRESS": "::1"})
    assert [str(address) for address in settings.listeners()] == ["[::1]:9000"]


def test_the_specifications_variable_separates_by_commas() -> None:
    environ = {"TRAC_SPAWN_SOCKET": "/s", "FCGI_WEB_SERVER_ADDRS": "192.0.2.1, 192.0.2.2,::1"}
    settings = settle({"app": "a:b"}, environ)
    assert settings.allow == ("192.0.2.1", "192.0.2.2", "::1")
    assert str(settings.source("allow")) == "environment FCGI_WEB_SERVER_ADDRS"


def test_users_are_for_unix_sockets() -> None:
    with pytest.raises(BootError, match="^--allow-user is for Unix sockets, and there is none"):
        settle({"app": "a:b", "port": "9000", "allow_user": ["www-data"]})
    for where in ({"socket": "/s"}, {"listen": ["fd://3"]}, {"listen": ["unix:/s", "127.0.0.1:1"]}):
        assert settle({"app": "a:b", "allow_group": ["33"], **where}).allow_group == ("33",)


def test_a_socket_that_was_opened_before_may_be_a_unix_socket() -> None:
    refuse_contradictions(Settings(allow_user=("www-data",)), sockets_given=True)


def test_wrong_address_is_named() -> None:
    settings = settle({"app": "a:b"}, {"TRAC_SPAWN_LISTEN": "unix:/a nowhere"})
    with pytest.raises(BootError, match="^TRAC_SPAWN_LISTEN: 'nowhere'"):
        settings.listeners()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"app": "a:b", "address": "::1"}, "--address: "),
        ({**BASIS, "max_memory": "2G", "hard_memory": "1G"}, "--hard-memory: .*1G.*--max-memory"),
        ({"demo": True, "daemonize": True}, "--demo"),
        ({**BASIS, "daemonize": True, "log_file": "-"}, "--log-file: a daemon"),
        ({**BASIS, "daemonize": True, "access_log": "-"}, "--access-log: a daemon"),
        ({"socket": "/s", "env": "trac", "chroot": "/"}, "--env: with --chroot"),
    ],
)
def test_contradictions(options: Dict[str, Any], named: str) -> None:
    assert re.match(named, refusal(options))


@pytest.mark.parametrize(
    ("values_given", "said"),
    [
        ({"slow_log": "/slow"}, "--slow-log: .*add --slow-after"),
        ({"slow_after": 5.0, "request_timeout": 5.0}, "--slow-after: .*--request-timeout ends it"),
    ],
)
def test_time_outs_that_contradict_each_other(values_given: Dict[str, Any], said: str) -> None:
    with pytest.raises(BootError, match=f"^{said}"):
        refuse_contradictions(Settings(**values_given))


def test_hard_limit_alone_and_pid_file_in_the_foreground_are_fine() -> None:
    assert settle({**BASIS, "hard_memory": "1G", "pidfile": "/run/x.pid"}).hard_memory == 1 << 30


# The file system


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    (tmp_path / "trac").mkdir()
    (tmp_path / "trac" / "VERSION").write_text("Trac Environment Version 1\n")
    return tmp_path / "trac"


def only(name: str, value: Any) -> Settings:
    return Settings(**{name: value})


def complaint(check: Callable[[Settings], None], settings: Settings) -> Tuple[int, str]:
    with pytest.raises(BootError) as caught:
        check(settings)
    return caught.value.exit_code, str(caught.value)


def test_sound_environment_passes(environment: Path) -> None:
    check_application(Settings(env=str(environment)))
    check_application(Settings(env_parent_dir=str(environment.parent)))
    check_application(Settings(app="no_such_module:app"))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("absent", "absent does not exist"),
        ("trac/VERSION", "VERSION is not a directory"),
        (".", "not a Trac environment, it has no VERSION file; serve .* --env-parent-dir"),
        ("empty", "not a Trac environment, it has no VERSION file; create .* initenv"),
        ("other", "its VERSION file does not begin with"),
    ],
)
def test_no_environment(environment: Path, path: str, said: str) -> None:
    base = environment.parent
    (base / "empty").mkdir()
    (base / "other").mkdir()
    (base / "other" / "VERSION").write_bytes(b"\xff2.0")
    settings = settle({"socket": "/s"}, {"TRAC_ENV": str(base / path)})
    status, message = complaint(check_application, settings)
    assert status == os.EX_NOINPUT
    assert re.search(f"^TRAC_ENV: .*{said}", message)


def test_parent_directory_and_index_template_must_exist(tmp_path: Path) -> None:
    status, message = complaint(check_application, Settings(env_parent_dir="/absent"))
    assert (status, message) == (os.EX_NOINPUT, "--env-parent-dir: /absent does not exist")
    index = Settings(env_parent_dir=str(tmp_path), env_index_template=str(tmp_path / "i.html"))
    status, message = complaint(check_application, index)
    assert status == os.EX_NOINPUT and message.startswith("--env-index-template: ")


def test_behind_chroot_nothing_is_looked_at() -> None:
    check_application(Settings(env="/only/inside", chroot="/srv"))


def as_ordinary_user(check: Callable[[], None]) -> str:
    """What ``check`` says when it is not run by root, who may read everything."""
    importlib.import_module("spawner.privileges")  # now: that user may not reach the sources
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"no complaint"
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            check()
        except BootError as error:
            said = f"{error.exit_code} {error}".encode()
        except BaseException as error:
            said = repr(error).encode()
        finally:
            os.write(writing, said)
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


@pytest.mark.parametrize("name", ["env", "env_parent_dir"])
def test_directory_that_may_not_be_read(environment: Path, name: str) -> None:
    settings = resolve(read_command_line({"socket": "/s", name: str(environment)}))
    environment.chmod(0)
    said = as_ordinary_user(lambda: check_application(settings))
    environment.chmod(0o700)
    option = BY_NAME[name].option
    assert said == f"{os.EX_NOPERM} {option}: {environment}: permission denied"


@pytest.mark.parametrize("name", ["user", "group"])
def test_changing_identity_is_for_root_only(name: str) -> None:
    settings = only(name, "root")
    said = as_ordinary_user(lambda: check_privileges(settings))
    assert said.startswith(f"{os.EX_NOPERM} --{name}: only root")


@pytest.mark.parametrize("name", ["user", "group", "socket_user", "socket_group"])
def test_unknown_names(name: str) -> None:
    status, message = complaint(check_privileges, only(name, "no-such-name"))
    assert status == os.EX_NOUSER
    assert message.startswith(BY_NAME[name].option + ": ")


def test_places_that_cannot_be_used(tmp_path: Path) -> None:
    check_places(Settings(pidfile=str(tmp_path / "new"), chdir=str(tmp_path), chroot="/"))
    for settings, status in (
        (Settings(pidfile="/absent/pid"), os.EX_CANTCREAT),
        (Settings(log_file=str(tmp_path)), os.EX_CANTCREAT),
        (Settings(chdir="/absent"), os.EX_NOINPUT),
        (Settings(chroot=__file__), os.EX_NOINPUT),
    ):
        assert complaint(check_places, settings)[0] == status


def test_trac_fcgi_knows_the_same_words_for_yes_and_no() -> None:
    """It must not import the spawner."""
    said = {**dict.fromkeys(fcgi._YES, True), **dict.fromkeys(fcgi._NO, False)}
    assert said == values._BOOLEANS

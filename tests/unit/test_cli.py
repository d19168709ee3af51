"""The command as a shell sees it: output, one line of error, exit status; and its manual page."""

from __future__ import annotations

import configparser
import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Optional

import pytest

from spawner import cli
from spawner.configuration import Configuration
from spawner.setting import Scope
from spawner.settings import GROUPS, SETTINGS
from workers.errors import BootError

MANUALS = Path(__file__).parents[2] / "man"
MANUAL = MANUALS / "trac-spawn.8"
COMMAND = [sys.executable, "-c", "from spawner.cli import main; main()"]


@pytest.fixture
def environment(tmp_path: Path) -> str:
    (tmp_path / "VERSION").write_text("Trac Environment Version 1\n")
    return str(tmp_path)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in os.environ:
        if variable.startswith("TRAC_"):
            monkeypatch.delenv(variable)


def spawn(
    *arguments: str, environ: Optional[Dict[str, str]] = None, code: str = ""
) -> "subprocess.CompletedProcess[str]":
    command = [*COMMAND[:2], code or COMMAND[2], *arguments]
    return subprocess.run(
        command, env={**os.environ, **(environ or {})}, text=True, capture_output=True, timeout=60
    )


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("trac-spawn: ")
    assert captured.err.count("\n") == 1 and captured.err.endswith("\n")
    return captured.err[len("trac-spawn: ") : -1]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.run(arguments) == os.EX_USAGE
    return one_line(capsys)


# Help and version


def test_help_is_complete_and_in_sections(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == os.EX_OK
    text = capsys.readouterr().out
    sections = re.findall(r"^(\w+):$", text, re.MULTILINE)
    assert sections == [*GROUPS, "Other"]
    flat = " ".join(text.split())
    for setting in SETTINGS:
        names = ", ".join((*setting.flags, setting.option))
        assert f"{names} {setting.metavar}".strip() in flat
        for variable in setting.variables:
            assert re.search(rf"[\[ ]{variable}[;\]]", flat)
        assert setting.describe_default() in flat
    assert "-V, --version" in flat and "-h, --help" in flat
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version_imports_nothing_that_it_does_not_need(option: str) -> None:
    code = (
        "import atexit, sys; from spawner.cli import main\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); main()"
    )
    result = spawn(option, code=code)
    assert result.returncode == os.EX_OK
    assert re.fullmatch(r"trac-spawn \d+\.\d+\S*\n", result.stdout)
    loaded = {name.partition(".")[0] for name in result.stderr.split()}
    assert not loaded & {"psutil", "trac", "setproctitle", "logging"}
    modules = {name for name in result.stderr.split() if name.startswith(("spawner.", "workers."))}
    assert modules == {
        "spawner.cli", "spawner.setting", "spawner.settings", "spawner.values", "workers.errors",
    }  # fmt: skip


def test_what_a_master_imports_before_its_applications_load() -> None:
    result = spawn(code="import sys, spawner.cli, spawner.boot; print(*sys.modules)")
    loaded = set(result.stdout.split())
    assert "spawner.template" in loaded
    assert not loaded & {"psutil", "rich", "trac", "jinja2", "spawner.commands", "spawner.statusprocess"}


# Errors


@pytest.mark.parametrize(
    "arguments",
    [
        ["-n"],
        ["-n", "-D"],
        ["-s", "/tmp/x.sock", "-n"],
        ["-n", "-s", "/tmp/x.sock"],
        ["-n", "--", "/usr/bin/trac.fcgi"],
        ["-nD"],
        ["-Dn"],
        ["-ns", "/tmp/x.sock"],
    ],
)
def test_n_as_spawn_fcgi_has_it(capsys: pytest.CaptureFixture[str], arguments: List[str]) -> None:
    assert refusal(capsys, *arguments) == cli.WORKERS_NEED_A_NUMBER


def test_n_without_number_is_not_blamed_for_other_mistakes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert refusal(capsys, "-n", "8", "-s") == "Option '-s' requires an argument."
    assert refusal(capsys, "-F", "many", "-s", "x", "--app", "a:b") == (
        "--workers: 'many' is not a whole number"
    )


def test_unknown_option_suggests_a_known_one(capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, "--max-request", "5")
    assert "--max-request" in message and "--max-requests" in message


def test_wrong_value_and_missing_application(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "-p", "http", "--app", "a:b") == "--port: 'http' is not a whole number"
    assert refusal(capsys, "-s", "/tmp/x.sock").startswith("there is nothing to serve: ")
    assert refusal(capsys, "-s", "/tmp/x.sock", "a\nb").startswith("Got unexpected extra argument")


def test_errors_go_to_stderr_with_their_status() -> None:
    result = spawn("-s", "/tmp/x.sock", environ={"TRAC_ENV": "/absent"})
    assert result.returncode == os.EX_NOINPUT
    assert (result.stdout, result.stderr) == (
        "", "trac-spawn: TRAC_ENV: /absent does not exist\n",
    )  # fmt: skip


def test_who_looks_at_a_name_need_not_know_who_gave_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    monkeypatch.setenv("TRAC_SPAWN_USER", "no-such-user")
    assert cli.run(["-s", "@x", "--env", environment]) == os.EX_NOUSER
    assert one_line(capsys) == "TRAC_SPAWN_USER: there is no user 'no-such-user'"


def failing_start(configuration: Configuration, predecessor: object) -> int:
    raise BootError("it\ndoes not load", os.EX_CONFIG, traceback="Traceback: its own\n")


def test_traceback_only_with_debug(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "start", failing_start)
    arguments = ["-s", "@x", "--app", "a:b"]
    assert cli.run(arguments) == os.EX_CONFIG
    assert one_line(capsys) == "it does not load"
    assert cli.run([*arguments, "--debug"]) == os.EX_CONFIG
    assert capsys.readouterr().err == "Traceback: its own\ntrac-spawn: it does not load\n"


# --check


def test_check_says_what_would_be_served(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    monkeypatch.setenv("TRAC_ENV", environment)
    assert cli.run(["--check", "-n", "3", "-s", "@x", "--listen", "[::1]:80"]) == os.EX_OK
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.splitlines() == [
        "configuration OK",
        f"  env: {environment} (environment TRAC_ENV)",
        "  socket: @x (command line --socket)",
        "  listen: [::1]:80 (command line --listen)",
        "  workers: 3 (command line --workers)",
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (["-U", "no-such-user"], os.EX_NOUSER, "--socket-user: "),
        (["-G", "no-such-group"], os.EX_NOUSER, "--socket-group: "),
        (["-d", "/absent"], os.EX_NOINPUT, "--chdir: "),
        (["-P", "/absent/pid"], os.EX_CANTCREAT, "--pidfile: "),
        (["--log-file", "/absent/log"], os.EX_CANTCREAT, "--log-file: "),
        (["--listen", "nowhere"], os.EX_USAGE, "--listen: "),
        (["--env-index-template", "/absent"], os.EX_OK, ""),
    ],
)
def test_check_finds(
    capsys: pytest.CaptureFixture[str],
    environment: str,
    arguments: List[str],
    status: int,
    named: str,
) -> None:
    assert cli.run(["--check", "-s", "@x", "--env", environment, *arguments]) == status
    if status != os.EX_OK:
        assert one_line(capsys).startswith(named)


# The configuration file


CONFIG = """\
[trac-spawn]
user = no-such-user
[pool wiki]
app = site:app
socket = @wiki
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "trac-spawn.conf"
    path.write_text(CONFIG)
    return path


def test_what_a_file_says_is_blamed_on_its_line(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    assert cli.run(["--check", "-f", str(config)]) == os.EX_NOUSER
    assert one_line(capsys) == f"{config}:2: user: there is no user 'no-such-user'"


def test_command_line_comes_before_variables_and_they_before_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    monkeypatch.setenv("TRAC_SPAWN_CONFIG", str(config))
    monkeypatch.setenv("TRAC_SPAWN_USER", "root")
    monkeypatch.setenv("TRAC_SPAWN_WORKERS", "3")
    assert cli.run(["--print-config", "-n", "2"]) == os.EX_OK
    text = capsys.readouterr().out
    for line in (
        "[pool wiki]",
        "# environment TRAC_SPAWN_USER\nuser = root",
        "# command line --workers\nworkers = 2",
        f"# file {config}:5\nsocket = @wiki",
        "# default: backlog = 2048",
        "# not set: pidfile",
    ):
        assert line + "\n" in text


def test_what_is_printed_can_be_read_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["--print-config", "-s", "@x", "--listen", "unix:/a b", "--listen", "[::1]:80",
                 "--app", "a:b", "--max-memory", "1.5G", "--no-template", "-M", "600",
                 "--rlimit-files", "unlimited", "--umask", "7", "-P", "run/pid"]  # fmt: skip
    assert cli.run(arguments) == os.EX_OK
    text = capsys.readouterr().out
    (tmp_path / "again").write_text(text)
    (again,) = cli.command.main(["-f", str(tmp_path / "again")], standalone_mode=False).pools
    (given,) = cli.command.main(arguments[1:], standalone_mode=False).pools
    assert dataclasses.replace(again, config=None) == given
    assert again.listen == ("unix:/a b", "[::1]:80")
    # It is what other programs take for an INI file as well.
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    assert parser["trac-spawn"]["pidfile"] == os.path.abspath("run/pid")


def test_print_config_does_not_look_at_the_system_unless_asked(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    assert cli.run(["--print-config", "-f", str(config)]) == os.EX_OK
    assert "user = no-such-user\n" in capsys.readouterr().out
    assert cli.run(["--print-config", "--check", "-f", str(config)]) == os.EX_NOUSER


def test_file_that_cannot_be_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert cli.run(["-f", str(absent)]) == os.EX_NOINPUT
    assert one_line(capsys) == f"{absent}: No such file or directory"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    result = spawn(environ={"_TRAC_SPAWN_COMPLETE": f"{shell}_source"})
    assert result.returncode == os.EX_OK, result.stderr
    assert "trac-spawn" in result.stdout and "_TRAC_SPAWN_COMPLETE" in result.stdout


@pytest.mark.parametrize(
    ("words", "position", "offered"),
    [
        ("trac-spawn --max-r", 1, {"plain,--max-requests", "plain,--max-requests-jitter"}),
        ("trac-spawn --log-level e", 2, {"plain,error"}),
        ("trac-spawn --env /", 2, {"file,/"}),
        ("trac-spawn --chroot /", 2, {"dir,/"}),
    ],
)
def test_completion_offers(words: str, position: int, offered: "set[str]") -> None:
    asked = {"_TRAC_SPAWN_COMPLETE": "bash_complete", "COMP_WORDS": words}
    result = spawn(environ={**asked, "COMP_CWORD": str(position)})
    assert result.returncode == os.EX_OK, result.stderr
    assert set(result.stdout.split()) == offered


# The manual page


def rendered(*options: str, page: Path = MANUAL) -> str:
    result = subprocess.run(
        ["mandoc", *options, str(page)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("name", ["trac-spawn.8", "trac-spawn.conf.5"])
def test_manual_is_clean(name: str) -> None:
    assert rendered("-T", "lint", "-W", "warning", page=MANUALS / name) == ""


def test_manual_has_every_option_in_its_section() -> None:
    text = re.sub(".\b", "", rendered("-T", "ascii"))
    options = text.partition("\nOPTIONS\n")[2].partition("\nPATHS\n")[0]
    parts = re.split(r"^   (\w+)$", options, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2]))
    assert list(sections) == list(GROUPS)
    for setting in SETTINGS:
        names = ", ".join((*setting.flags, setting.option))
        entry = rf"^     {re.escape(names)}{' ' if setting.metavar else '( |$)'}"
        assert re.search(entry, sections[setting.group], re.MULTILINE), names
    for option in ("-V, --version", "-h, --help"):
        assert option in text


def test_manual_has_every_variable_of_trac_and_default() -> None:
    text = " ".join(rendered("-T", "utf8", "-O", "width=500").split())
    text = re.sub(".\b", "", text)
    for setting in SETTINGS:
        for variable in setting.variables_of_trac:
            assert variable in text
    for default in ("2048", "0660", "10%", "1G", "60 seconds", "30 seconds", "info", "127.0.0.1"):
        assert f"The default is {default}" in text


def test_manual_of_the_file_has_every_key_where_it_belongs() -> None:
    text = rendered("-T", "ascii", "-O", "width=900", page=MANUALS / "trac-spawn.conf.5")
    text = re.sub(".\b", "", text)
    keys = {scope: {one.file_key for one in SETTINGS if one.scope is scope} for scope in Scope}
    expected = {
        "Keys of the program": keys[Scope.MASTER],
        "Keys of a pool": keys[Scope.POOL],
        "Keys of one pool": keys[Scope.SINGLE_POOL],
        "Not in a file": keys[Scope.COMMAND],
    }
    for title, names in expected.items():
        section = re.search(rf"^   {title}\n(.*?)(?=^\S|^   \S|\Z)", text, re.M | re.S)
        assert section is not None, title
        listed = re.findall(r"^ {7,}(\S.*)$", section[1], re.M)
        assert len(listed) == 1, title
        assert set(re.split(", | and ", listed[0].rstrip("."))) == names, title

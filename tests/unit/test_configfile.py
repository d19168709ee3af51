"""The configuration file: what each line means, what is said of wrong ones, and several pools."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import pytest

from spawner.configfile import parse_file, read_file, write_file
from spawner.configuration import Configuration, load
from spawner.layers import read_command_line
from spawner.setting import Rank, Scope
from spawner.settings import SETTINGS
from workers.errors import BootError

TWO = """\
[trac-spawn]
log-level = warning
max-requests = 100
env[LANG] = C.UTF-8
env[SITE] = all

[pool wiki]
app = wiki:app
socket = /run/wiki.sock
env[SITE] = wiki

[pool tickets]
app = tickets:app
listen = unix:/run/tickets.sock 127.0.0.1:9000
max-requests = 5
workers = 2
"""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in os.environ:
        if variable.startswith("TRAC_"):
            monkeypatch.delenv(variable)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.conf"


def configure(
    path: Path,
    text: str,
    options: Optional[Dict[str, Any]] = None,
    environ: Optional[Dict[str, str]] = None,
) -> Configuration:
    path.write_text(text)
    return load(read_command_line({"config": str(path), **(options or {})}), environ or {})


def refusal(*arguments: Any) -> str:
    with pytest.raises(BootError) as caught:
        configure(*arguments)
    assert caught.value.exit_code == os.EX_USAGE
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Lines


def test_form_of_lines() -> None:
    file = parse_file(
        "# comment\r\n; comment\n\n  [ trac-spawn ]  \n\tuser=www ; no comment\n"
        "  app = a:b\n[pool  a.b-C_1]\nbase-url = http://x/?a=b # no comment\n"
        "listen = 'unix:/a b'   [::1]:80\nno-template = Yes\nenv[a_B] =  = %(x)s \\n = \nenv[A_B]=\n",
        "t",
    )
    texts = {name: given.texts for name, given in file.main.settings.items()}
    assert texts == {"user": ("www ; no comment",), "app": ("a:b",)}
    (pool,) = file.pools
    assert (pool.name, pool.place) == ("a.b-C_1", "t:7")
    assert {name: given.texts for name, given in pool.settings.items()} == {
        "base_url": ("http://x/?a=b # no comment",),
        "listen": ("unix:/a b", "[::1]:80"),
        "template": ("Yes",),
    }
    variables = {name: given.texts[0] for name, given in pool.variables.items()}
    assert variables == {"a_B": "= %(x)s \\n =", "A_B": ""}
    source = pool.settings["listen"].source
    assert (source.rank, source.place, source.name) == (Rank.POOL, "t:9", "t:9: listen")
    assert str(source) == "file t:9"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user = www\n", "t:1: a section must come first, such as [trac-spawn]"),
        ("[trac-spawn]\nuser\n", "t:2: this is neither [SECTION] nor KEY = VALUE"),
        ("[trac-spawn\n", "t:1: [trac-spawn is not of the form [SECTION]"),
        ("[trac-spawn] # here\n", "t:1: [trac-spawn] # here is not of the form [SECTION]"),
        ("[]\n", "t:1: [] is not of the form [SECTION]"),
        ("[tracspawn]\n", "t:1: unknown section [tracspawn]; did you mean trac-spawn?"),
        ("[pol wiki]\n", "t:1: unknown section [pol wiki]; did you mean pool NAME?"),
        ("[DEFAULT]\n", "t:1: unknown section [DEFAULT]"),
        ("[trac-spawn]\n[trac-spawn]\n", "t:2: [trac-spawn] has begun before, at t:1"),
        ("[pool a]\n\n[pool  a]\n", "t:3: [pool  a] has begun before, at t:1"),
        ("[trac-spawn]\nmax-request = 1\n",
         "t:2: unknown key 'max-request'; did you mean max-requests?"),
        ("[trac-spawn]\nMAX_AGE = 1\n", "t:2: unknown key 'MAX_AGE'; did you mean max-age?"),
        ("[trac-spawn]\nzzz = 1\n", "t:2: unknown key 'zzz'"),
        ("[pool a]\nuser = a\n\nuser = a\n", "t:4: user: this has been set before, at t:2"),
        ("[pool a]\nenv[A] = a\nenv[A] = b\n", "t:3: env[A]: this has been set before, at t:2"),
        ("[pool a]\nenv[A-B] = a\n", "t:2: env[A-B] is not of the form env[NAME]"),
        ("[pool a]\npidfile = /p\n",
         "t:2: pidfile: this concerns all pools and belongs in [trac-spawn]"),
        ("[trac-spawn]\ncheck = yes\n",
         "t:2: check: this is for the command line, not for a file"),
        ("[trac-spawn]\nenv = trac\n",
         "t:2: env: 'trac': in a file, a path must begin with '/'"),
        ("[pool a]\nsocket = unix:x\n",
         "t:2: socket: 'unix:x': in a file, a path must begin with '/'"),
        ("[pool a]\nlisten = @y unix:x\n",
         "t:2: listen: 'unix:x': in a file, a path must begin with '/'"),
        ("[pool a]\nlisten = 'unix:/x\n", "t:2: listen: no closing quotation"),
    ],
)  # fmt: skip
def test_wrong_line(text: str, said: str) -> None:
    with pytest.raises(BootError) as caught:
        parse_file(text, "t")
    assert (str(caught.value), caught.value.exit_code) == (said, os.EX_USAGE)


@pytest.mark.parametrize("name", ["", "1", "-a", "a b", "a/b", "ä"])
def test_name_that_no_pool_can_have(name: str) -> None:
    with pytest.raises(BootError, match=r"^t:2: \[pool.*\]: a pool has a name of letters"):
        parse_file(f"\n[pool {name}]\n", "t")


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.file_key)
def test_each_key_has_its_sections(setting: Any) -> None:
    line = f"{setting.file_key} = /x\n"
    for header, scopes in (
        ("[trac-spawn]\n", {Scope.MASTER, Scope.POOL, Scope.SINGLE_POOL}),
        ("[pool a]\n", {Scope.POOL, Scope.SINGLE_POOL}),
    ):
        if setting.scope in scopes:
            file = parse_file(header + line, "t")
            assert setting.name in (file.pools or (file.main,))[0].settings
        else:
            with pytest.raises(BootError, match=f"^t:2: {setting.file_key}: this "):
                parse_file(header + line, "t")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"#!/usr/bin/python3\n", "-f takes a configuration file here, and this is a program"),
        (b"\x7fELF\0", "this is not a text file"),
    ],
)
def test_what_spawn_fcgi_takes(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    with pytest.raises(BootError) as caught:
        read_file(str(path))
    assert str(caught.value) == f"{path}: {said}"


def test_bytes_of_any_encoding(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf[trac-spawn]\n# caf\xe9\nenv = /caf\xe9\n")
    assert os.fsencode(read_file(str(path)).main.settings["env"].texts[0]) == b"/caf\xe9"


@pytest.mark.parametrize(("name", "status"), [("absent", os.EX_NOINPUT), (".", os.EX_NOINPUT)])
def test_no_file(tmp_path: Path, name: str, status: int) -> None:
    with pytest.raises(BootError) as caught:
        read_file(str(tmp_path / name))
    assert caught.value.exit_code == status
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


# Values


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("workers = many", "workers: 'many' is not a whole number"),
        ("workers =", "workers: the value is empty"),
        ("listen =", "listen: the value is empty"),
        ("no-template = maybe", "no-template: 'maybe' is neither yes nor no"),
        ("address = ::1", "address: an address needs a port, add --port"),
    ],
)
def test_wrong_value_is_blamed_on_its_line(path: Path, line: str, said: str) -> None:
    assert refusal(path, f"[trac-spawn]\napp = a:b\n{line}\n") == f"{path}:3: {said}"


def test_contradiction_names_both_lines(path: Path) -> None:
    message = refusal(path, "[pool a]\napp = a:b\nenv-parent-dir = /x\n").replace(str(path), "t")
    assert message.startswith("t:3: env-parent-dir and t:2: app exclude each other")
    message = refusal(path, "[trac-spawn]\nmax-memory = 2G\n[pool a]\nhard-memory = 1G\n")
    assert message.replace(str(path), "t") == (
        "t:4: hard-memory: the hard limit 1G is below that of t:2: max-memory, 2G"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("socket = @a", "there is nothing to serve: add env, env-parent-dir or app"),
        ("app = a:b", "there is nowhere to listen: add socket, port or listen"),
    ],
)
def test_pool_that_does_nothing(path: Path, line: str, said: str) -> None:
    assert refusal(path, f"\n[pool a]\n{line}\n") == f"{path}:2: [pool a]: {said}"


# Pools


def test_each_pool_has_its_own_and_the_common_settings(path: Path) -> None:
    configuration = configure(path, TWO)
    assert configuration.master.log_level == "warning"
    wiki, tickets = configuration.pools
    assert (wiki.name, tickets.name) == ("wiki", "tickets")
    assert (wiki.app, tickets.app) == ("wiki:app", "tickets:app")
    assert (wiki.max_requests, tickets.max_requests) == (100, 5)
    assert (wiki.log_level, tickets.log_level) == ("warning", "warning")
    assert wiki.environment == {"LANG": "C.UTF-8", "SITE": "wiki"}
    assert tickets.environment == {"LANG": "C.UTF-8", "SITE": "all"}
    assert [str(address) for address in tickets.listeners()] == [
        "unix:/run/tickets.sock", "127.0.0.1:9000",
    ]  # fmt: skip
    assert str(wiki.source("max_requests")) == f"file {path}:3"
    assert str(wiki.sources["env[SITE]"]) == f"file {path}:10"


def test_without_pools_there_is_one(path: Path) -> None:
    (pool,) = configure(path, "[trac-spawn]\napp = a:b\nsocket = @x\nworkers = 3\n").pools
    assert (pool.name, pool.app, pool.workers) == ("trac", "a:b", 3)
    (pool,) = load(read_command_line({"app": "a:b", "socket": "@x"}), {}).pools
    assert (pool.name, pool.environment) == ("trac", {})


def test_precedence(path: Path) -> None:
    wiki, tickets = configure(path, TWO, {"workers": "7"}, {"TRAC_SPAWN_MAX_REQUESTS": "9"}).pools
    assert (wiki.workers, tickets.workers) == (7, 7)
    assert (wiki.max_requests, tickets.max_requests) == (9, 9)


def test_pool_replaces_another_kind_of_common_value(path: Path) -> None:
    text = (
        "[trac-spawn]\nsocket = @common\nenv = /e\n[pool a]\napp = a:b\naddress = ::1\nport = 1\n"
    )
    (pool,) = configure(path, text).pools
    assert (pool.env, pool.app) == (None, "a:b")
    assert [str(address) for address in pool.listeners()] == ["[::1]:1"]
    (pool,) = configure(path, text, {"socket": "/s", "env": "/cli"}, {"TRAC_ENV": "/var"}).pools
    assert (pool.env, pool.app, pool.socket, pool.port) == ("/cli", None, "/s", None)


@pytest.mark.parametrize(
    ("options", "environ", "named"),
    [
        ({"socket": "/s"}, {}, "--socket"),
        ({"listen": ("@s",)}, {}, "--listen"),
        ({"env": "/e"}, {}, "--env"),
        ({}, {"TRAC_ENV": "/e"}, "TRAC_ENV"),
        ({}, {"TRAC_SPAWN_PORT": "1"}, "TRAC_SPAWN_PORT"),
    ],
)
def test_what_cannot_be_said_of_several_pools(
    path: Path, options: Dict[str, Any], environ: Dict[str, str], named: str
) -> None:
    said = refusal(path, TWO, options, environ)
    assert said == f"{named}: the file has several pools, so this must be said in the section of one"


def test_common_socket_of_several_pools(path: Path) -> None:
    said = refusal(path, TWO.replace("[trac-spawn]", "[trac-spawn]\nsocket = @s"))
    assert said.startswith(f"{path}:2: socket: the file has several pools")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("socket = /run/a", "listen = @x unix:/run/a"),
        ("socket = @a", "socket = unix:@a"),
        ("port = 9000", "listen = 127.0.0.1:9000"),
        ("listen = fd://3", "listen = fd://3"),
    ],
)
def test_address_of_two_pools(path: Path, first: str, second: str) -> None:
    text = f"[pool a]\napp = a:b\n{first}\n[pool b]\napp = a:b\n{second}\n"
    said = refusal(path, text).replace(str(path), "t")
    keys = [line.partition(" ")[0] for line in (first, second)]
    assert re.fullmatch(
        rf"t:6: {keys[1]}: \S+ is taken; the pool a listens there, according to t:3: {keys[0]}",
        said,
    )


def test_address_twice_in_one_pool() -> None:
    with pytest.raises(BootError, match="^--listen: unix:/a has been given before, by --socket"):
        load(read_command_line({"app": "a:b", "socket": "/a", "listen": ("unix:/a",)}), {})


def test_ports_that_the_kernel_chooses_are_different(path: Path) -> None:
    text = "[pool a]\napp = a:b\nport = 0\n[pool b]\napp = a:b\nport = 0\n"
    assert len(configure(path, text).pools) == 2


def test_demonstration_is_of_one_pool(path: Path) -> None:
    assert refusal(path, TWO, {"demo": True}) == "--demo shows one pool, and the file has several"


def test_every_pool_is_checked(path: Path) -> None:
    configuration = configure(path, TWO + "user = no-such-user\n")
    with pytest.raises(BootError) as caught:
        configuration.check()
    assert str(caught.value) == f"{path}:17: user: there is no user 'no-such-user'"
    assert caught.value.exit_code == os.EX_NOUSER


def test_reload_reads_the_file_again(path: Path) -> None:
    before = configure(path, TWO, {"backlog": "7"})
    assert before.reload() == before
    path.write_text(TWO.replace("[pool wiki]", "[pool docs]").replace("= 5", "= 6"))
    after = before.reload()
    assert [(pool.name, pool.backlog) for pool in after.pools] == [("docs", 7), ("tickets", 7)]
    assert after.pools[1] != before.pools[1]
    path.write_text("[pool wiki\n")
    with pytest.raises(BootError, match=r":1: \[pool wiki is not of the form"):
        after.reload()


# Written


def test_written_configuration_is_read_as_the_same(path: Path) -> None:
    before = configure(path, TWO + "no-template = yes\nmax-age = 1.5h\nmax-requests-jitter = 12.5%\n")
    text = write_file(before.master, before.pools)
    assert f"# file {path}:16\nworkers = 2\n" in text
    assert "env[SITE] = wiki\n" in text and "# default: workers = " in text
    after = configure(path, text)
    assert (after.master, after.pools) == (before.master, before.pools)


@pytest.mark.parametrize("value", ["/with\nline end", "/with space at the end ", "/cr\r/x"])
def test_value_that_a_file_cannot_hold(path: Path, value: str) -> None:
    options: Dict[str, Any] = {"app": "a:b", "socket": "@s", "chdir": value}
    configuration = load(read_command_line(options), {})
    text = write_file(configuration.master, configuration.pools)
    assert f"# command line --chdir; a file cannot hold this value\n# chdir = {value!r}\n" in text
    assert configure(path, text).pools[0].chdir is None


def sections(text: str) -> Tuple[str, ...]:
    return tuple(re.findall(r"^\[(.*)\]$", text, re.MULTILINE))


def test_written_sections(path: Path) -> None:
    two = configure(path, TWO)
    assert sections(write_file(two.master, two.pools)) == (
        "trac-spawn", "pool wiki", "pool tickets",
    )  # fmt: skip

"""What ``trac-spawnctl snippet`` makes of settings and options; real servers are in tests/system."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import pytest

from spawner import ctl
from spawner.snippets.kinds import KINDS
from spawner.snippets.order import Origin, text_for
from workers.errors import BootError

SETTINGS = ("-s", "/run/trac/trac.sock", "--env", "/srv/trac", "--user", "trac")
FORMS = [(kind.name, form.name) for kind in KINDS.values() for form in kind.forms]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TRAC_"):
            monkeypatch.delenv(name)


def made(kind: str, *options: str, **wishes: Any) -> str:
    return text_for(kind, Origin(options=options or SETTINGS), **wishes)


def refusal(kind: str, *options: str, **wishes: Any) -> str:
    with pytest.raises(BootError) as caught:
        made(kind, *options, **wishes)
    assert caught.value.exit_code == os.EX_USAGE
    return str(caught.value)


@pytest.fixture(scope="module")
def manual() -> str:
    page = Path(__file__).parents[2] / "man" / "trac-spawnctl.8"
    done = subprocess.run(["mandoc", "-T", "ascii", str(page)], capture_output=True, text=True, check=True)
    text = re.sub(".\b", "", done.stdout)
    return text[text.index("\nSNIPPET\n") : text.index("\nOPTIONS\n")]


# All of them


@pytest.mark.parametrize(
    ("variable", "value"),
    [("TRAC_SPAWN_LISTEN", "unix:/run/trac/of-env.sock"), ("TRAC_SPAWN_SOCKET", "/run/trac/of-env.sock")],
)
def test_the_environment_may_name_the_socket(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert "server unix:/run/trac/of-env.sock " in made("nginx", "--env", "/srv/trac")


@pytest.mark.parametrize("kind, form", FORMS)
def test_every_form_is_made_for_people(kind: str, form: str) -> None:
    text = made(kind, form=form)
    assert "trac-spawn" in text and text.endswith("\n") and not text.endswith("\n\n")
    lines = text.splitlines()
    assert any(line.startswith("#") for line in lines)
    assert max(map(len, lines)) <= 120
    assert not re.search(r"[{%]%|%}|{{|}}|\bNone\b|\bTrue\b|\bFalse\b", text)
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("kind, form", FORMS)
def test_the_manual_has_every_form(manual: str, kind: str, form: str) -> None:
    words = re.findall(r"[\w.-]+", manual)
    assert kind in words and (not form or form in [word.rstrip(".") for word in words])


@pytest.mark.parametrize("kind, form", FORMS)
@pytest.mark.parametrize("mount", ["", "/", "/projects/trac"])
def test_every_form_takes_every_mount(kind: str, form: str, mount: str) -> None:
    if "mount" not in KINDS[kind].form(form).wishes:
        assert "--mount means nothing" in refusal(kind, form=form, mount="/x")
        return
    text = made(kind, form=form, mount=mount)
    assert ("/projects/trac" in text) == (mount == "/projects/trac")


# Settings


def test_the_settings_are_those_of_the_pool() -> None:
    text = made("nginx", *SETTINGS, "--max-body", "5M", "--request-timeout", "2m", "--kill-after", "7")
    assert "client_max_body_size 5242880;" in text
    assert "fastcgi_read_timeout 137s;" in text
    assert text.count("server unix:/run/trac/trac.sock max_fails=0;") == 2


@pytest.mark.parametrize(
    "options, address",
    [
        (("-p", "9000"), "127.0.0.1:9000"),
        (("-a", "0.0.0.0", "-p", "9000"), "127.0.0.1:9000"),
        (("-a", "::", "-p", "9000"), "[::1]:9000"),
        (("-a", "192.0.2.7", "-p", "9000"), "192.0.2.7:9000"),
        (("-p", "9000", "--listen", "unix:/run/x.sock"), "unix:/run/x.sock"),
    ],
)
def test_the_address_can_be_connected_to(options: Tuple[str, ...], address: str) -> None:
    assert f"server {address} max_fails=0;" in made("nginx", "--env", "/srv/trac", *options)


def test_where_trac_is_comes_from_the_settings() -> None:
    assert "location ~ ^/trac(?:/|$) {" in made("nginx")
    text = made("nginx", *SETTINGS, "--base-url", "https://example.org/projects/")
    assert "location ~ ^/projects(?:/|$) {" in text and "server_name example.org;" in text
    assert "location ~ ^/here(?:/|$) {" in made("nginx", *SETTINGS, "--script-name", "/here")
    assert "location / {" in made("nginx", *SETTINGS, "--script-name", "/")


def test_what_the_web_server_starts_gets_the_settings_in_its_environment() -> None:
    text = made("lighttpd", "--env", "/srv/my trac", "--max-requests", "500", "-n", "7", form="bin-path")
    assert '"TRAC_ENV" => "/srv/my trac",' in text
    assert '"TRAC_SPAWN_MAX_REQUESTS" => "500",' in text
    assert '"TRAC_FCGI_CHILDREN" => "7"' in text


def test_a_pool_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "trac.conf"
    file.write_text(
        "[pool one]\nsocket=/run/one.sock\nenv=/srv/one\n[pool two-b]\nsocket=/run/two.sock\nenv=/srv/two\n"
    )
    text = text_for("nginx", Origin(pool="two-b", file=str(file)))
    # Two pools can stand side by side.
    assert "upstream trac_two_b {" in text and "unix:/run/two.sock" in text
    for pool, words in ((None, "which pool"), ("three", "no pool 'three'")):
        with pytest.raises(BootError, match=f"{words}.*one, two-b"):
            text_for("nginx", Origin(pool=pool, file=str(file)))


def test_without_a_master_it_says_what_to_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.run(["snippet", "nginx", "-s", str(tmp_path / "none")]) == os.EX_UNAVAILABLE
    assert "Without a master, give -f FILE, or" in capsys.readouterr().err


# Services


def unit_of(*options: str, form: str = "service") -> Dict[str, str]:
    """The keys of a unit, the last line of each."""
    text = made("systemd", *options, form=form).replace("\\\n", " ")
    return {key: " ".join(value.split()) for key, value in re.findall(r"(?m)^(\w+)=(.*)$", text)}


def test_a_service_is_the_user_of_its_pool_where_it_can_be() -> None:
    words = ("--warmup", "/wiki", "--warmup", "/report", "--template-vars", "a=b c", "--watch")
    unit = unit_of(*SETTINGS, "-G", "www-data", *words)
    assert unit["ExecStart"].endswith(
        "trac-spawn --socket /run/trac/trac.sock --socket-group www-data --env /srv/trac "
        '--template-vars "a=b c" --warmup /wiki --warmup /report --watch'
    )
    assert (unit["User"], unit["SupplementaryGroups"]) == ("trac", "www-data")
    assert unit["RuntimeDirectory"] == "trac-spawn/trac trac"
    assert (unit["ReadWritePaths"], unit["PrivateTmp"]) == ("/srv/trac", "yes")


def test_a_service_that_only_root_can_begin() -> None:
    unit = unit_of("-s", "/run/trac.sock", "--env", "/srv/trac", "-u", "trac", "-D", "-P", "/run/x.pid")
    assert "User" not in unit and "CAP_" in unit["CapabilityBoundingSet"]
    assert unit["ExecStart"].endswith("trac-spawn --socket /run/trac.sock --env /srv/trac --user trac")


def test_a_service_whose_web_server_looks_into_tmp() -> None:
    assert unit_of("-s", "/tmp/trac.sock", "--env", "/srv/trac")["PrivateTmp"] == "no"


def test_a_service_for_a_file_with_several_pools(tmp_path: Path) -> None:
    file = tmp_path / "trac.conf"
    file.write_text(
        "[trac-spawn]\nlog-file=/var/log/trac/x.log\n"
        "[pool one]\nsocket=/run/t/one.sock\nenv=/srv/one\nuser=one\n"
        "[pool two]\nsocket=/run/t/two.sock\nenv=/srv/two\n"
    )
    text = text_for("systemd", Origin(file=str(file)))
    assert f"trac-spawn -f {file}\n" in text and "User=" not in text
    assert re.findall("ReadWritePaths=(.*)", text) == ["/srv/one", "/srv/two", "/var/log/trac"]
    assert text_for("tmpfiles", Origin(pool="one", file=str(file))).count("d /run/t 0755 one") == 1


def test_the_socket_unit_is_as_the_settings_say() -> None:
    unit = unit_of(*SETTINGS, "-M", "0600", "-U", "joe", "-b", "7", form="socket")
    assert unit["ListenStream"] == "/run/trac/trac.sock"
    assert (unit["SocketMode"], unit["SocketUser"], unit["Backlog"]) == ("0600", "joe", "7")


def test_logs_that_are_rotated() -> None:
    text = made("logrotate", *SETTINGS, "--log-file", "/var/log/trac.log", "-P", "/run/trac.pid")
    assert "\n/var/log/trac.log {\n" in text and "\n/srv/trac/log/*.log {\n" in text
    assert text.count("su trac trac") == 1
    assert text.count("--control /run/trac.ctl reopen") == 2


def test_an_init_script_needs_no_pool() -> None:
    text = text_for("sysv", Origin(), conf_dir="/etc/a b")
    assert "CONF_DIR='/etc/a b'" in text and "RUN_DIR=/run/trac-spawn" in text


# What would not work


def test_options_that_mean_nothing_are_refused() -> None:
    assert "--xsendfile means nothing for haproxy" in refusal("haproxy", xsendfile=True)
    assert "--http means nothing for lighttpd, form external," in refusal("lighttpd", http="81")
    assert "--form: nginx has no form 'x'" in refusal("nginx", form="x")
    assert "only external, bin-path" in refusal("lighttpd", form="x")


def test_a_pool_that_no_web_server_can_reach() -> None:
    assert "nginx needs a path or a port" in refusal("nginx", "--env", "/srv/trac", "-s", "@trac")
    assert "the pool listens nowhere" in refusal("nginx", "--env", "/srv/trac")


@pytest.mark.parametrize("path", ['/srv/"x"', "/srv/$x", "/srv/a;b", "/srv/{x}", "/srv/x\ny", "/srv/x#y"])
def test_text_that_would_mean_something_else_is_refused(path: str) -> None:
    assert "is read as something else" in refusal("lighttpd", "--env", path, form="bin-path")


@pytest.mark.parametrize("mount", ["trac", "/tr ac", "/a(b", "//x", "/a/../b$"])
def test_a_mount_that_is_no_plain_path(mount: str) -> None:
    assert "--mount" in refusal("nginx", mount=mount)


def test_suexec_needs_a_user_and_attachments_the_static_files() -> None:
    assert "SuEXEC needs to know the user" in refusal("apache", "--env", "/x", form="fcgid-suexec")
    assert "add --deployed" in refusal("nginx", xsendfile=True)


def test_a_login_that_the_pool_would_not_believe() -> None:
    words = (*SETTINGS, "--trust-remote-user", "never")
    assert "nobody is logged in" in refusal("nginx", *words, login="/etc/htpasswd")


def test_passwords_that_haproxy_and_caddy_cannot_check(tmp_path: Path) -> None:
    file = tmp_path / "htpasswd"
    file.write_text("joe:$apr1$x$abcdefghijklmnopqrstuv\n")
    for kind in ("haproxy", "caddy"):
        assert "htpasswd -B" in refusal(kind, login=str(file))
        assert "No such file" in refusal(kind, login=str(tmp_path / "none"))
    assert str(file) in made("nginx", login=str(file))


# mod_fastcgi is not in Debian any more, so no server can try it


def apache(form: str, *options: str) -> Iterator[str]:
    for line in made("apache", *(options or SETTINGS), form=form).replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            yield " ".join(line.split())


def test_mod_fastcgi_in_front_of_a_pool() -> None:
    lines = list(apache("fastcgi-external"))
    program = "/var/www/trac/trac.fcgi"
    assert f"FastCgiExternalServer {program} -socket /run/trac/trac.sock -idle-timeout 300" in lines
    assert f"ScriptAlias /trac {program}" in lines
    assert "SetHandler fastcgi-script" in lines
    (line,) = [
        one for one in apache("fastcgi-external", "-p", "9000", "--env", "/x") if "External" in one
    ]
    assert line.endswith("-host 127.0.0.1:9000 -idle-timeout 300")


def test_mod_fastcgi_starts_a_pool() -> None:
    (line,) = [one for one in apache("fastcgi-static") if one.startswith("FastCgiServer ")]
    assert re.fullmatch(
        r"FastCgiServer /\S+/trac.fcgi -processes 1 -idle-timeout 300 "
        r'-initial-env "TRAC_ENV=/srv/trac" -initial-env TRAC_FCGI_CHILDREN=\d+',
        line,
    )


def test_mod_fastcgi_starts_processes() -> None:
    (line,) = [one for one in apache("fastcgi-dynamic") if one.startswith("FastCgiConfig ")]
    assert re.fullmatch(
        r'FastCgiConfig -maxClassProcesses \d+ -idle-timeout 300 -initial-env "TRAC_ENV=/srv/trac"', line
    )


# The command


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["snippet", "haproxy", "--mount", "/t"]
    assert ctl.run([*words, "--", *SETTINGS]) == os.EX_OK
    text = capsys.readouterr().out
    assert text == made("haproxy", mount="/t")
    assert ctl.run([*words, "--json", "--", *SETTINGS]) == os.EX_OK
    assert json.loads(capsys.readouterr().out)["result"] == {"text": text}


@pytest.mark.parametrize("word, hint", [("nginxx", "did you mean nginx?"), ("iis", "one of lighttpd, ")])
def test_an_unknown_kind(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.run(["snippet", word]) == os.EX_USAGE
    assert hint in capsys.readouterr().err

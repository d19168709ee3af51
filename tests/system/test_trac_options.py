"""What Trac itself is told: by options, and by the variables that Trac has for the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.fastcgi import client

from .clients import params
from .pools import Spawner
from .tracenv import WHOSE
from .visits import get

TEMPLATE = """\
<p>${greeting} from ${place}</p>
# for project in projects:
<i>${project.name}</i>
# endfor
"""
BASE_URL = "https://tracs.example.org:8443/base"


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "projects.html"
    path.write_text(TEMPLATE)
    return path


def check_index(index: str) -> None:
    assert "<p>Hello from here</p>" in index
    assert "<i>Project One</i>" in index
    assert "<i>Project Two</i>" in index


def test_the_list_of_projects_by_options(spawn: Spawner, trac_parent: Path, template: Path) -> None:
    pool = spawn(
        "-n", 1, "--env-parent-dir", trac_parent,
        "--env-index-template", template, "--template-vars", "greeting=Hello,place=here",
    )  # fmt: skip
    check_index(get(pool, "/"))


def test_the_list_of_projects_by_tracs_variables(
    spawn: Spawner, trac_parent: Path, template: Path
) -> None:
    env = {
        "TRAC_ENV_PARENT_DIR": str(trac_parent),
        "TRAC_ENV_INDEX_TEMPLATE": str(template),
        "TRAC_TEMPLATE_VARS": "greeting=Hello,place=here",
    }
    check_index(get(spawn("-n", 1, env=env), "/"))


@pytest.mark.parametrize("by_option", [True, False], ids=["option", "variable"])
def test_the_base_url_is_where_visitors_are_sent(
    spawn: Spawner, trac_env: Path, by_option: bool
) -> None:
    options = ["--base-url", BASE_URL] if by_option else []
    pool = spawn("-n", 1, "--env", trac_env, *options, env={} if by_option else {"TRAC_BASE_URL": BASE_URL})
    redirect = client.request(str(pool.socket), params("/search?q=wiki:WikiStart"))
    # Trac takes the scheme and the host of it; the path is what the web server says.
    assert redirect.header("Location") == "https://tracs.example.org:8443/wiki/WikiStart"


def test_an_option_comes_before_tracs_variable(
    spawn: Spawner, trac_parent: Path, trac_env: Path
) -> None:
    """Trac itself would read the variable in each request."""
    pool = spawn("-n", 1, "--env-parent-dir", trac_parent, env={"TRAC_ENV": str(trac_env)})
    assert "Project One" in get(pool, "/")


@pytest.mark.parametrize("by_trac", [True, False], ids=["trac", "worker"])
def test_who_sends_static_files(spawn: Spawner, trac_env: Path, by_trac: bool) -> None:
    pool = spawn("-n", 1, "--env", trac_env, *(["--no-static-files"] if by_trac else []))
    answer = client.request(str(pool.socket), params("/chrome/common/css/trac.css"))
    assert (answer.status, answer.header("Content-Type")) == (200, "text/css")
    # Trac has a session for whoever asks for anything.
    assert bool(answer.header("Set-Cookie")) == by_trac


@pytest.mark.parametrize("options", [[], ["--no-accelerate"]], ids=["as it comes", "trac as it is"])
def test_whether_trac_is_accelerated(spawn: Spawner, own_env: Path, options: list[str]) -> None:
    """A plugin looks whose function Trac makes its links by."""
    (own_env / "plugins" / "whose.py").write_text(WHOSE)
    pool = spawn("-n", 1, "--env", own_env, *options)
    assert get(pool, "/whose") == ("trac.web.href" if options else "workers.links")

"""Environments that requests name, and those that they must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workers.application import ApplicationSpec
from workers.environ import BadRequest
from workers.environments import AllowedEnvironments


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Environments "a", "deep/b" and "caf\xe9" in "allowed", "c" in "other", and ways out of the former."""
    for name in ("allowed/a", "allowed/deep/b", "allowed/caf\xe9", "other/c", "allowed-not/d"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "VERSION").write_text("Trac Environment Version 1\n")
    (tmp_path / "allowed" / "way-out").symlink_to(tmp_path / "other")
    (tmp_path / "allowed" / "c").symlink_to(tmp_path / "other" / "c")
    (tmp_path / "allowed" / "inner").symlink_to("a")
    (tmp_path / "link").symlink_to("allowed")
    return tmp_path


def choose(site: Path, path_info: str = "/wiki", **named: str) -> dict[str, Any]:
    environ: dict[str, Any] = {"SCRIPT_NAME": "", "PATH_INFO": path_info, **named}
    rules = ApplicationSpec(env_from_params=(str(site / "link"),)).rules()
    assert rules.environments == AllowedEnvironments((str(site / "allowed"),))
    rules.apply(environ)
    return environ


def refused(site: Path, path_info: str = "/wiki", **named: str) -> str:
    with pytest.raises(BadRequest) as caught:
        choose(site, path_info, **named)
    assert str(site) not in caught.value.reason
    return caught.value.status[:3]


def test_an_environment(site: Path) -> None:
    for name, real in [
        ("allowed/a", "allowed/a"), ("allowed/deep/b", "allowed/deep/b"), ("link/a", "allowed/a"),
        ("allowed/inner", "allowed/a"), ("allowed/deep/../a/", "allowed/a"),
        ("allowed/caf\xc3\xa9", "allowed/caf\xe9"),
    ]:  # fmt: skip
        environ = choose(site, TRAC_ENV=f"{site}/{name}")
        assert environ["trac.env_path"] == f"{site}/{real}"
        assert environ["trac.env_parent_dir"] is None


@pytest.mark.parametrize(
    "name",
    ["other/c", "allowed/c", "allowed/way-out/c", "allowed/../other/c", "allowed-not/d", "", "allowed/deep\0",
     "allowed/a/../../other/c"],
)  # fmt: skip
def test_what_is_outside(site: Path, name: str) -> None:
    assert refused(site, TRAC_ENV=f"{site}/{name}") == "403"
    assert refused(site, TRAC_ENV_PARENT_DIR=f"{site}/{name}") == "403"


def test_what_is_no_path(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site)
    assert refused(site, TRAC_ENV="allowed/a") == "403"
    assert refused(site, TRAC_ENV=f"{site}/allowed/missing") == "404"
    assert refused(site, TRAC_ENV=f"{site}/allowed/deep") == "404"
    assert refused(site, TRAC_ENV_PARENT_DIR=f"{site}/allowed/a/VERSION") == "404"


def test_nothing_is_named(site: Path) -> None:
    assert refused(site) == "404"
    assert refused(site, TRAC_ENV="", TRAC_ENV_PARENT_DIR="") == "404"
    # Headers are not meant.
    assert refused(site, HTTP_TRAC_ENV=f"{site}/allowed/a") == "404"
    environ: dict[str, Any] = {"PATH_INFO": "/wiki", "trac.env_path": "/default", "trac.env_parent_dir": None}
    ApplicationSpec(env="/default", env_from_params=(str(site),)).rules().apply(environ)
    assert environ["trac.env_path"] == "/default"


def test_a_parent_directory(site: Path) -> None:
    parent = str(site / "allowed")
    for path_info in ("/a/wiki", "//a", "/inner/wiki", "/missing"):
        environ = choose(site, path_info, TRAC_ENV_PARENT_DIR=parent)
        assert (environ["trac.env_path"], environ["trac.env_parent_dir"]) == (None, parent)
    for path_info in ("/c/wiki", "/way-out/wiki", "/../other", "/..", "/./a", "/a\0"):
        assert refused(site, path_info, TRAC_ENV_PARENT_DIR=parent) == "403"


def test_the_list_of_a_parent_directory_leaves_out_what_is_outside(site: Path) -> None:
    environ = choose(site, "/", TRAC_ENV_PARENT_DIR=str(site / "allowed"))
    assert environ["trac.env_parent_dir"] is None
    names = sorted(Path(path).name for path in environ["trac.env_paths"])
    assert names == ["a", "caf\xe9", "deep", "inner"]


def test_the_environment_comes_before_the_parent_directory(site: Path) -> None:
    environ = choose(site, TRAC_ENV=f"{site}/allowed/a", TRAC_ENV_PARENT_DIR=f"{site}/allowed")
    assert environ["trac.env_path"] == f"{site}/allowed/a"


def test_without_the_option_parameters_mean_nothing(site: Path) -> None:
    environ: dict[str, Any] = {"PATH_INFO": "/", "TRAC_ENV": f"{site}/allowed/a", "trac.env_path": "/srv"}
    ApplicationSpec(env="/srv").rules().apply(environ)
    assert environ["trac.env_path"] == "/srv"


def test_the_whole_machine_can_be_allowed(site: Path) -> None:
    environ: dict[str, Any] = {"PATH_INFO": "/", "TRAC_ENV": f"{site}/other/c"}
    ApplicationSpec(env_from_params=("/",)).rules().apply(environ)
    assert environ["trac.env_path"] == f"{site}/other/c"

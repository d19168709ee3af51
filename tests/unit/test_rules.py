"""What becomes of a request's environ before the application gets it."""

from __future__ import annotations

from typing import Any

import pytest

from spawner.settings import BY_NAME
from workers.application import ApplicationSpec
from workers.environ import BadRequest
from workers.rules import TRUST, Rules


def applied(rules: Rules, **environ: Any) -> dict[str, Any]:
    rules.apply(environ)
    return environ


def test_nothing_is_changed_without_need() -> None:
    environ = {
        "SCRIPT_NAME": "/trac", "PATH_INFO": "/wiki", "REQUEST_URI": "/trac/wiki", "REMOTE_USER": "joe",
        "SCRIPT_URL": "/trac/wiki",
    }  # fmt: skip
    for rules in (Rules(), Rules(for_trac=True)):
        assert applied(rules, **environ) == environ


def test_links_do_not_lead_to_another_host() -> None:
    environ = applied(Rules(), REQUEST_URI="//evil/wiki", SCRIPT_NAME="//evil", PATH_INFO="/wiki")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/evil", "/wiki")


@pytest.mark.parametrize(
    "sent, login", [("jo\xc3\xa9", "jo\xe9"), ("jo\xe9", "jo\xe9"), ("\xe6\x9d\xb1", "\u6771"), ("", "")]
)
def test_a_login_is_text_for_trac_and_bytes_for_others(sent: str, login: str) -> None:
    assert applied(Rules(for_trac=True), REMOTE_USER=sent)["REMOTE_USER"] == login
    assert applied(Rules(), REMOTE_USER=sent)["REMOTE_USER"] == sent


def test_nobody_is_nobody() -> None:
    assert "REMOTE_USER" not in applied(Rules(for_trac=True))


@pytest.mark.parametrize(
    "trust, checked, claimed", [("always", True, True), ("auth-type", True, False), ("never", False, False)]
)
def test_when_a_user_is_believed(trust: str, checked: bool, claimed: bool) -> None:
    for for_trac in (True, False):
        rules = Rules(for_trac=for_trac, trust_remote_user=trust)
        assert ("REMOTE_USER" in applied(rules, REMOTE_USER="joe", AUTH_TYPE="Basic")) is checked
        assert ("REMOTE_USER" in applied(rules, REMOTE_USER="joe")) is claimed
        # Caddy sends an empty one.
        assert ("REMOTE_USER" in applied(rules, REMOTE_USER="joe", AUTH_TYPE="")) is claimed
        # A header of the visitor is another name.
        assert ("REMOTE_USER" in applied(rules, REMOTE_USER="joe", HTTP_AUTH_TYPE="Basic")) is claimed


def test_the_choices_are_those_of_the_setting() -> None:
    assert BY_NAME["trust_remote_user"].choices == TRUST


def test_a_script_name_decides() -> None:
    rules = ApplicationSpec(env="/srv", script_name="/tr\xe4c").rules()
    environ = applied(
        rules, REQUEST_URI="/tr%C3%A4c/wiki/A%2FB", SCRIPT_NAME="/x", PATH_INFO="", SCRIPT_URL="/x"
    )
    # As PEP 3333 has it: a character a byte.
    assert environ["SCRIPT_NAME"] == "/tr\xc3\xa4c"
    assert environ["PATH_INFO"] == "/wiki/A/B"
    assert "SCRIPT_URL" not in environ


def test_another_place_is_not_found() -> None:
    with pytest.raises(BadRequest) as caught:
        applied(Rules(script_name="/trac"), REQUEST_URI="/wiki", SCRIPT_NAME="", PATH_INFO="/wiki")
    assert caught.value.status == "404 Not Found"
    assert "--script-name /trac" in caught.value.detail
    assert "/trac" not in caught.value.reason


def test_how_many_names_count() -> None:
    evasive = {"REQUEST_URI": "/one/admin/../wiki//A", "SCRIPT_NAME": "", "PATH_INFO": "/one/wiki/A"}
    for rules in (ApplicationSpec(env="/srv").rules(), ApplicationSpec(env="/srv", script_name="").rules()):
        assert applied(rules, **evasive)["PATH_INFO"] == "/one/admin/../wiki//A"
        below = applied(rules, **evasive, **{"trac.env_parent_dir": "/srv"})
        assert below["PATH_INFO"] == "/one/wiki/A"
    assert ApplicationSpec(app="a:b").rules() == Rules()
    assert ApplicationSpec(env="/srv", script_name="").rules().script_name == ""

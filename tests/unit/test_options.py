"""workers/options.py beside Trac's own way, with environments that change."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from trac import config
from trac.core import (
    Component,
    ComponentManager,
    ComponentMeta,
    ExtensionPoint,
    Interface,
    TracError,
    implements,
)
from trac.env import Environment
from trac.perm import PermissionSystem

from workers import options


class Friend(Interface):
    """Of whom there are several."""


@pytest.fixture
def components() -> Iterator[list[Any]]:
    """Classes that are registered for as long as the test takes."""

    class One(Component):
        implements(Friend)

    class Two(Component):
        implements(Friend)

    class Asking(Component):
        friends = ExtensionPoint(Friend)
        text = config.Option("own", "text", "none")
        truth = config.BoolOption("own", "truth", "true")
        number = config.IntOption("own", "number", 3)
        names = config.ListOption("own", "names", "a, b,,c")
        kept = config.ListOption("own", "kept", "a||b", sep="|", keep_empty=True)
        parts = config.ListOption("own", "parts", "a;b,c", sep=[",", ";"])
        choice = config.ChoiceOption("own", "choice", ["x", "y"])
        friend = config.ExtensionOption("own", "friend", Friend, "Two")
        ordered = config.OrderedExtensionsOption("own", "ordered", Friend, "Two")
        chosen = config.OrderedExtensionsOption("own", "ordered", Friend, "Two", include_missing=False)

    yield [One, Two, Asking]
    for one in (One, Two, Asking):
        ComponentMeta.deregister(one)
    # A property that has a method of its own holds itself, and the collector cannot part the two.
    for point in (Asking.friends, Asking.friend.xtnpt, Asking.ordered.xtnpt, Asking.chosen.xtnpt):
        property.__init__(point)
    for key in [key for key in config.Option.registry if key[0] == "own"]:
        del config.Option.registry[key]


@pytest.fixture(params=["Trac's own way", "ours"])
def environment(
    request: pytest.FixtureRequest,
    components: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """The same has to hold both ways."""
    for place, name in (
        (config.Option, "__get__"),
        (config.OrderedExtensionsOption, "__get__"),
        (ExtensionPoint, "extensions"),
    ):
        monkeypatch.setattr(place, name, getattr(place, name))
    if request.param == "ours":
        monkeypatch.setattr(ExtensionPoint, "__get__", property.__get__)
        options.accelerate()
    settings = [("logging", "log_type", "none"), ("components", f"{__name__}.*", "enabled")]
    settings.append(("inherit", "file", str(tmp_path / "site.ini")))
    (tmp_path / "site.ini").write_text("[own]\nnumber = 4\n")
    made = Environment(str(tmp_path / "env"), create=True, options=settings)
    yield made
    made.shutdown()


@pytest.fixture
def asking(environment: Any, components: list[Any]) -> Any:
    return components[2](environment)


def names(found: list[Any]) -> list[str]:
    return [type(one).__name__ for one in found]


def twice(ask: Callable[[], Any], expected: Any) -> None:
    """What is remembered is the same as well, and nobody can change it for others."""
    for _ in range(2):
        found = ask()
        assert found == expected
        if isinstance(found, list):
            found.append("more")


def test_options_are_what_trac_ini_says(asking: Any) -> None:
    twice(lambda: asking.text, "none")
    twice(lambda: asking.truth, True)
    twice(lambda: asking.number, 4)
    twice(lambda: asking.names, ["a", "b", "c"])
    twice(lambda: asking.kept, ["a", "", "b"])
    twice(lambda: asking.parts, ["a", "b", "c"])
    twice(lambda: asking.choice, "x")
    assert type(asking).text.name == "text" and type(asking).names.sep == ","


def test_a_change_counts_at_once(environment: Any, asking: Any, tmp_path: Path) -> None:
    assert (asking.text, asking.truth, asking.names) == ("none", True, ["a", "b", "c"])
    for name, text in (("text", "some"), ("truth", "off"), ("names", "d"), ("kept", "")):
        environment.config.set("own", name, text)
    assert (asking.text, asking.truth, asking.names, asking.kept) == ("some", False, ["d"], [])
    environment.config.remove("own", "text")
    assert asking.text == "none"
    file = Path(environment.config.filename)
    file.write_text(file.read_text() + "[own]\ntruth = no\nnames = e, f\n")
    os.utime(file, (1, 1))
    assert environment.config.parse_if_needed()
    assert (asking.truth, asking.names) == (False, ["e", "f"])
    (tmp_path / "site.ini").write_text("[own]\ntext = of the site\n")
    os.utime(tmp_path / "site.ini", (1, 1))
    assert environment.config.parse_if_needed()
    assert (asking.text, asking.number) == ("of the site", 3)


def test_what_is_no_number_is_said_each_time(environment: Any, asking: Any) -> None:
    environment.config.set("own", "number", "many")
    environment.config.set("own", "ordered", "Nobody")
    for _ in range(2):
        with pytest.raises(config.ConfigurationError, match="many"):
            asking.number  # noqa: B018
        with pytest.raises(config.ConfigurationError, match="Nobody"):
            asking.ordered  # noqa: B018


def test_components_are_of_the_environment(environment: Any, asking: Any, components: list[Any]) -> None:
    one, two = components[0](environment), components[1](environment)
    twice(lambda: asking.friends, [one, two])
    twice(lambda: asking.ordered, [two, one])
    twice(lambda: asking.chosen, [two])
    assert asking.friend is two
    environment.config.set("own", "ordered", "One, Two")
    environment.config.set("own", "friend", "One")
    assert asking.ordered == asking.chosen == [one, two] and asking.friend is one
    environment.disable_component(two)
    assert asking.friends == [one]
    environment.config.set("own", "ordered", "One")
    assert asking.ordered == [one]
    environment.enable_component(components[1])
    assert names(asking.friends) == ["One", "Two"]
    assert names(asking.ordered) == ["One", "Two"]


def test_a_plugin_that_comes_later_is_there(asking: Any) -> None:
    assert names(asking.friends) == ["One", "Two"] and names(asking.ordered) == ["Two", "One"]

    class Late(Component):
        implements(Friend)

    try:
        assert names(asking.friends) == ["One", "Two", "Late"]
        assert names(asking.ordered) == ["Two", "One", "Late"]
    finally:
        ComponentMeta.deregister(Late)
    assert names(asking.friends) == ["One", "Two"]


def test_policies_are_those_of_trac_ini(environment: Any) -> None:
    permissions = PermissionSystem(environment)
    assert names(permissions.policies)[-2:] == ["DefaultPermissionPolicy", "LegacyAttachmentPolicy"]
    environment.config.set("trac", "permission_policies", "DefaultPermissionPolicy")
    assert names(permissions.policies) == ["DefaultPermissionPolicy"]


def test_a_manager_with_a_way_of_its_own_is_asked(environment: Any, components: list[Any]) -> None:
    class Manager(ComponentManager):
        def __getitem__(self, cls: Any) -> Any:
            return cls.__name__ if cls in components else None

    class Holder:
        compmgr = Manager()

    assert components[2].friends.extensions(Holder()) == ["One", "Two"]


def test_one_that_cannot_be_made_fails_as_before(asking: Any) -> None:
    class Broken(Component):
        implements(Friend)

        def __init__(self) -> None:
            raise TypeError("broken")

    try:
        for _ in range(2):
            with pytest.raises(TracError, match="broken"):
                asking.friends  # noqa: B018
    finally:
        ComponentMeta.deregister(Broken)


def test_another_trac_reads_its_options_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for place, name in (
        (config.Option, "__get__"),
        (config.OrderedExtensionsOption, "__get__"),
        (ExtensionPoint, "extensions"),
    ):
        monkeypatch.setattr(place, name, getattr(place, name))
    monkeypatch.setattr(ExtensionPoint, "__get__", property.__get__)
    monkeypatch.delattr(config, "_getlist")
    own = config.Option.__get__
    options.accelerate()
    assert config.Option.__get__ is own

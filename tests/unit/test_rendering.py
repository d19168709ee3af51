"""workers/rendering.py beside Jinja2 as Trac sets it up."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jinja2
import pytest
from babel.support import LazyProxy
from jinja2 import DictLoader, pass_context, pass_environment
from jinja2.exceptions import UndefinedError
from markupsafe import Markup
from trac.util.html import tag
from trac.util.presentation import jinja2_update
from trac.util.text import jinja2env
from trac.web import chrome

from workers.rendering import _CodeGenerator, accelerate, accelerated

TEMPLATES = {
    "base.html": """
<${kind}>${a}
# block content
${super_one} and ${b}
# endblock
${later} ${'<'}${1 + 1}</p>
""",
    "page.html": """
# extends 'base.html'
# set kind = 'p'
# macro show(value, more=none)
  [${value}|${more}|${caller() if caller else ''}]
# endmacro
# block content
${super()}
${show(a)} ${show(b, more='<>')}
# call show(none)
  ${a}${b}
# endcall
# set text
  ${a} &
# endset
${text}
# for row in rows
  ## a comment
  <td class="${loop.index}"${{'class': ['x', row['b']]}|htmlattr}>${row.a}${row.items()|length}${row.no}</td>
#   if loop.last
    ${row.a}${none}
#   endif
# else
  none ${a}
# endfor
# include 'part.html'
# do seen.append(a)
{% autoescape false %}${a}${none}{% endautoescape %}
# endblock
""",
    "part.html": "part ${a|upper}${a|safe}${nowhere}${plain(a)}${bound(a)}${partly()}${context()}"
    "${environment_()}${kind_(3)}${called(a)}${stopped()}${loud.name}${loud['name']}${loud.text}",
}


class Loud(str):
    """A text with fields of its own."""

    name = "<loud>"

    def __getitem__(self, key: Any) -> Any:
        return f"item {key}"


class Called:
    @pass_context
    def __call__(self, context: Any, value: Any) -> str:
        return f"{value} in {context.name}"


@pass_context
def context(context: Any) -> str:
    return f"context of {context.name}"


@pass_environment
def environment(environment: Any) -> Any:
    return environment.block_start_string


def stopped() -> str:
    raise StopIteration


def data(value: Any) -> dict[str, Any]:
    return {
        "a": value, "b": Markup("<b>'"), "rows": [{"a": 1, "b": "x"}, {"a": value, "items": 2, "b": None}],
        "seen": [], "plain": lambda value: value, "bound": ["<"].count,
        "partly": partial(str, 7), "context": context, "environment_": environment, "kind_": int,
        "called": Called(), "stopped": stopped, "loud": Loud("<x>"),
    }  # fmt: skip


def made(templates: dict[str, str]) -> Any:
    jenv = jinja2env(loader=DictLoader(templates), autoescape=True)
    jinja2_update(jenv)
    return jenv


VALUES = [None, "", "<a href='b'>&\"", Markup("<i>"), Loud("<&>"), 0, 1.5, True, b"<x>", ["<"], tag.b("<")]


@pytest.mark.parametrize("value", [*VALUES, LazyProxy(lambda: "<lazy>")], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("autoescape", [True, False])
def test_pages_stay_what_they_are(value: Any, autoescape: bool) -> None:
    environments = made(TEMPLATES), accelerated(made(TEMPLATES))
    own, ours = (jenv.overlay(autoescape=autoescape) for jenv in environments)
    assert ours.code_generator_class is _CodeGenerator
    called = data(value)
    for name in TEMPLATES:
        assert ours.get_template(name).render(called) == own.get_template(name).render(called)
        stream = ours.get_template(name).stream(called)
        stream.enable_buffering(75)
        assert "".join(stream) == own.get_template(name).render(called)


@pytest.mark.parametrize("text", ["${a()}", "${{'x': 1}.y.z}", "${nowhere.b}", "${a.b}${1 / 0}"])
def test_errors_stay_what_they_are(text: str) -> None:
    said = []
    for jenv in (made({"x.html": text}), accelerated(made({"x.html": text}))):
        with pytest.raises((UndefinedError, TypeError, ZeroDivisionError)) as error:
            jenv.get_template("x.html").render(a={"b": {}})
        said.append((error.type, str(error.value)))
    assert said[0] == said[1]


def test_what_is_of_a_row_and_what_of_its_kind() -> None:
    jenv = accelerated(made({}))
    row = {"name": 1, "items": 2, "keys": 3}
    assert jenv.getattr(row, "name") == 1
    assert jenv.getattr(row, "items") == row.items and jenv.getattr(row, "keys") == row.keys
    assert isinstance(jenv.getattr(row, "nothing"), jinja2.Undefined)


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(chrome, "jinja2env", chrome.jinja2env)
    yield


def test_the_templates_of_pages_are_made_like_this(restored: None) -> None:
    accelerate()
    assert chrome.jinja2env(autoescape=True).code_generator_class is _CodeGenerator
    assert jinja2env().code_generator_class is not _CodeGenerator


def test_another_jinja2_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(jinja2.Environment):
        pass

    assert "getattr" not in vars(accelerated(Own()))
    jenv = jinja2env(finalize=lambda value: value)
    assert accelerated(jenv).code_generator_class is not _CodeGenerator
    monkeypatch.setattr(jinja2, "contextfunction", None, raising=False)
    assert "getattr" not in vars(accelerated(made({})))


def test_another_trac_is_left_alone(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(chrome, "jinja2env")
    accelerate()
    assert not hasattr(chrome, "jinja2env")

"""workers/pagetemplates.py with two real environments of Trac."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jinja2.bccache import Bucket
from trac.env import Environment
from trac.web.chrome import Chrome

from workers.pagetemplates import NAMES, CompiledTemplates


class Counted(CompiledTemplates):
    def __init__(self) -> None:
        super().__init__()
        self.compiled = 0

    def dump_bytecode(self, bucket: Bucket) -> None:
        self.compiled += 1
        super().dump_bytecode(bucket)


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    folder = tmp_path_factory.mktemp("trac")
    opened = [Environment(str(folder / name), create=True) for name in ("one", "two")]
    yield opened
    for environment in opened:
        environment.shutdown()
        for handler in list(environment.log.handlers):
            environment.log.removeHandler(handler)
            handler.close()


def test_a_template_is_compiled_once_for_all(
    environments: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    templates = Counted()
    one, two = environments
    list(templates.serve(one))
    compiled = templates.compiled
    assert compiled > len(NAMES) / 2
    list(templates.serve(two))
    assert templates.compiled == compiled
    # Each has its own all the same, with its own functions in it.
    loaded = [Chrome(environment).load_template("ticket.html") for environment in environments]
    assert loaded[0] is not loaded[1] and loaded[0].environment is Chrome(one).jenv
    assert not caplog.records


def test_what_cannot_be_compiled_keeps_nothing_from_it(
    environments: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    one, _ = environments
    Chrome(one).jenv = None
    own = Path(one.path, "templates", "browser.html")
    own.write_text("{% if %}")
    templates = Counted()
    try:
        with caplog.at_level(logging.WARNING):
            list(templates.serve(one))
    finally:
        own.unlink()
    (record,) = caplog.records
    assert "browser.html cannot be compiled" in record.getMessage()
    assert templates.compiled > len(NAMES) / 2


def test_this_trac_has_all_of_them(environments: list[Any]) -> None:
    templates = CompiledTemplates()
    list(templates.serve(environments[0]))
    assert set(NAMES) <= set(Chrome(environments[0]).jenv.list_templates())


def test_constants_are_worked_out_at_run_time(environments: list[Any]) -> None:
    list(CompiledTemplates().serve(environments[0]))
    jenv = Chrome(environments[0]).jenv
    assert not jenv.optimized
    assert jenv.from_string("${1 + 1}${'<br>'|safe}${'<'|e}").render() == "2<br>&lt;"

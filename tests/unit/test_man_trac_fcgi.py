"""man/trac.fcgi.8 says what the code does: variables, signals, exit status, options."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import workers
from workers import application, fcgi, worker

ROOT = Path(workers.__file__).resolve().parents[1]
PAGE = ROOT / "man" / "trac.fcgi.8"
TEXT = PAGE.read_text()


def code(*modules: object) -> str:
    return "".join(Path(str(getattr(module, "__file__", ""))).read_text() for module in modules)


def section(name: str) -> str:
    found = re.search(rf"^\.Sh {name}\n(.*?)(?=^\.Sh )", TEXT, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


def items(section_text: str, macro: str) -> set[str]:
    """The names that stand in the list items of a section."""
    lines = re.findall(rf"^\.It {macro} (.*)$", section_text, re.MULTILINE)
    return {word for line in lines for word in re.findall(r"[A-Z][A-Z0-9_]+", line)}


def test_every_variable_is_there_and_no_other() -> None:
    read = set(re.findall(r'"((?:TRAC|PHP|FCGI)_[A-Z_]+)"', code(fcgi)))
    assert "TRAC_FCGI_CHILDREN" in read
    # Those of the request itself, in a CGI program.
    assert items(section("ENVIRONMENT"), "Ev") == read | {"REQUEST_METHOD", "CONTENT_LENGTH"}


def test_every_exit_status_is_there_and_no_other() -> None:
    names = set(re.findall(r"\bos\.(EX_[A-Z]+)", code(fcgi, application)))
    # Only for --app, which trac.fcgi does not have.
    names -= {"EX_DATAERR"}
    described = {int(number) for number in re.findall(r"^\.It (\d+)$", section("EXIT STATUS"), re.MULTILINE)}
    assert described == {getattr(os, name) for name in names}


def test_every_signal_is_there_and_no_other() -> None:
    handled = set(re.findall(r"signal\.(SIG[A-Z0-9]+)", code(worker))) - {"SIG_IGN"}
    assert "SIGTERM" in handled
    assert items(section("SIGNALS"), "Dv") == {name for name in handled if hasattr(signal, name)}


def test_every_argument_is_there() -> None:
    for option in re.findall(r'\["(--?[a-zA-Z]+)"\]', code(fcgi)):
        assert re.search(rf"\bFl .*{re.escape(option[1:]).replace('-', '.?-')}", section("OPTIONS")), option


def test_the_page_has_no_faults() -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", str(PAGE)], stdout=subprocess.PIPE, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")

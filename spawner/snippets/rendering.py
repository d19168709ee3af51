"""From facts to text."""

from __future__ import annotations

import importlib.resources
import re
import shlex
from typing import Any, Dict

# Jinja comes with Trac. string.Template has no "if", and there are too many of them for functions.
import jinja2


def _read(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def render(template: str, facts: Dict[str, Any]) -> str:
    """The text of the file ``template`` in this folder."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # these are no HTML
    )
    environment.filters["shell"] = shlex.quote
    text = environment.get_template(template).render(facts)
    return re.sub("\n{3,}", "\n\n", text)

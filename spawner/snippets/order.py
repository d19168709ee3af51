"""From the words of a command line to the text that they ask for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Optional, Tuple

from spawner import verbs
from spawner.snippets import facts, rendering, source
from spawner.snippets.facts import Wish
from spawner.snippets.kinds import KINDS, Form
from workers.errors import BootError


@dataclass(frozen=True)
class Origin:
    """Whose settings: those of ``file`` or ``options`` of trac-spawn, or of a running master."""

    pool: Optional[str] = None
    file: Optional[str] = None
    options: Tuple[str, ...] = ()
    control: Optional[str] = None
    timeout: float = verbs.AT_ONCE

    def describe(self, form: Form) -> source.Described:
        whole = form.name == "service"
        if self.file is not None or self.options:
            return source.from_options(self.pool, self.file, self.options, whole)
        if form.any_pool:
            return source.any_pool()
        return source.from_master(self.pool, self.control, self.timeout, whole)


def text_for(kind_name: str, origin: Origin, **wishes: Any) -> str:
    """The text; ``wishes`` are the fields of ``Wish``. Raises BootError, click.ClickException."""
    kind, wish = KINDS[kind_name], Wish(**wishes)
    try:
        form = kind.form(wish.form)
    except ValueError as error:
        raise BootError(f"--form: {error}", os.EX_USAGE) from None
    return rendering.render(form.template, facts.collect(kind, form, wish, origin.describe(form)))

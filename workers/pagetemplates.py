"""Trac's page templates, compiled before a visitor wants them. Imported only once Trac is.

Jinja2 takes 5 to 60 ms for one. The warm-up's requests have no login and see few of them: each worker
would compile by itself what shows a ticket or a report, and keep it in its private memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import CodeType
from typing import Any, Optional

from jinja2 import BytecodeCache, TemplateNotFound
from jinja2.bccache import Bucket
from trac.web.chrome import Chrome

log = logging.getLogger("trac-spawn")

#: What visitors see most, the parts of pages that others include among it. The first is the quickest:
#: loading it makes the environment's Jinja2.
NAMES = (
    "preview_file.html", "attachment.html", "browser.html", "changeset.html", "diff_div.html",
    "diff_view.html", "history_view.html", "milestone_view.html", "report_view.html",
    "revisionlog.html", "ticket.html", "ticket_box.html", "ticket_change.html", "ticket_preview.html",
    "wiki_edit.html", "wiki_edit_form.html",
)  # fmt: skip


class CompiledTemplates(BytecodeCache):
    """In memory, for all environments of a process: most of their templates are the same files."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], Optional[CodeType]] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._codes[bucket.key, bucket.checksum] = bucket.code

    def serve(self, environment: Any) -> Iterator[None]:
        """Compile for an environment of Trac what it does not have in common with an earlier one: a
        template at each step."""
        chrome = Chrome(environment)
        for name in NAMES:
            try:
                chrome.load_template(name)
            except TemplateNotFound:
                continue  # of a component that is disabled, or of another version of Trac
            except Exception:  # of a plugin's template; the visitors of the page will see it fail
                log.warning("the page template %s cannot be compiled", name, exc_info=True)
            else:
                self._attend(chrome.jenv)
            yield

    def _attend(self, jenv: Any) -> None:
        jenv.bytecode_cache = self
        # The search for what is constant takes a fifth of the time. In Trac's 83 templates it finds a
        # dozen places, each of which costs a request less than a microsecond more.
        jenv.optimized = False

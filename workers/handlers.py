"""Which handler Trac has chosen for a request: a component of its own, or of a plugin."""

from __future__ import annotations

from typing import Any, Callable, Optional

#: The class of the one that was chosen last in this process; empty where nobody answers the request.
latest = ""
_choose: Optional[Callable[..., Any]] = None


def watch() -> None:
    """Have Trac's dispatcher note whom it chooses. A filter of requests would have to be a component,
    which administrators see among their plugins, and can switch off."""
    global _choose
    from trac.web.main import RequestDispatcher

    if _choose is None and hasattr(RequestDispatcher, "_pre_process_request"):
        _choose = RequestDispatcher._pre_process_request
        RequestDispatcher._pre_process_request = _note


def _note(dispatcher: Any, req: Any, handler: Any) -> Any:
    """The last step of its choice, where filters may have put another in place of the first."""
    global latest
    assert _choose is not None
    chosen = _choose(dispatcher, req, handler)
    latest = type(chosen).__name__ if chosen else ""
    return chosen

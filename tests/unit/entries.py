"""A request as the access log sees it."""

from __future__ import annotations

from workers.accessformat import Entry
from workers.wsgi import Result

PARAMS = {
    "REQUEST_METHOD": "POST", "REQUEST_URI": "/trac/wiki?a=1&b", "QUERY_STRING": "a=1&b",
    "SCRIPT_NAME": "/trac", "PATH_INFO": "/wiki", "REMOTE_ADDR": "192.0.2.7", "REMOTE_USER": "joe",
    "CONTENT_LENGTH": "12", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_USER_AGENT": "curl",
}  # fmt: skip
HEAD = b"Status: 200 OK\r\nContent-Type: text/html\r\nX-Empty: \r\n"


def entry(**more: object) -> Entry:
    """Answered in 1.234567 s; ``more``: fields of Entry, and of the Result in it."""
    answer = {"status": 200, "sent": 34, "clean": True, "head": HEAD}
    values: dict[str, object] = {
        "params": PARAMS, "begun": 0, "took": 1_234_567_000, "work": 617_283_500,
        "user_work": 0.5, "system_work": 0.25, "memory": 5 << 20, "request_id": "an-id",
        "pool": "trac", "slot": 3, **more,
    }  # fmt: skip
    result = Result(**{name: values.pop(name, value) for name, value in answer.items()})  # type: ignore[arg-type]
    found = Entry()
    for name, value in {**values, "result": result}.items():
        setattr(found, name, value)
    return found

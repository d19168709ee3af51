"""Forms: the token in the cookie, the fields, and a file.

They are sent to Trac's search, which only reads, whatever it is sent.
"""

from __future__ import annotations

from typing import Dict, Optional, Tuple
from urllib.parse import urlencode

from spawner.doctor import remedies
from spawner.doctor.finding import Finding, Findings, error
from spawner.doctor.visit import MARK, Visit
from spawner.doctor.visitor import Reply

COOKIE = "trac_form_token"
FILE_SIZE = 1 << 20
_BOUNDARY = "trac-spawn-doctor-boundary"
LOST = "No form works: no ticket is created, no page saved, nobody's settings are kept."


def examine_forms(visit: Visit) -> Findings:
    token = visit.visitor.cookies.get(COOKIE)
    if token is None:
        yield error(
            "front-form",
            f"{visit.url} sets no cookie {COOKIE}",
            LOST,
            "the web server, or a cache before it, must not remove the header Set-Cookie",
        )
        return
    fields = {"__FORM_TOKEN": token, "noquickjump": "1", "q": MARK}
    path = visit.path("/search")
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = visit.visitor.request("POST", path, kind, urlencode(fields).encode())
    refused = _refused(visit, reply)
    if refused is not None:
        yield refused
        return
    body, kind["Content-Type"] = _with_file(fields)
    yield from _upload(visit, visit.visitor.request("POST", path, kind, body))


def _refused(visit: Visit, reply: Reply) -> Optional[Finding]:
    if reply.status == 400 and "form token" in reply.text:
        if "use https" in reply.text:
            return error(
                "front-form",
                f"{visit.url}: Trac refuses forms, since it takes the site for one without HTTPS",
                LOST,
                visit.mend(remedies.SCHEME) + "\nor, for a site that is http:// indeed, in trac.ini:\n"
                "[trac]\nsecure_cookies = disabled",
            )
        return error(
            "front-form",
            f"{visit.url}: Trac refuses forms, since the cookie of the page does not come back to it",
            LOST,
            visit.mend(remedies.HEADERS, header="Cookie", param="HTTP_COOKIE"),
        )
    if reply.status == 200 and MARK not in reply.text:
        return error(
            "front-form",
            f"{visit.url}: the fields of forms do not arrive",
            LOST,
            visit.mend(remedies.BODIES),
        )
    if reply.status == 500:
        return error(
            "front-form",
            f"{visit.url}: Trac fails at a form (POST), with status 500",
            LOST,
            "log/trac.log in the environment has the traceback",
        )
    if reply.status not in (200, 403, 404):
        return error(
            "front-form",
            f"{visit.url}: a form (POST) is answered with status {reply.status}",
            LOST,
            "the location of Trac must take the method POST, with no limit_except, Limit or url.access-deny",
        )
    return None


def _with_file(fields: Dict[str, str]) -> Tuple[bytes, str]:
    """The body and its type. The token comes first: Trac refuses a form without one."""
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    parts.append(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{MARK}"\r\n'
        f"Content-Type: application/octet-stream\r\n\r\n{'x' * FILE_SIZE}\r\n"
    )
    parts.append(f"--{_BOUNDARY}--\r\n")
    return "".join(parts).encode(), f"multipart/form-data; boundary={_BOUNDARY}"


def _upload(visit: Visit, reply: Reply) -> Findings:
    if reply.status in (200, 403, 404):
        return
    told = ", which is too large for it" if reply.status == 413 else ""
    yield error(
        "front-upload",
        f"{visit.url}: a file of 1 MiB is answered with status {reply.status}{told}",
        "Attachments cannot be uploaded, though Trac itself would take them.",
        visit.mend(remedies.UPLOADS) + "\nand trac-spawn with --max-body 64M or more",
    )

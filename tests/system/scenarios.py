"""What visitors of a Trac do, the same behind every web server: ``visit(site)``."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import trac

from .clients import Answer, Browser, Upload
from .webservers import WebServer

#: 10 MiB that no server can guess or compress.
ATTACHMENT = random.Random(1).randbytes(10 << 20)


@dataclass(frozen=True)
class Site:
    """One Trac environment behind a web server, and the visitor's browser."""

    browser: Browser
    #: Where the environment is: "", "/trac", "/trac/one"...
    prefix: str

    @classmethod
    def at(cls, server: WebServer, prefix: str) -> Site:
        return cls(server.browser(prefix), prefix)

    @property
    def url(self) -> str:
        return f"http://{self.browser.host}:{self.browser.port}{self.prefix}"


def wiki_page(site: Site) -> None:
    answer = site.browser.get("/wiki/WikiStart")
    assert answer.status == 200, answer.text
    assert "Welcome to Trac" in answer.text
    assert f'href="{site.prefix}/timeline"' in answer.text


def start_page(site: Site) -> None:
    assert "Welcome to Trac" in site.browser.get("/").text


def static_file(site: Site) -> None:
    answer = site.browser.get("/chrome/common/css/trac.css")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/css")
    assert answer.body == Path(trac.__file__).with_name("htdocs").joinpath("css/trac.css").read_bytes()
    again = site.browser.get(
        "/chrome/common/css/trac.css", If_Modified_Since=answer.headers["Last-Modified"]
    )
    assert (again.status, again.body) == (304, b"")


def head(site: Site) -> None:
    page = site.browser.request("HEAD", "/wiki/WikiStart")
    assert (page.status, page.body) == (200, b"")
    assert page.headers["Content-Type"] == "text/html;charset=utf-8"
    file = site.browser.request("HEAD", "/chrome/common/css/trac.css")
    assert (file.status, file.body) == (200, b"")
    assert int(file.headers["Content-Length"]) > 1000


def not_found(site: Site) -> None:
    answer = site.browser.get("/no/such/page")
    assert answer.status == 404
    assert "No handler matched request to /no/such/page" in answer.text
    assert site.browser.get("/ticket/987654321").status == 404


def redirect(site: Site) -> None:
    answer = site.browser.get("/search?q=wiki:WikiStart")
    assert answer.status == 302
    assert answer.location == f"{site.url}/wiki/WikiStart"
    assert "Welcome to Trac" in site.browser.follow(answer).text


def query_string(site: Site) -> None:
    answer = site.browser.get("/search?noquickjump=1&q=Gr%C3%B6%C3%9Fe+%3C1%3E+%26%20a%2Bb")
    assert "Größe &lt;1&gt; &amp; a+b" in answer.text


def create_ticket(site: Site, summary: str) -> Answer:
    """Fill in the form as a browser does; the page of the new ticket."""
    site.browser.get("/newticket")
    fields = {"field_summary": summary, "field_description": "line 1\r\nline 2", "submit": "Create"}
    answer = site.browser.post("/newticket", fields)
    assert answer.status == 303, answer.text
    assert re.fullmatch(rf"{re.escape(site.url)}/ticket/\d+", answer.location), answer.location
    return site.browser.follow(answer)


def ticket(site: Site) -> None:
    assert "Über ✓ &amp; more" in create_ticket(site, "Über ✓ & more").text


def form_without_token(site: Site) -> None:
    stranger = Site(Browser(site.url), site.prefix)
    answer = stranger.browser.post("/newticket", {"field_summary": "forged", "submit": "Create"})
    assert answer.status == 400
    assert "Missing or invalid form token" in answer.text


def attachment(site: Site) -> None:
    page = create_ticket(site, "With a file")
    found = re.search(r"Ticket #(\d+)|#(\d+)", page.text)
    assert found, page.text
    number = found[1] or found[2]
    file = Upload("größe 10.bin", ATTACHMENT)
    fields = {"attachment": file, "description": "", "author": "me", "action": "new",
              "realm": "ticket", "id": number}  # fmt: skip
    answer = site.browser.upload(f"/attachment/ticket/{number}/", fields)
    assert answer.status in (302, 303), answer.text
    back = site.browser.get(f"/raw-attachment/ticket/{number}/{quote(file.filename)}")
    assert back.status == 200, back.text
    assert hashlib.sha256(back.body).digest() == hashlib.sha256(ATTACHMENT).digest()


def utf8_wiki_page(site: Site) -> None:
    path = "/wiki/" + quote("Größe/日本 ✓")
    site.browser.get(f"{path}?action=edit")
    fields = {"action": "edit", "version": "0", "text": "= Äußerst =", "save": "Submit changes"}
    answer = site.browser.post(path, fields)
    assert answer.status == 303, answer.text
    page = site.browser.follow(answer)
    assert page.status == 200
    assert "Äußerst" in page.text
    assert "Größe/日本 ✓" in page.text


SCENARIOS: Sequence[Callable[[Site], None]] = (
    start_page,
    wiki_page,
    static_file,
    head,
    not_found,
    redirect,
    query_string,
    ticket,
    form_without_token,
    attachment,
    utf8_wiki_page,
)


def visit(site: Site, scenarios: Sequence[Callable[[Site], None]] = SCENARIOS) -> None:
    """Do all of it, one after the other: a web server with its pool takes long to start."""
    for scenario in scenarios:
        scenario(site)


def visit_projects(server: WebServer, prefix: str) -> None:
    """A parent directory with the projects ``one`` and ``two``: the index, then one of them."""
    index = server.browser(prefix).get("/")
    assert index.status == 200, index.text
    for name in ("one", "two"):
        assert f'href="{prefix}/{name}"' in index.text
        assert f"Project {name.title()}" in index.text
    missing = server.browser(prefix).get("/three/wiki")
    assert (missing.status, missing.text) == (404, "Environment not found")
    visit(Site.at(server, f"{prefix}/one"))
    assert "Project Two" in server.browser(f"{prefix}/two").get("/about").text

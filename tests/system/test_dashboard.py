"""The page for people, in a real browser."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .chromium import Chromium
from .clients import Browser
from .pools import ROOT, Pool, Spawner
from .processes import Supervisor, wait_until
from .visits import APP, METRICS, busy_visit, get, page_of

OUTPUT = ROOT / "tests" / "output"


@pytest.fixture
def chromium(supervisor: Supervisor, tmp_path: Path) -> Iterator[Chromium]:
    browser = Chromium(supervisor, tmp_path)
    yield browser
    browser.close()


def url_of(pool: Pool) -> str:
    browser = page_of(pool)
    return f"http://{browser.host}:{browser.port}/"


def test_a_browser_sees_what_happens(spawn: Spawner, chromium: Chromium) -> None:
    pool = spawn("-n", 2, *APP, *METRICS, "--slow-after", "0.5")
    chromium.look(1200, 1400)
    chromium.open(url_of(pool))
    assert "Limit: slow-after0.5s" in chromium.text("dl").replace("\n", "")
    assert "trac" in chromium.text("h2") and chromium.text("#busy-1") == "0 of 2"
    # It fetches itself anew: nobody touches it from here on.
    for _ in range(5):
        get(pool, "/echo")
    wait_until(lambda: chromium.text("#requests-1") == "5", what="the count on the page")
    visit = busy_visit(pool, "/sleep?seconds=4&<script>alert(1)</script>")
    wait_until(lambda: chromium.text("#busy-1") == "1 of 2", what="a busy worker on the page")
    # Whichever of the two it is that answers.
    cells = "[...document.querySelectorAll('td.request')].map((one) => one.textContent).join()"
    assert "<script>alert(1)</script>" in chromium.evaluate(cells)
    (victim,) = pool.workers("idle")
    os.kill(victim.pid, signal.SIGKILL)
    wait_until(lambda: "SIGKILL" in chromium.text("main"), what="the death on the page")
    assert visit.status() == 200
    wait_until(lambda: "/sleep" in chromium.text("#slow + details"), what="the slow request and its stack")
    chromium.evaluate("document.querySelector('#deaths + details').open = true")
    count = int(chromium.text("#requests-1"))
    get(pool, "/echo")
    wait_until(lambda: int(chromium.text("#requests-1")) > count, what="the next count")
    assert chromium.evaluate("document.querySelector('#deaths + details').open")
    chromium.screenshot(OUTPUT / "page.png")
    assert not chromium.errors


def test_a_phone_in_the_dark_without_scripts(spawn: Spawner, chromium: Chromium) -> None:
    pool = spawn("-n", 2, *APP, *METRICS)
    chromium.look(360, 740, dark=True, scripts=False)
    chromium.open(url_of(pool))
    assert chromium.text("#busy-1") == "0 of 2"
    # The table scrolls by itself; the page does not.
    assert chromium.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert chromium.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 27)"
    chromium.screenshot(OUTPUT / "page-phone.png")
    assert not chromium.errors


def test_who_reads_it_aloud(spawn: Spawner, chromium: Chromium) -> None:
    pool = spawn("-n", 1, *APP, *METRICS)
    chromium.open(url_of(pool))
    unnamed = """[...document.querySelectorAll("svg, meter, input, [role=region]")]
        .filter((one) => !one.ariaLabel && !one.closest("label")).length"""
    assert chromium.evaluate(unnamed) == 0
    assert chromium.evaluate("document.documentElement.lang") == "en"
    levels = "[...document.querySelectorAll('h1, h2, h3')].map((one) => one.tagName).join()"
    assert chromium.evaluate(levels) == "H1,H2,H3,H3,H2,H2"


def test_it_is_only_looked_at(spawn: Spawner) -> None:
    pool = spawn("-n", 1, *APP, *METRICS)
    browser: Browser = page_of(pool)
    answer = browser.get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    assert "http://" not in answer.text and "https://" not in answer.text
    with contextlib.suppress(ConnectionError):
        assert browser.request("POST", "/", b"x").status == 405

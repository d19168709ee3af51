"""What the master tells its status process."""

from __future__ import annotations

import os
import selectors

import pytest

from spawner.helper import Helper, _is_public, _parse
from spawner.news import PAGE, News, NewsPage
from workers.errors import BootError


def a_death(traceback: str = "") -> dict[str, object]:
    return {"at": 1.0, "slot": 1, "traceback": traceback}


def test_nothing_is_known_before_the_first_news() -> None:
    assert NewsPage().read() == News()


def test_the_latest_news_is_read() -> None:
    page = NewsPage()
    for number in (3, 1):
        page.write(News(None, [a_death()] * number))  # type: ignore[list-item]
    assert len(page.read().deaths) == 1


def test_news_that_were_just_being_written_are_no_news() -> None:
    page = NewsPage()
    page.write(News(None, [a_death()]))  # type: ignore[list-item]
    page._words[0] += 1
    assert page.read() == News()


def test_what_does_not_fit_leaves_the_last_that_did() -> None:
    page = NewsPage()
    page.write(News(None, [a_death()]))  # type: ignore[list-item]
    page.write(News(None, [a_death("x" * PAGE)]))  # type: ignore[list-item]
    assert page.read().deaths == [a_death()]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("127.0.0.1:1", False), ("[::1]:1", False), ("unix:/run/x", False), ("unix:@x", False),
        ("0.0.0.0:1", True), ("[::]:1", True), ("192.0.2.1:1", True),
    ],
)  # fmt: skip
def test_addresses_that_others_can_reach(address: str, public: bool) -> None:
    assert _is_public(_parse(address, "--metrics")) is public


def test_an_address_that_is_none() -> None:
    with pytest.raises(BootError, match="--status-listen") as raised:
        _parse("nowhere", "--status-listen")
    assert raised.value.exit_code == os.EX_USAGE


def test_no_process_without_an_address() -> None:
    helper = Helper(selectors.DefaultSelector(), lambda listeners, channel: None)
    assert not helper.wanted and helper.next_deadline() == float("inf")
    helper.start()
    helper.close()

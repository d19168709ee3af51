"""What the master tells its status process."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from pathlib import Path
from typing import Optional

import pytest

from spawner.configuration import Configuration
from spawner.helper import Helper, _parse
from spawner.inheritance import Inheritance
from spawner.news import PAGE, News, NewsPage
from spawner.settings import Settings
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


def test_of_what_does_not_fit_the_oldest_goes_first() -> None:
    page = NewsPage()
    page.write(News(None, [a_death("x" * PAGE), *[a_death()] * 4], [{"stack": "y"}]))  # type: ignore[list-item]
    assert page.read().deaths == [a_death()] * 2
    page.write(News(None, [a_death("x" * PAGE)]))  # type: ignore[list-item]
    assert page.read() == News()


def test_of_very_many_workers_the_pools_are_told() -> None:
    page = NewsPage()
    pool = {"name": "trac", "workers": [{"request": {"uri": "x" * 1000}}] * 5000}
    page.write(News({"master": {"pid": 1}, "pools": [pool]}))  # type: ignore[typeddict-item]
    assert page.read().status == {"master": {"pid": 1}, "pools": [{"name": "trac", "workers": []}]}


def a_helper() -> Helper:
    return Helper(selectors.DefaultSelector(), lambda listeners, channel: None)


def listen(helper: Helper, status: str, metrics: Optional[str] = None) -> None:
    master = Settings(status_listen=status, metrics=metrics)
    helper.configure(Configuration(master, (Settings(),)), Inheritance(), start=False)


@pytest.mark.parametrize(
    ("address", "public"),
    [("127.0.0.1:0", False), ("localhost:0", False), ("unix:@{}", False), ("0.0.0.0:0", True)],
)
def test_addresses_that_others_can_reach(
    address: str, public: bool, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    helper = a_helper()
    listen(helper, address.format(tmp_path))
    helper.close()
    assert ("whoever reaches" in caplog.text) is public


def test_one_address_is_for_one_of_both_however_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(BootError, match="--metrics: --status-listen has this address"):
        listen(a_helper(), f"unix:{tmp_path}/s", f"{tmp_path}/s")


def test_of_two_addresses_none_stays_open_when_one_cannot_be_had(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(BootError):
            listen(a_helper(), f"unix:{tmp_path}/s", f"127.0.0.1:{taken.getsockname()[1]}")
    assert not list(tmp_path.iterdir())


def test_each_time_that_it_cannot_be_forked_it_waits_for_longer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_fork() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_fork)
    helper = a_helper()
    listen(helper, f"unix:{tmp_path}/s")
    waits = []
    for _ in range(4):
        helper.start()
        waits.append(helper.next_deadline() - time.monotonic())
    helper.close()
    assert waits == sorted(waits) and waits[0] > 0


def test_an_address_that_is_none() -> None:
    with pytest.raises(BootError, match="--status-listen") as raised:
        _parse("nowhere", "--status-listen")
    assert raised.value.exit_code == os.EX_USAGE


def test_no_process_without_an_address() -> None:
    helper = a_helper()
    assert not helper.wanted and helper.next_deadline() == float("inf")
    helper.start()
    helper.close()

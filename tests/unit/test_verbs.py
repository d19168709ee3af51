"""The table of verbs, and that the socket, the command's help and the manual page say the same."""

from __future__ import annotations

import os
import re
import subprocess
import typing
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from spawner import calls, control, ctl, report, status, verbs, wire
from spawner.verbs import VERBS, Verb

MANUAL = Path(__file__).parents[2] / "man" / "trac-spawnctl.8"
BY_NAME = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)


def mandoc(*options: str) -> str:
    result = subprocess.run(
        ["mandoc", *options, str(MANUAL)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return re.sub(".\b", "", result.stdout)


@pytest.fixture(scope="module")
def manual() -> Dict[str, str]:
    """The sections of the page, and its subsection Results."""
    parts = re.split(r"^(?:   )?(\w+(?: STATUS)?)$", mandoc("-T", "ascii"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert ctl.run([*arguments, "--help"]) == os.EX_OK
    return capsys.readouterr().out


# One table


def test_the_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys)
    assert max(map(len, text.splitlines())) <= 80
    listed = " ".join(text.partition("Verbs:")[2].split())
    assert listed.startswith(" ".join(f"{verb.synopsis} {verb.help}" for verb in VERBS))


@BY_NAME
def test_the_help_of_a_verb(capsys: pytest.CaptureFixture[str], verb: Verb) -> None:
    text = " ".join(help_of(capsys, verb.name).split())
    assert text.startswith(f"Usage: trac-spawnctl {verb.name} [OPTIONS]")
    assert verb.help in text and f"[default: {verb.patience:g}s]" in text
    for argument in verb.arguments:
        assert f"{argument.shown} {argument.help}" in text


def test_the_manual_is_clean() -> None:
    assert mandoc("-T", "lint", "-W", "warning") == ""


def test_the_manual_has_every_verb_with_its_arguments(manual: Dict[str, str]) -> None:
    listed = re.findall(r"^     (\S.*)$", manual["VERBS"], re.MULTILINE)[1:]
    # Short ones share their line with the beginning of the text.
    shown = [line.partition("  ")[0].replace(" | ", "|").replace(" ...", "...") for line in listed]
    assert shown == [verb.synopsis.lower() for verb in VERBS]


def test_the_manual_has_every_option(capsys: pytest.CaptureFixture[str], manual: Dict[str, str]) -> None:
    options = set(re.findall(r"(?<!\S)--?[a-z]+", help_of(capsys)))
    assert {"-s", "--control", "--json", "--timeout", "-h"} <= options
    assert options <= set(re.findall(r"(?<!\S)--?[a-z]+", manual["OPTIONS"]))


@BY_NAME
def test_the_manual_has_every_option_of_a_verb(manual: Dict[str, str], verb: Verb) -> None:
    options = {word for one in verb.options for word in (f"--{one.name}", one.flag) if word}
    section = manual.get(verb.name.upper(), "")
    assert options <= set(re.findall(r"(?<!\S)--?[a-z-]+", section))


def test_the_manual_has_the_numbers(manual: Dict[str, str]) -> None:
    protocol = " ".join(manual["PROTOCOL"].split())
    assert f"can have {wire.MAX_REQUEST} bytes" in protocol
    assert protocol.count(f"{calls.PATIENCE:.0f} seconds") == 2
    assert f"can be {control.MAX_CLIENTS} connections" in protocol
    options = " ".join(manual["OPTIONS"].split())
    slow = [verb.name for verb in VERBS if verb.patience == verbs.AFTER_LOADING]
    assert (
        f"{verbs.AFTER_LOADING:.0f} seconds for {', '.join(slow[:-1])} and {slow[-1]}, "
        f"{verbs.SIGN_OF_LIFE:.0f} seconds for each address for ping, "
        f"and {verbs.AT_ONCE:.0f} seconds for the others"
    ) in options


def keys(shape: Any) -> Iterator[str]:
    """All keys of a TypedDict and of those inside it."""
    for name, kind in typing.get_type_hints(shape).items():
        yield name
        for part in (kind, *typing.get_args(kind)):
            if hasattr(part, "__total__"):
                yield from keys(part)


@BY_NAME
def test_the_manual_has_every_part_of_the_answer(manual: Dict[str, str], verb: Verb) -> None:
    # The entry has the names of the verbs it is for, alone on the line or with text behind.
    entries = re.split(r"^     (?=\S)", manual["Results"], flags=re.MULTILINE)
    (entry,) = [
        one for one in entries if re.match(rf"(?:[a-z-]+, )*{verb.name}(?:, [a-z-]+)*(?:  |$)", one, re.M)
    ]
    words = set(re.findall(r"[a-z_]+", entry))
    missing: List[str] = [key for key in keys(status.ANSWERS[verb.name]) if key not in words]
    assert missing == []


def test_a_shape_and_a_report_for_each_verb() -> None:
    names = [verb.name for verb in VERBS]
    assert list(status.ANSWERS) == names
    assert list(report.REPORTS) == names
    assert set(names) - set(verbs.ON_THE_WIRE) == {"top", "ping", "doctor", "snippet"}


# Arguments


@pytest.mark.parametrize(
    ("verb", "given", "checked"),
    [
        ("status", {}, {}),
        ("reload", {}, {}),
        ("reload", {"pool": None}, {}),
        ("reload", {"pool": "été"}, {"pool": "été"}),
        ("scale", {"pool": "a", "workers": "8"}, {"pool": "a", "workers": "8"}),
        ("scale", {"pool": "a", "workers": -2}, {"pool": "a", "workers": "-2"}),
        ("recycle", {"pool": "a", "slot": 12}, {"pool": "a", "slot": "12"}),
    ],
)
def test_arguments(verb: str, given: Dict[str, object], checked: Dict[str, str]) -> None:
    assert verbs.check_request(verb, given) == checked


@pytest.mark.parametrize(
    ("verb", "given", "words"),
    [
        ("state", {}, "no verb 'state'; known are status, reload, "),
        ("ping", {}, "no verb 'ping'"),
        ("status", {"pool": "a"}, "status: there is no argument 'pool'"),
        ("scale", {}, "scale: pool is missing: the name of the pool"),
        ("scale", {"pool": "a"}, "scale: workers is missing"),
        ("scale", {"pool": "a", "workers": "+ 2"}, "scale: workers: '+ 2' is neither"),
        ("scale", {"pool": "a", "workers": "1_0"}, "scale: workers: '1_0' is neither"),
        ("scale", {"pool": "a", "workers": "٣"}, "scale: workers: '٣' is neither"),
        ("scale", {"pool": "a", "workers": True}, "neither a text nor a whole number"),
        ("scale", {"pool": "a", "workers": 1.5}, "neither a text nor a whole number"),
        ("scale", {"pool": " ", "workers": "1"}, "scale: pool: ' ' is not a name"),
        ("recycle", {"slot": 3}, "recycle: slot needs pool as well"),
        ("recycle", {"pool": "a", "slot": 0}, "recycle: slot: '0' is not the number of a slot"),
        ("recycle", {"pool": "a\nb"}, "is not a name"),
    ],
)
def test_arguments_that_are_refused(verb: str, given: Dict[str, object], words: str) -> None:
    with pytest.raises(ValueError) as raised:
        verbs.check_request(verb, given)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("text", "wanted"), [("8", 8), ("0", 0), ("+2", 5), ("-2", 1), ("-5", -2), ("+0", 3)]
)
def test_wanted_workers(text: str, wanted: int) -> None:
    assert verbs.wanted_workers(text, 3) == wanted


def test_slot_number() -> None:
    assert verbs.slot_number({"pool": "a", "slot": "3"}) == 3
    assert verbs.slot_number({"pool": "a"}) is None

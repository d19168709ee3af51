"""From the text of an option, a variable or a line of a file to a value, and back for people.

Every function takes text and raises ValueError with a phrase that completes "--option: ...".
"""

from __future__ import annotations

import math
import os
import re
from typing import Callable, Optional

UNLIMITED = -1  # resource.RLIM_INFINITY, without importing resource for --version

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]+)?) ?([KMGT]?)(?:I?B)?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?) ?(s|m|h|d)?", re.IGNORECASE)
_OCTAL = re.compile(r"(?:0o)?([0-7]{1,5})")
_CALLABLE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BOOLEANS = {
    "1": True, "yes": True, "true": True, "on": True,
    "0": False, "no": False, "false": False, "off": False,
}  # fmt: skip


def text(given: str) -> str:
    return given


def boolean(given: str) -> bool:
    try:
        return _BOOLEANS[given.strip().lower()]
    except KeyError:
        raise ValueError(f"{given!r} is neither yes nor no") from None


def negated(given: str) -> bool:
    return not boolean(given)


def whole(least: int, most: Optional[int] = None) -> Callable[[str], int]:
    """A parser of whole numbers from ``least`` to ``most``."""

    def parse(given: str) -> int:
        # int() alone takes '1_000', ' 5' and digits of other scripts.
        if not re.fullmatch("-?[0-9]{1,18}", given):
            raise ValueError(f"{given!r} is not a whole number")
        number = int(given)
        if number < least:
            raise ValueError(f"{given} is too small, the least is {least}")
        if most is not None and number > most:
            raise ValueError(f"{given} is too large, the most is {most}")
        return number

    return parse


def size(given: str) -> int:
    """Bytes, from '500M', '1.5G', '1024K' or plain bytes; units are powers of 1024."""
    match = _SIZE.fullmatch(given)
    if match is None:
        raise ValueError(f"{given!r} is not a size such as 500M, 1.5G or 1048576")
    return int(float(match[1]) * _SIZE_UNITS[match[2].upper()])


def duration(given: str) -> float:
    """Seconds, from '30s', '10m', '2h', '1d' or plain seconds."""
    match = _DURATION.fullmatch(given)
    if match is None:
        raise ValueError(f"{given!r} is not a time such as 30s, 10m, 2h, 1d or 30 (seconds)")
    return float(match[1]) * _SECONDS[(match[2] or "s").lower()]


def timeout(given: str) -> float:
    """As ``duration``, but above zero: at zero no request could ever be received."""
    seconds = duration(given)
    if seconds <= 0:
        raise ValueError("the time must be more than 0")
    return seconds


def share(given: str) -> float:
    """A part of one, from '10%' or '0.1'."""
    number = given[:-1].rstrip() if given.endswith("%") else given
    if not _NUMBER.fullmatch(number):
        raise ValueError(f"{given!r} is not a share such as 10% or 0.1")
    part = float(number) / (100 if given.endswith("%") else 1)
    if part > 1:
        raise ValueError(f"{given} is more than the whole, write for example 10% or 0.1")
    return part


def octal(given: str) -> int:
    """Permission bits, from '660', '0660' or '0o660'."""
    match = _OCTAL.fullmatch(given)
    if match is None or int(match[1], 8) > 0o777:
        raise ValueError(f"{given!r} is not an octal mode from 0 to 777, such as 0660")
    return int(match[1], 8)


def limit(given: str) -> int:
    """A resource limit: a whole number or 'unlimited'."""
    return UNLIMITED if given.lower() == "unlimited" else whole(0)(given)


def size_limit(given: str) -> int:
    """A resource limit in bytes: a size or 'unlimited'."""
    return UNLIMITED if given.lower() == "unlimited" else size(given)


def path(given: str) -> str:
    """An absolute path: the program may change its directory later."""
    return os.path.abspath(given)


def log_target(given: str) -> str:
    """A path, made absolute; "syslog"; or "-" for standard output."""
    return given if given in ("syslog", "-") else path(given)


def access_format(given: str) -> str:
    from workers.accessformat import compile_format  # not needed for --version

    compile_format(given)
    return given


def url_path(given: str) -> str:
    """The path of a request, with a query if need be, as it would follow the host in a URL."""
    if not re.fullmatch("/[!-~]*", given):
        raise ValueError(f"{given!r} is no path of a URL, such as /wiki or /report/1?max=5")
    return given


def script_name(given: str) -> str:
    """Where an application is in the URLs of its site: "" for the root."""
    from workers.paths import parse_script_name  # not needed for --version

    return parse_script_name(given)


def network(given: str) -> str:
    """An IP address, or a network such as 192.0.2.0/24."""
    from workers.peers import parse_network  # not needed for --version

    parse_network(given)
    return given


def socket_path(given: str) -> str:
    """A Unix socket: a path, made absolute, or the name of an abstract one behind '@'."""
    place = given[len("unix:") :] if given.startswith("unix:") else given
    if place in ("", "@"):
        raise ValueError(f"{given!r} names no socket")
    return place if place.startswith("@") else path(place)


def listener(given: str) -> str:
    """One address of --listen; only a relative path is changed, ``parse_address`` judges it."""
    return "unix:" + socket_path(given) if given.startswith("unix:") else given


def callable_name(given: str) -> str:
    if not _CALLABLE.fullmatch(given):
        raise ValueError(f"{given!r} is not of the form module:callable, such as mysite.wsgi:app")
    return given


def template_variables(given: str) -> str:
    """Text that Trac splits at ',' and '=' in each request for the project list."""
    for pair in given.split(","):
        if pair.count("=") != 1:
            raise ValueError(f"{pair!r} is not of the form NAME=VALUE (separated by commas)")
    return given


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser that takes one of ``choices``, in any case."""

    def parse(given: str) -> str:
        if given.lower() not in choices:
            raise ValueError(f"{given!r} is not one of {', '.join(choices)}")
        return given.lower()

    return parse


def show_size(number: int) -> str:
    """The shortest exact way to write a size: 1G rather than 1073741824."""
    for unit in ("T", "G", "M", "K"):
        if number and number % _SIZE_UNITS[unit] == 0:
            return f"{number // _SIZE_UNITS[unit]}{unit}"
    return str(number)


def show_duration(seconds: float) -> str:
    # The longest times have more digits than ``duration`` takes.
    number, unit = (seconds, "s") if seconds < 1e9 else (seconds / 86400, "d")
    return f"{math.floor(number)}{unit}" if number == math.floor(number) else f"{number:.12g}{unit}"


def show_script_name(name: str) -> str:
    from urllib.parse import quote  # not needed for --version

    return quote(name) or "/"


def show_share(part: float) -> str:
    return f"{part * 100:.12g}%"


def show_octal(mode: int) -> str:
    return f"{mode:04o}"


def show_limit(number: int) -> str:
    return "unlimited" if number == UNLIMITED else str(number)


def show_size_limit(number: int) -> str:
    return "unlimited" if number == UNLIMITED else show_size(number)

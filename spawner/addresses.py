"""Where to listen, as text and as a value."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass

# sockaddr_un holds 108 bytes: a path and its final NUL, or a NUL and an abstract name.
_LONGEST_NAME = 107


@dataclass(frozen=True)
class Address:
    """``kind`` is unix, abstract, inet, inet6 or fd; ``path`` is the name of an abstract socket
    too, without the '@'. str() gives the form that parse_address() reads."""

    kind: str
    path: str = ""
    host: str = ""
    port: int = 0
    fd: int = -1

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        if self.kind == "abstract":
            return f"unix:@{self.path}"
        if self.kind == "fd":
            return f"fd://{self.fd}"
        return f"[{self.host}]:{self.port}" if self.kind == "inet6" else f"{self.host}:{self.port}"


def address_of(listening: socket.socket) -> Address:
    """Where others can connect to a listening socket, also to one that was inherited as a
    descriptor. Only in the file system that this process sees."""
    name = listening.getsockname()
    if listening.family != socket.AF_UNIX:
        kind = "inet6" if listening.family == socket.AF_INET6 else "inet"
        return Address(kind, host=name[0], port=name[1])
    if isinstance(name, bytes):
        # The NUL that begins an abstract name is no part of the name.
        return Address("abstract", path=os.fsdecode(name[1:]))
    return Address("unix", path=name)


_FORMS = "unix:/path, unix:@name, host:port, [v6]:port or fd://N"


def parse_address(text: str) -> Address:
    """What --listen takes; a relative path after 'unix:' counts from the working directory.
    Raises ValueError."""
    if text.startswith("unix:"):
        return _unix_address(text[len("unix:") :])
    if text.startswith(("/", "@")):
        return _unix_address(text)
    if text.startswith("fd://"):
        number = text[len("fd://") :]
        if not re.fullmatch("[0-9]{1,7}", number):
            raise ValueError(f"{text!r}: after fd:// comes the number of a file descriptor")
        return Address("fd", fd=int(number))
    if text.startswith("["):
        return _inet6_address(text)
    return _inet_address(text)


def _unix_address(name: str) -> Address:
    if name in ("", "@"):
        raise ValueError("the socket has no name; give unix:/path or unix:@name")
    if "\0" in name:
        raise ValueError(f"{name!r}: a name cannot hold a NUL")
    abstract = name.startswith("@")
    path = name[1:] if abstract else os.path.abspath(name)
    length = len(os.fsencode(path))
    if length > _LONGEST_NAME:
        raise ValueError(
            f"{path}: {length} bytes is too long for a Unix socket, {_LONGEST_NAME} is the limit"
        )
    return Address("abstract" if abstract else "unix", path=path)


def _inet6_address(text: str) -> Address:
    match = re.fullmatch(r"\[([^\]]*)\]:(.*)", text)
    if match is None:
        raise ValueError(f"{text!r}: an IPv6 address is written [v6]:port")
    try:
        ipaddress.IPv6Address(match[1])
    except ValueError as error:
        raise ValueError(f"{text!r}: {match[1]!r} is not an IPv6 address") from error
    return Address("inet6", host=match[1], port=_port(match[2], text))


def _inet_address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} is none of {_FORMS}")
    if not host:
        raise ValueError(f"{text!r}: the host is missing; 0.0.0.0{text} is every IPv4 address")
    if ":" in host and re.fullmatch("[0-9a-fA-F:.]+(%.*)?", host):
        raise ValueError(f"{text!r}: put the IPv6 address in brackets, [v6]:port")
    if re.search(r"[\s/:@\[\]]", host):
        raise ValueError(f"{text!r} is none of {_FORMS}")
    return Address("inet", host=host, port=_port(port, text))


def _port(digits: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", digits) or int(digits) > 65535:
        raise ValueError(f"{text!r}: a port is a number from 0 to 65535, not {digits!r}")
    return int(digits)

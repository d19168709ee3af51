"""Questions to a running master, over its control socket, and to its pools, as a web server."""

from __future__ import annotations

import os
import pwd
import shlex
import socket
import time
from collections.abc import Collection, Iterable
from typing import Any, Optional

from spawner import controlpath, layers, wire
from spawner.addresses import Address
from spawner.layers import Given, Layer
from spawner.setting import Rank, Source
from spawner.settings import SETTINGS, Settings
from spawner.status import PoolStatus, SettingStatus
from workers.errors import BootError
from workers.fastcgi import client
from workers.fastcgi.connection import PeerClosed
from workers.fastcgi.records import RemoteProtocolError

#: They are the same from Python 3.10 on.
TIMEOUTS = (TimeoutError, socket.timeout)


def find_control(given: Optional[str]) -> str:
    """The control socket: as given, as the environment says, or the default. Raises BootError."""
    path = given or os.environ.get("TRAC_SPAWN_CONTROL")
    pidfile = os.environ.get("TRAC_SPAWN_PIDFILE")
    if not path:
        path = controlpath.beside(pidfile) if pidfile else controlpath.runtime_path()
    if not path:
        raise BootError(
            "there is no runtime folder where a control socket could be: name it, with --control "
            "or TRAC_SPAWN_CONTROL",
            os.EX_USAGE,
        )
    return os.path.abspath(path)


def ask(path: str, verb: str, arguments: dict[str, str], timeout: float) -> Any:
    """The result of ``verb``, from the master at ``path``. Raises BootError."""
    deadline = time.monotonic() + timeout
    try:
        with client.connect(path, timeout) as connection:
            try:
                connection.sendall(wire.request(verb, arguments))
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused; why can still be read
            line = _read_line(connection, deadline)
    except TIMEOUTS:
        raise BootError(
            f"the master at {path} has not answered within {timeout:g} seconds; what it was told "
            "it may still do",
            os.EX_TEMPFAIL,
        ) from None
    except OSError as error:
        raise _no_master(path, error) from error
    if not line.endswith(b"\n"):
        raise BootError(
            f"the master at {path} has ended without an answer; its log may say why",
            os.EX_UNAVAILABLE,
        )
    return wire.parse_answer(line)


def told_settings(rows: Iterable[SettingStatus], whose: Collection[Optional[str]]) -> Settings:
    """Out of the answer to ``config``: what has been said for these pools; None is the master. The
    rest is default. Raises BootError."""
    known = {setting.file_key: setting for setting in SETTINGS}
    layer: Layer = {}
    for row in rows:
        setting = known.get(row["name"])  # none of a master that is newer than we are
        if setting is not None and row["pool"] in whose and row["source"] != "default":
            texts = tuple(shlex.split(row["value"])) if setting.many else (row["value"],)
            layer[setting.name] = Given(texts, Source(Rank.COMMAND_LINE, row["source"]))
    return layers.parse(layer)


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    """Up to the end of the line, or of what there is."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) <= wire.MAX_ANSWER:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            data = connection.recv(65536)
        except ConnectionResetError:
            break
        if not data:
            break
        line += data
    return bytes(line)


def _no_master(path: str, error: OSError) -> BootError:
    if isinstance(error, PermissionError):
        return BootError(f"{path}: only root and {_owner(path)} may use it", os.EX_NOPERM)
    why = error.strerror or str(error)
    if isinstance(error, ConnectionRefusedError):
        why = "nobody listens there any more"
    return BootError(
        f"no master answers at {path}: {why}; start one with trac-spawn, or name the control "
        "socket of yours with --control or TRAC_SPAWN_CONTROL (with --pidfile FILE.pid it is FILE.ctl)",
        os.EX_UNAVAILABLE,
    )


def _owner(path: str) -> str:
    try:
        return pwd.getpwuid(os.stat(path).st_uid).pw_name
    except (OSError, KeyError):
        return "its owner"


# -- the pools ---------------------------------------------------------------------------------


def occupation(pool: PoolStatus) -> str:
    """What keeps a pool from answering, as far as its status tells."""
    states = [worker["state"] for worker in pool["workers"]]
    if not states:
        return "there are no workers"
    if set(states) == {"busy"}:
        return f"all {len(states)} workers were busy"
    return f"{states.count('busy')} of {len(states)} workers were busy"


def fastcgi_address(address: Address) -> client.Address:
    """As the FastCGI client takes it; not of a descriptor."""
    name = {"unix": address.path, "abstract": "@" + address.path}.get(address.kind)
    return name or (address.host, address.port)


def knock(address: Address, timeout: float) -> None:
    """Have a worker answer a FastCGI management request. Raises OSError, RemoteProtocolError."""
    deadline = time.monotonic() + timeout
    connection = client.ClientConnection()
    with client.connect(fastcgi_address(address), timeout) as sock:
        sock.sendall(connection.get_values(["FCGI_MAX_CONNS"]))
        while True:
            event = connection.next_event()
            if isinstance(event, client.Values):
                return
            if isinstance(event, PeerClosed):
                raise RemoteProtocolError("closed the connection without an answer")
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            connection.receive_data(sock.recv(65536))

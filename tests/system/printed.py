"""What ``trac-spawnctl snippet`` prints, and the real web servers started with it as it is."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Optional

from .pools import BIN, Pool, base_environment
from .processes import PATIENCE
from .webservers import Port, WebServer, WebServers

#: Two users; "secret" and "pässword" by htpasswd -B -C 4.
HTPASSWD = """\
joe:$2y$04$Ef9DrmALcU8Yt4ugnVPDwejR9iQaaVhqRKdL1br4ZsTX30Q4NV7gy
joé:$2y$04$HLFDyuYqIiI12a4pNWbFP.byvGm5UZOeTO8Qj./7Yt.a1wDHSbeZe
"""


def text_for(kind: str, *options: object, pool: Optional[Pool] = None) -> str:
    """The text; of a running pool, or of what ``options`` say."""
    command = [str(BIN / "trac-spawnctl"), "snippet", kind]
    command += ["-s", str(pool.control)] if pool is not None else []
    done = subprocess.run(
        [*command, *map(str, options)],
        env=base_environment(Path("/")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


class Printed:
    """Starts web servers: ``printed("nginx", "--mount", "/", pool=pool)``."""

    def __init__(self, webservers: WebServers) -> None:
        self.webservers = webservers

    def __call__(self, kind: str, *options: object, pool: Optional[Pool] = None) -> WebServer:
        if kind == "nginx":
            listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            text = text_for(kind, "--http", address, *options, pool=pool)
            # As www-data, which has to reach the socket.
            return self.webservers.nginx("", http=text, user="www-data", listener=listener)
        if kind in ("haproxy", "caddy"):
            port = Port()
            text = text_for(kind, "--http", f"127.0.0.1:{port.number}", *options, pool=pool)
            return getattr(self.webservers, kind)(text, port)
        text = text_for(kind, *options, pool=pool)
        if kind == "lighttpd":
            return self.webservers.lighttpd(text)
        modules = re.search("a2enmod (.*)", text)
        assert modules is not None, text
        return self.webservers.apache(text, modules[1].split())

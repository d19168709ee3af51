"""What can be printed: one table for the command, its help and the manual page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Mapping, Tuple

#: Options that say more about a site, as they are called in ``Wish``.
_PLACE = ("mount", "login", "deployed")
_SITE = (*_PLACE, "xsendfile")
_ADDRESS = ("http", "server_name")
_PLACES = ("conf_dir", "run_dir")


@dataclass(frozen=True)
class Form:
    """One way to do it. ``template`` is a file in this folder, ``wishes`` are the options that count.

    ``elsewhere``: it does not matter where the pool listens; ``any_pool``: nor which pool it is.
    """

    name: str
    help: str
    template: str
    wishes: Tuple[str, ...] = ()
    elsewhere: bool = False
    any_pool: bool = False


@dataclass(frozen=True)
class Kind:
    """``forms``: the first is the default. The only one of its kind has no name.

    ``service``: it is for those who start trac-spawn, not for a web server.
    """

    name: str
    help: str
    forms: Tuple[Form, ...]
    service: bool = False

    def form(self, name: str) -> Form:
        """Raises ValueError for a form that there is not."""
        for form in self.forms:
            if name in ("", form.name):
                return form
        known = ", ".join(form.name for form in self.forms)
        raise ValueError(f"{self.name} has no form {name!r}" + (f", only {known}" if known else ""))


def _apache() -> Iterator[Form]:
    file = "apache.conf"
    started = (*_SITE, "wrapper")
    yield Form("proxy-fcgi", "mod_proxy_fcgi in front of a pool", file, _SITE)
    yield Form("fcgid", "mod_fcgid, which starts trac.fcgi", file, started, elsewhere=True)
    yield Form("fcgid-suexec", "the same as the pool's user, by SuEXEC", file, started, elsewhere=True)
    yield Form("fastcgi-external", "mod_fastcgi in front of a pool", file, started)
    yield Form("fastcgi-static", "mod_fastcgi, which starts a pool", file, started, elsewhere=True)
    yield Form("fastcgi-dynamic", "mod_fastcgi, which starts trac.fcgi", file, started, elsewhere=True)


def _lighttpd() -> Iterator[Form]:
    yield Form("external", "in front of a pool", "lighttpd.conf", _SITE)
    yield Form("bin-path", "lighttpd starts a pool", "lighttpd.conf", (*_SITE, "wrapper"), elsewhere=True)


def _systemd() -> Iterator[Form]:
    yield Form("service", "a service for this pool", "service.unit", elsewhere=True)
    yield Form("socket", "the socket of that service", "socket.unit")
    yield Form(
        "template", "services trac-spawn@NAME, for files", "template.unit", ("conf_dir",), True, True
    )
    yield Form("template-socket", "their sockets", "template-socket.unit", ("conf_dir",), True, True)


def _only(template: str, *wishes: str, elsewhere: bool = False, any_pool: bool = False) -> Tuple[Form, ...]:
    return (Form("", "", template, wishes, elsewhere, any_pool),)


_TABLE = (
    Kind("lighttpd", "a file for its conf-available", tuple(_lighttpd())),
    Kind("apache", "a file for its conf-available", tuple(_apache())),
    Kind("nginx", "a file for its conf.d", _only("nginx.conf", *_SITE, *_ADDRESS)),
    Kind("haproxy", "sections for haproxy.cfg", _only("haproxy.cfg", "mount", "login", "http")),
    Kind("caddy", "a site for the Caddyfile", _only("Caddyfile", *_SITE, *_ADDRESS)),
    Kind("trac.fcgi", "a program for SuEXEC to start", _only("trac.fcgi", "wrapper", elsewhere=True)),
    Kind("systemd", "units", tuple(_systemd()), service=True),
    Kind(
        "sysv",
        "an LSB init script",
        _only("init.d", *_PLACES, elsewhere=True, any_pool=True),
        service=True,
    ),
    Kind("logrotate", "a file for logrotate.d", _only("logrotate.conf", elsewhere=True), service=True),
    Kind("tmpfiles", "a file for tmpfiles.d", _only("tmpfiles.conf", elsewhere=True), service=True),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _TABLE}

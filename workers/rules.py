"""What becomes of what the web server says: the place, the page, the user, before the application
sees it. The web server is believed or corrected here, as the administrator wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from workers import paths
from workers.environ import BadRequest
from workers.environments import AllowedEnvironments

#: When REMOTE_USER is believed: whenever it is there, where AUTH_TYPE says how it was checked, or not
#: at all.
ALWAYS, AUTH_TYPE, NEVER = "always", "auth-type", "never"
TRUST = (ALWAYS, AUTH_TYPE, NEVER)


@dataclass(frozen=True)
class Rules:
    """``for_trac``: the application is Trac, with what that expects different from PEP 3333."""

    for_trac: bool = False
    #: Where the application is, in latin-1; None to leave that to the web server.
    script_name: Optional[str] = None
    trust_remote_user: str = ALWAYS
    #: What requests may name; None when they may name nothing.
    environments: Optional[AllowedEnvironments] = None

    def apply(self, environ: dict[str, Any]) -> None:
        """Raises BadRequest."""
        if self.environments is not None:
            self.environments.choose(environ)
        self._locate(environ)
        if self.environments is not None:
            self.environments.check_child(environ)
        self.judge_user(environ)
        if self.for_trac:
            _make_login_text(environ)

    def _locate(self, environ: dict[str, Any]) -> None:
        # So many names at the beginning of PATH_INFO say what is asked for, and a web server may
        # protect some of them: "/admin" or, below a directory of environments, "/project/admin".
        depth = 2 if environ.get("trac.env_parent_dir") else 1
        if self.script_name is None:
            spelled = paths.spelled(environ, depth)
            if spelled is not None:
                environ["PATH_INFO"] = spelled
            if environ.get("SCRIPT_NAME", "").startswith("//"):
                # As links, "//trac/wiki" would lead to a host of that name. Caddy and HAProxy let it pass.
                environ["SCRIPT_NAME"] = "/" + environ["SCRIPT_NAME"].lstrip("/")
            return
        found = paths.split_at(environ, self.script_name, depth)
        if found is None:
            where = self.script_name or "/"
            raise BadRequest(
                "404 Not Found",
                "There is nothing at this address.",
                f"not below --script-name {where} (the web server should send other paths elsewhere)",
            )
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = found
        # With mod_rewrite in Apache, Trac would make a SCRIPT_NAME of this one.
        environ.pop("SCRIPT_URL", None)

    def judge_user(self, environ: dict[str, Any]) -> None:
        """Take a user away who is not to be believed."""
        if self.trust_remote_user == ALWAYS:
            return
        if self.trust_remote_user == NEVER or not environ.get("AUTH_TYPE"):
            environ.pop("REMOTE_USER", None)
            environ.pop("AUTH_TYPE", None)


def _make_login_text(environ: dict[str, Any]) -> None:
    """Trac takes REMOTE_USER for text, whereas PEP 3333 has the bytes of it, a character a byte.

    Logins that are not UTF-8 stay: their browser has sent latin-1.
    """
    user = environ.get("REMOTE_USER", "")
    if not user.isascii():
        try:
            environ["REMOTE_USER"] = user.encode("latin-1").decode("utf-8")
        except UnicodeDecodeError:
            pass

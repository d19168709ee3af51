"""Trac environments that requests name: TRAC_ENV or TRAC_ENV_PARENT_DIR as FastCGI parameters.

A web server's configuration sets them. No visitor can: a header of that name has HTTP_ before it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Optional

from workers.environ import BadRequest


@dataclass(frozen=True)
class AllowedEnvironments:
    """Those in ``directories``, at any depth, or these themselves; real paths, without symbolic links."""

    directories: tuple[str, ...]

    @classmethod
    def within(cls, directories: Iterable[str]) -> AllowedEnvironments:
        return cls(tuple(os.path.realpath(path) for path in directories))

    def choose(self, environ: dict[str, Any]) -> None:
        """Have Trac serve what the request names. Raises BadRequest for what it must not, and when
        neither the request nor the pool names anything."""
        env, parent = environ.get("TRAC_ENV"), environ.get("TRAC_ENV_PARENT_DIR")
        if env:
            path = self._admit("TRAC_ENV", env)
            if not os.path.isfile(os.path.join(path, "VERSION")):
                raise _missing(f"TRAC_ENV={path} is not a Trac environment")
            environ.update({"trac.env_path": path, "trac.env_parent_dir": None})
        elif parent:
            path = self._admit("TRAC_ENV_PARENT_DIR", parent)
            if not os.path.isdir(path):
                raise _missing(f"TRAC_ENV_PARENT_DIR={path} is not a directory")
            environ.update({"trac.env_path": None, "trac.env_parent_dir": path})
        elif not (environ.get("trac.env_path") or environ.get("trac.env_parent_dir")):
            raise _missing("the web server names no environment, neither TRAC_ENV nor TRAC_ENV_PARENT_DIR")

    def check_child(self, environ: dict[str, Any]) -> None:
        """Of a parent directory that the request has named, what PATH_INFO asks for. Raises BadRequest."""
        parent = environ.get("trac.env_parent_dir")
        if not (parent and environ.get("TRAC_ENV_PARENT_DIR")):
            return
        name = environ.get("PATH_INFO", "").lstrip("/").partition("/")[0]
        if name:
            # As Trac joins them: it takes the name for text as it is.
            path = _real(os.path.join(parent, name))
            if path is None or not self._holds(path) or name in (".", ".."):
                raise _forbidden(f"{name!r} in {parent} leads out of the directories of --env-from-params")
            return
        # The list of environments, which Trac would make of all that is there.
        environ["trac.env_paths"] = list(self._children(parent))
        environ["trac.env_parent_dir"] = None

    def _children(self, parent: str) -> Iterable[str]:
        from trac.web.main import get_environments

        for path in get_environments({"trac.env_parent_dir": parent}).values():
            real = _real(path)
            if real is not None and self._holds(real):
                yield path

    def _admit(self, name: str, value: str) -> str:
        path = None
        if value.startswith("/"):
            # The bytes as the web server sent them; see environ.
            path = _real(os.fsdecode(value.encode("latin-1")))
        if path is None or not self._holds(path):
            raise _forbidden(f"{name}={value!r} is not in a directory of --env-from-params")
        return path

    def _holds(self, path: str) -> bool:
        return any(os.path.commonpath([path, directory]) == directory for directory in self.directories)


def _real(path: str) -> Optional[str]:
    """Without symbolic links and "..": what is opened is what was looked at. None for no path at all."""
    # With a NUL, Python 3.9 resolves it, and others raise ValueError.
    return None if "\0" in path else os.path.realpath(path)


def _forbidden(detail: str) -> BadRequest:
    reason = "The web server asks for an environment that is not served here."
    return BadRequest("403 Forbidden", reason, detail)


def _missing(detail: str) -> BadRequest:
    return BadRequest("404 Not Found", "There is no environment at this address.", detail)

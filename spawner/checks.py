"""What can be said against the settings before anything is started, from the system alone.

Nothing of the application is imported here: this runs in the process that becomes the master.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Iterator

from workers.errors import BootError

if TYPE_CHECKING:
    from spawner.settings import Settings

# What Trac asks of an environment's VERSION file (trac/env.py).
_VERSION_TAG = b"Trac Environment Version"


def check_all(settings: Settings) -> None:
    """Everything below, and the addresses. Raises BootError for the first thing that is wrong."""
    settings.listeners()
    check_privileges(settings)
    check_places(settings)
    check_folders_of_sockets(settings)
    check_admission(settings)
    check_application(settings)


def check_application(settings: Settings) -> None:
    """Raise BootError, naming the option or variable, when there is no application to load.

    What only the application's code can tell (an import that fails, an environment that needs an
    upgrade) is found where it is loaded.
    """
    if settings.chroot is not None:
        # The paths count inside the new root, where symbolic links lead elsewhere.
        return
    # With --user, root looks here, and root may read anything: whether that user may is found
    # when the application is loaded, as that user.
    if settings.env is not None:
        with _explained(settings, "env", settings.env):
            _check_environment(settings, settings.env)
    for directory in settings.env_from_params:
        with _explained(settings, "env_from_params", directory):
            os.listdir(directory)
    if settings.env_parent_dir is not None:
        with _explained(settings, "env_parent_dir", settings.env_parent_dir):
            os.listdir(settings.env_parent_dir)
        if settings.env_index_template is not None:
            with _explained(settings, "env_index_template", settings.env_index_template):
                open(settings.env_index_template, "rb").close()


def _check_environment(settings: Settings, path: str) -> None:
    os.listdir(path)
    remedy = f"create one with: trac-admin {path} initenv"
    try:
        with open(os.path.join(path, "VERSION"), "rb") as file:
            tag = file.read(len(_VERSION_TAG))
    except (FileNotFoundError, IsADirectoryError):
        reason = "it has no VERSION file"
        if any(os.path.isfile(os.path.join(path, name, "VERSION")) for name in os.listdir(path)):
            remedy = "serve the environments below it with --env-parent-dir"
    else:
        if tag == _VERSION_TAG:
            return
        reason = f"its VERSION file does not begin with {_VERSION_TAG.decode()!r}"
    raise _wrong(
        settings, "env", f"{path} is not a Trac environment, {reason}; {remedy}", os.EX_NOINPUT
    )


def check_privileges(settings: Settings) -> None:
    """Raise BootError for a user or group that does not exist, and for what only root may do."""
    from spawner import privileges  # the user data base is no business of --version

    privileges.resolve(settings.user, settings.group)
    if settings.socket_user is not None:
        privileges.find_user(settings.socket_user, "--socket-user")
    if settings.socket_group is not None:
        privileges.find_group(settings.socket_group, "--socket-group")
    root_only = ("user", "group", "chroot", "socket_user", "socket_group")
    privileges.check_root_only({name: getattr(settings, name) for name in root_only})


def check_places(settings: Settings) -> None:
    """Raise BootError for directories that are missing and files that cannot be written."""
    for name in ("chroot", "chdir"):
        directory = getattr(settings, name)
        # As above: behind --chroot, --chdir leads elsewhere.
        if directory is not None and (name == "chroot" or settings.chroot is None):
            with _explained(settings, name, directory):
                os.listdir(directory)
    for name in ("pidfile", "log_file", "slow_log", "access_log", "control"):
        path = getattr(settings, name)
        if path in (None, "syslog", "-"):
            continue
        if os.path.isdir(path):
            raise _wrong(settings, name, f"{path} is a directory", os.EX_CANTCREAT)
        # A file that exists is written in place, else the directory must admit a new one.
        place = path if os.path.exists(path) else os.path.dirname(path)
        if not os.access(place, os.W_OK):
            missing = not os.path.exists(place)
            reason = "does not exist" if missing else "is not writable"
            raise _wrong(settings, name, f"{place} {reason}", os.EX_CANTCREAT)


def check_admission(settings: Settings) -> None:
    """Raise BootError for users and groups that do not exist, and for an address that anybody can reach."""
    from spawner import admission  # nor is this one

    admission.rules(settings)
    admission.check_addresses(settings)


def check_folders_of_sockets(settings: Settings) -> None:
    """Raise BootError for a Unix socket in a folder that is not there."""
    for source, address in settings.named_listeners():
        folder = os.path.dirname(address.path) if address.kind == "unix" else "/"
        if not os.path.isdir(folder):
            raise BootError(
                f"{source.name}: there is no directory {folder}; create it first",
                os.EX_CANTCREAT,
            )


@contextlib.contextmanager
def _explained(settings: Settings, name: str, path: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise _wrong(settings, name, f"{error.filename}: permission denied", os.EX_NOPERM) from None
    except FileNotFoundError:
        raise _wrong(settings, name, f"{path} does not exist", os.EX_NOINPUT) from None
    except NotADirectoryError:
        raise _wrong(settings, name, f"{path} is not a directory", os.EX_NOINPUT) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise _wrong(settings, name, f"{path}: {reason}", os.EX_NOINPUT) from None


def _wrong(settings: Settings, name: str, message: str, code: int) -> BootError:
    return BootError(f"{settings.source(name).name}: {message}", code)

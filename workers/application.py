"""The application that workers serve: a Trac environment, a directory of them, any WSGI callable.

Loading runs foreign code (Trac, its plugins, the callable's module), so it happens in the template
or in a worker, never in the master. :func:`load` turns what can go wrong into one line for a
person.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import pwd
import re
import sys
import traceback
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Iterator, Optional, Sequence

from workers import handlers, sealing
from workers.environ import make_environ
from workers.environments import AllowedEnvironments
from workers.errors import BootError
from workers.rules import ALWAYS, Rules
from workers.wsgi import server_keys

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger("trac-spawn")

#: Pages that together touch what most requests need: templates, wiki parser, database, files.
WARM_UP_PATHS = (
    "/",
    "/wiki",
    "/timeline",
    "/report",
    "/query",
    "/newticket",
    "/search",
    "/roadmap",
    "/prefs",
    "/about",
    "/chrome/common/css/trac.css",
)
#: A parent directory can hold hundreds of environments; opening each costs memory and time.
WARM_ENVIRONMENTS = 16

#: Some of Trac's messages are meant for a web page.
_HTML_TAG = re.compile(r"</?[a-z]+>")

#: Trac's own settings for a request, by the environ key that carries each.
_TRAC_KEYS = {
    "env": "trac.env_path",
    "env_parent_dir": "trac.env_parent_dir",
    "env_index_template": "trac.env_index_template",
    "base_url": "trac.base_url",
    "template_vars": "trac.template_vars",
}


@dataclass(frozen=True)
class ApplicationSpec:
    """One of ``env``, ``env_parent_dir`` and ``app`` ("module:callable"); with ``env_from_params`` there
    may be none."""

    env: Optional[str] = None
    env_parent_dir: Optional[str] = None
    env_index_template: Optional[str] = None
    base_url: Optional[str] = None
    template_vars: Optional[str] = None
    app: Optional[str] = None
    #: Where the web server has put it, "" for the root; None to believe the web server.
    script_name: Optional[str] = None
    trust_remote_user: str = ALWAYS
    #: Directories in which requests may name environments of their own.
    env_from_params: tuple[str, ...] = ()
    #: Whether files of Trac and its plugins are sent by StaticFiles.
    static_files: bool = True
    #: Whether parts of Trac that each page needs may be replaced by faster ones.
    accelerate: bool = True

    def rules(self) -> Rules:
        """What is to be made of each request before the application gets it."""
        name = self.script_name
        return Rules(
            for_trac=self.app is None,
            script_name=None if name is None else name.encode().decode("latin-1"),
            trust_remote_user=self.trust_remote_user,
            environments=self._allowed_environments(),
        )

    def _allowed_environments(self) -> Optional[AllowedEnvironments]:
        if self.app is not None or not self.env_from_params:
            return None
        return AllowedEnvironments.within(self.env_from_params)


@dataclass
class Application:
    """The WSGI callable, the environ entries that every request of it gets, and the rules for the
    others."""

    call: WSGIApplication
    environ: dict[str, object] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    #: PATH_INFO of requests that fill its caches.
    warm_paths: tuple[str, ...] = ()
    #: Environments of which WARM_UP_PATHS are requested as well.
    warm_environments: tuple[str, ...] = ()

    def warm_up(self, more: Sequence[str] = (), strict: bool = False) -> None:
        """All that warming() does, at once. Raises BootError."""
        for _ in self.warming(more, strict):
            pass

    def warming(self, more: Sequence[str] = (), strict: bool = False) -> Iterator[None]:
        """Compile Trac's page templates, and request the warm-up paths and ``more`` of them, which the
        administrator has named. After each there is time for something else.

        What fails is logged: visitors will see the same page fail. With ``strict``, one of ``more``
        that fails, or is answered with an error, raises BootError.
        """
        sealing.freeze()  # for the collections in these requests
        if self.rules.for_trac:
            yield from _compile_templates()
        for env, path in self._warm_pages(more):
            try:
                status = self._request(path, env)
            except Exception as error:  # the application's code, which may raise anything
                if strict and path in more:
                    raise _failed(f"--warmup {path} failed", error) from error
                log.warning("warm-up of %s failed", path, exc_info=True)
            else:
                if strict and path in more and status >= "400":
                    raise BootError(f"--warmup {path} is answered with: {status}", os.EX_CONFIG)
            yield
        self.release()

    def _warm_pages(self, more: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Environment, "" for that of every request, and path of each."""
        if self.warm_paths or not self.warm_environments:
            yield from (("", path) for path in (*self.warm_paths, *more))
        for env in self.warm_environments:
            yield from ((env, path) for path in (*WARM_UP_PATHS, *more))

    def _request(self, page: str, env: str = "") -> str:
        """The status line of the answer, as in "200 OK"."""
        path, _, query = page.partition("?")
        place = self.rules.script_name or ""
        params = {"SCRIPT_NAME": place, "PATH_INFO": path, "QUERY_STRING": query}
        base = {**server_keys(), **self.environ}
        if env:
            base.update({"trac.env_path": env, "trac.env_parent_dir": None})
        environ = make_environ(params, io.BytesIO(), sys.stderr, base)
        seen: list[str] = []

        def start_response(
            status: str, headers: object, exc_info: object = None
        ) -> Callable[[bytes], object]:
            seen.append(status)
            return lambda data: None

        answer = self.call(environ, start_response)
        try:
            for _ in answer:
                pass
        finally:
            close = getattr(answer, "close", None)
            if close is not None:
                close()
        return seen[-1] if seen else "500 no answer"

    def release(self) -> None:
        """Close what must not cross a fork: database connections and repositories."""
        main = sys.modules.get("trac.env")
        if main is None:
            return
        from trac.db.api import DatabaseManager
        from trac.db.pool import ConnectionPool
        from trac.versioncontrol.api import RepositoryManager

        for environment in list(main.env_cache.values()):
            RepositoryManager(environment).shutdown()
            # Trac's pool keys connections by thread id, and the main thread keeps its id over a
            # fork: without this every worker would believe the template's connection its own.
            DatabaseManager(environment).shutdown()
            # The warm-up's host name must not end up in notification mails: without
            # [trac] base_url, Trac takes these from the first request that it sees.
            for name in ("abs_href", "href"):
                vars(environment).pop(name, None)
        # All pools are one, in which an environment that failed to open has left its connection.
        ConnectionPool(0, None).shutdown()


def load(spec: ApplicationSpec, ahead: bool = True) -> Application:
    """Import the application and, with ``ahead``, open its environments before the first request.

    Raises BootError with the application's own traceback.
    """
    if spec.app is not None:
        return Application(_load_callable(spec.app), rules=spec.rules())
    application = _load_trac(spec)
    handlers.watch()
    if ahead:
        if spec.accelerate:
            accelerate()
        application.warm_paths = _open_ahead(spec)
        application.warm_environments = _open_allowed(application.rules)
    return application


def _load_callable(name: str) -> WSGIApplication:
    module_name, _, attribute = name.partition(":")
    try:
        here = os.getcwd()
    except FileNotFoundError as error:
        why = f"--app {name}: the working directory has been removed; give one with --chdir"
        raise BootError(why, os.EX_NOINPUT) from error
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        target: Any = importlib.import_module(module_name)
    except Exception as error:  # a module runs code of its own
        raise _failed(f"--app {name}: importing {module_name} failed", error) from error
    for part in attribute.split("."):
        try:
            target = getattr(target, part)
        except AttributeError as error:
            raise BootError(
                f"--app {name}: {module_name} has no {attribute!r}", os.EX_DATAERR
            ) from error
    if not callable(target):
        raise BootError(f"--app {name}: {attribute!r} is not callable", os.EX_DATAERR)
    found: WSGIApplication = target
    return found


def _load_trac(spec: ApplicationSpec) -> Application:
    from workers.deferred import defer

    # Trac 1.6 imports it, and nobody who runs Trac can do anything about that.
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    # A ninth of what would be loaded, of which Trac wants the version, for /about and error pages.
    defer("setuptools")
    try:
        from trac import __version__ as version
        from trac.web.main import dispatch_request
    except Exception as error:  # a broken installation, not a missing one alone
        raise _failed("importing Trac failed", error) from error
    environ: dict[str, object] = {
        "trac.web.frontend": "trac-spawn",
        "trac.web.version": version,
    }
    for name, key in _TRAC_KEYS.items():
        environ[key] = getattr(spec, name)
    if not spec.static_files:
        return Application(dispatch_request, environ, spec.rules())
    from workers.staticfiles import StaticFiles

    return Application(StaticFiles(dispatch_request), environ, spec.rules())


def _open_ahead(spec: ApplicationSpec) -> tuple[str, ...]:
    """Open what the specification names; the paths that warm it up."""
    if spec.env is not None:
        _open_environment(spec.env)
        return WARM_UP_PATHS
    if spec.env_parent_dir is None:
        return ()
    names = _environment_names(spec.env_parent_dir)
    paths: list[str] = []
    if len(names) <= WARM_ENVIRONMENTS:
        paths.append("/")  # the index of the environments, which opens every one of them
    for name in _open_environments(spec.env_parent_dir, names):
        paths += [f"/{name}{path}" for path in WARM_UP_PATHS]
    return tuple(paths)


def _open_allowed(rules: Rules) -> tuple[str, ...]:
    """Open the environments that requests may name, as far as they can be found; their paths."""
    if rules.environments is None:
        return ()
    opened: list[str] = []
    for directory in rules.environments.directories:
        if os.path.isfile(os.path.join(directory, "VERSION")):
            opened += _open_environments("/", [directory])
        else:
            names = _environment_names(directory)
            opened += [os.path.join(directory, name) for name in _open_environments(directory, names)]
    # The key of Trac's cache, which a request will have.
    return tuple(dict.fromkeys(map(os.path.realpath, opened)))


def accelerate() -> None:
    """Have Trac take less time for what it does from now on in this process, and come to the same."""
    from workers import dates, links, markup, options, rendering, translations, wikirules

    translations.remember()
    dates.remember()
    links.remember()
    markup.accelerate()
    options.accelerate()
    rendering.accelerate()
    wikirules.accelerate()


def _compile_templates() -> Iterator[None]:
    """Of all environments that have been opened; before the warm-up's requests, which need many of them."""
    from trac.env import env_cache

    from workers.pagetemplates import CompiledTemplates

    templates = CompiledTemplates()
    for environment in list(env_cache.values()):
        yield from templates.serve(environment)


def _open_environment(path: str) -> None:
    """Open one environment into Trac's cache, as a request would."""
    from trac.core import TracError
    from trac.env import open_environment

    try:
        _try_to_read(path)
        open_environment(path, use_cache=True)
    except BootError:
        raise
    except TracError as error:
        # Trac's own words say what to do, "Run: trac-admin PATH upgrade" among them.
        words = _HTML_TAG.sub("", _on_one_line(error))
        raise BootError(f"Trac environment {path}: {words}", os.EX_CONFIG) from error
    except PermissionError as error:
        raise BootError(
            f"Trac environment {path}: {error.strerror}: {error.filename} (the user {_our_user()}"
            " must be able to read and write the environment)",
            os.EX_NOPERM,
        ) from error
    except Exception as error:  # plugins are loaded here, and run code of their own
        raise _failed(f"Trac environment {path} cannot be opened", error) from error


def _try_to_read(path: str) -> None:
    """Trac calls a file that it may not read missing. Raises PermissionError, BootError."""
    for name in ("VERSION", os.path.join("conf", "trac.ini")):
        try:
            open(os.path.join(path, name), "rb").close()
        except PermissionError:
            raise
        except OSError as error:
            raise BootError(
                f"Trac environment {path}: {error.strerror}: {error.filename}", os.EX_NOINPUT
            ) from error


def _open_environments(parent: str, names: Sequence[str]) -> list[str]:
    """Open the environments below ``parent``, up to a limit; names of those that could be opened.

    A broken one does not keep the others from being served: Trac shows its error to its visitors.
    """
    opened: list[str] = []
    if len(names) > WARM_ENVIRONMENTS:
        log.info("only the first %d of %d environments are loaded ahead", WARM_ENVIRONMENTS, len(names))
    for name in names[:WARM_ENVIRONMENTS]:
        try:
            _open_environment(os.path.join(parent, name))
        except BootError as error:
            log.warning("%s", error)
        else:
            opened.append(name)
    return opened


def _environment_names(parent: str) -> list[str]:
    try:
        names = sorted(os.listdir(parent))
    except OSError as error:
        raise BootError(
            f"environment parent directory {parent}: {error.strerror}", os.EX_NOINPUT
        ) from error
    return [name for name in names if os.path.isfile(os.path.join(parent, name, "VERSION"))]


def _our_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _on_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _said(error: BaseException) -> str:
    """An exception's type and words on one line."""
    return f"{type(error).__name__}: {_on_one_line(error)}"


def _closed_directories() -> Iterator[str]:
    """Where Python looks for modules and this user may not, so that they seem to be missing."""
    for path in sys.path:
        try:
            os.scandir(path).close()
        except PermissionError:
            yield path
        except OSError:
            continue


def _failed(what: str, error: Exception) -> BootError:
    """A missing module names itself; whatever else went wrong there needs its traceback."""
    closed = ", ".join(_closed_directories()) if isinstance(error, ImportError) else ""
    if closed:
        return BootError(
            f"{what}: {_said(error)} (the user {_our_user()} may not read {closed})", os.EX_NOPERM
        )
    return BootError(
        f"{what}: {_said(error)}",
        os.EX_SOFTWARE,
        traceback.format_exc(),
        unexpected=not isinstance(error, ImportError),
    )

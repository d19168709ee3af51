"""workers/staticfiles.py beside Trac itself, with a real environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trac.core import Component, ComponentMeta, implements
from trac.env import Environment, env_cache, open_environment
from trac.web.api import IRequestFilter, IRequestHandler
from trac.web.main import dispatch_request

from workers.environ import ErrorStream, make_environ
from workers.staticfiles import StaticFiles
from workers.wsgi import FILE_BLOCK, server_keys

STYLE = "/chrome/common/css/trac.css"
Answer = tuple[str, list[tuple[str, str]], bytes]


class Trac:
    """Trac itself, which counts what reaches it."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.asked += 1
        return dispatch_request(environ, start_response)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("trac")
    options = [("logging", "log_type", "none"), ("components", f"{__name__}.*", "enabled")]
    Environment(str(path / "env"), create=True, options=options).shutdown()
    site = path / "env" / "htdocs"
    (site / "large.bin").write_bytes(b"x" * (FILE_BLOCK + 1))
    (site / "empty.css").touch()
    (site / "gr\u00fcn.txt").write_text("green")
    (site / "no kind").write_text("?")
    (path / "outside.css").write_text("secret")
    beside = path / "env" / "htdocs-of-another"
    beside.mkdir()
    (beside / "style.css").touch()
    os.symlink(path / "outside.css", site / "link.css")
    yield path
    opened = env_cache.pop(str(path / "env"), None)
    if opened is not None:
        opened.shutdown()


@pytest.fixture
def env(parent: Path) -> Path:
    open_environment(str(parent / "env"), use_cache=True)
    return parent / "env"


def ask(application: Any, env: Path, path: str, **more: Any) -> Answer:
    params = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/trac", "PATH_INFO": path, "HTTP_HOST": "h"}
    body: Any = None
    environ = make_environ(params, body, ErrorStream(print), {**server_keys(), "trac.env_path": str(env)})
    environ.update(more)
    started: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.append((status, headers))
        return written.append

    blocks = application(environ, start_response)
    written += blocks
    if hasattr(blocks, "close"):
        blocks.close()
    return (*started[-1], b"".join(written))


def without_session(answer: Answer) -> Answer:
    status, headers, body = answer
    return status, [header for header in headers if header[0] != "Set-Cookie"], body


def both(env: Path, path: str, **more: Any) -> tuple[Answer, int]:
    """What both say, which must be the same, and how often Trac was asked."""
    trac = Trac()
    answer = without_session(ask(StaticFiles(trac), env, path, **more))
    assert answer == without_session(ask(dispatch_request, env, path, **more))
    return answer, trac.asked


SITE_FILES = ["large.bin", "empty.css", "gr\u00fcn.txt", "no kind", "link.css"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "path", [STYLE, "/chrome/common//css/../css/trac.css", *(f"/chrome/site/{name}" for name in SITE_FILES)]
)
def test_a_file_is_sent_as_trac_sends_it(env: Path, path: str, method: str) -> None:
    path = path.encode().decode("latin-1")
    (status, _, body), asked = both(env, path, REQUEST_METHOD=method, QUERY_STRING="v=1.6")
    assert (status, asked) == ("200 Ok", 0)
    assert method == "GET" or not body


def test_the_visitor_has_it_already(env: Path) -> None:
    date = dict(ask(StaticFiles(Trac()), env, STYLE)[1])["Last-Modified"]
    answer, asked = both(env, STYLE, HTTP_IF_MODIFIED_SINCE=date)
    assert (answer, asked) == (("304 Not Modified", [("Content-Length", "0")], b""), 0)
    assert both(env, STYLE, HTTP_IF_MODIFIED_SINCE="Sun, 06 Nov 1994 08:49:37 GMT")[0][0] == "200 Ok"


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/wiki/chrome/common/css/trac.css", {}),
        ("/chrome/common/nothing.css", {}),
        ("/chrome/nobody/trac.css", {}),
        ("/chrome/common/css", {}),
        ("/chrome/common/", {}),
        ("/chrome/common/css/trac.css\0", {}),
        ("/chrome/site/../../conf/trac.ini", {}),
        ("/chrome/site//etc/passwd", {}),
        ("/chrome/site/../htdocs-of-another/style.css", {}),
        ("/chrome/site/\xff", {}),
        (STYLE, {"REQUEST_METHOD": "POST"}),
        (STYLE, {"QUERY_STRING": "v=%ff"}),
    ],
)
def test_everything_else_is_left_to_trac(env: Path, path: str, more: dict[str, str]) -> None:
    trac = Trac()
    answer = ask(StaticFiles(trac), env, path, **more)
    assert trac.asked == 1 and b"secret" not in answer[2]


def test_environments_of_a_directory(env: Path) -> None:
    below = {"trac.env_path": None, "trac.env_parent_dir": str(env.parent)}
    assert both(env, "/env" + STYLE, **below)[1] == 0
    trac = Trac()
    for path in (STYLE, "/other" + STYLE):
        assert ask(StaticFiles(trac), env, path, **below)[0] == "404 Not Found"
    assert trac.asked == 2
    assert str(env.parent / "other") not in env_cache


def test_trac_ini_may_change(env: Path) -> None:
    trac = Trac()
    files = StaticFiles(trac)
    ask(files, env, STYLE)
    ini = env / "conf" / "trac.ini"
    before = ini.read_text()
    headers = "[http-headers]\nX-Extra = yes\nLast-Modified = never\nbad name = no\n"
    changes = [before + headers, before.replace("use_xsendfile = disabled", "use_xsendfile = enabled")]
    try:
        for number, change in enumerate(changes):
            ini.write_text(change)
            os.utime(ini, (number, number))
            answer = ask(files, env, STYLE)
            assert without_session(answer) == without_session(ask(dispatch_request, env, STYLE))
            assert (dict(answer[1]).get("x-extra"), trac.asked) == [("yes", 0), (None, 1)][number]
    finally:
        ini.write_text(before)
        os.utime(ini, (9, 9))


@pytest.mark.parametrize("interface", [IRequestFilter, IRequestHandler])
@pytest.mark.parametrize("first", [True, False])
def test_a_plugin_may_have_a_say(env: Path, interface: Any, first: bool) -> None:
    class Plugin(Component):
        implements(interface)

        def match_request(self, req: Any) -> bool:
            return False

        def pre_process_request(self, req: Any, handler: Any) -> Any:
            return handler

        def post_process_request(self, req: Any, *answer: Any) -> Any:
            return answer

    known = ComponentMeta._registry[interface]
    try:
        if first:
            known.insert(0, known.pop())
        env_cache.pop(str(env)).shutdown()
        open_environment(str(env), use_cache=True)
        last_in_line = interface is IRequestHandler and not first
        assert both(env, STYLE)[1] == (0 if last_in_line else 1)
    finally:
        ComponentMeta._components.remove(Plugin)
        known.remove(Plugin)
        env_cache.pop(str(env)).shutdown()

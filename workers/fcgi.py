"""The command trac.fcgi: what a web server starts by itself, as FastCGI or as plain CGI.

FastCGI 1.0, section 2.2: the listening socket is file descriptor 0. A pool on that socket is
trac-spawn's work, so this process becomes trac-spawn for it.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from typing import BinaryIO, NoReturn, cast

from setproctitle import setproctitle

from workers import prctl, sealing
from workers.application import Application, ApplicationSpec, load
from workers.connection import BODY_IN_MEMORY, Ceilings
from workers.environ import BadRequest, ErrorStream, content_length, make_environ
from workers.errors import BootError
from workers.paths import parse_script_name
from workers.peers import PeerRules, is_exposed, parse_network, web_server_addresses
from workers.rules import ALWAYS, TRUST
from workers.scoreboard import Scoreboard
from workers.worker import Worker, WorkerConfig
from workers.wsgi import PeerGone, error_answer, respond, server_keys

log = logging.getLogger("trac-spawn")

USAGE = """\
trac.fcgi is started by a web server, which puts its listening socket on descriptor 0, or
as a CGI program. TRAC_ENV or TRAC_ENV_PARENT_DIR in the environment says what it serves;
see trac.fcgi(8). To start a pool by hand, use: trac-spawn -n 8 -s /run/trac.sock --env PATH"""

_FCGI_LISTENSOCK_FILENO = 0
_BLOCK = 65_536
#: As trac-spawn's --max-body: above any attachment, yet one visitor cannot fill the disk.
_MAX_BODY = 1 << 30
#: As in trac-spawn's settings.
_YES, _NO = ("1", "yes", "true", "on"), ("0", "no", "false", "off")
#: Not "-m spawner", which first looks for modules in the directory that the web server runs us in.
_POOL = "import sys; sys.path[:] = filter(None, sys.path); from spawner.cli import main; main()"


def main() -> NoReturn:
    _open_standard_streams()
    _log_to_stderr()
    try:
        sys.exit(_run(sys.argv[1:]))
    except BootError as error:
        details = "\n" + error.traceback.rstrip() if error.unexpected else ""
        log.error("%s%s", error, details)
        sys.exit(error.exit_code)


def _run(arguments: list[str]) -> int:
    if arguments in (["-V"], ["--version"]):
        from importlib.metadata import version

        print("trac.fcgi", version("trac-spawn"))
        return os.EX_OK
    if arguments in (["-h"], ["--help"]):
        print(USAGE)
        return os.EX_OK
    if arguments:
        print(f"trac.fcgi: unknown argument {arguments[0]!r}\n{USAGE}", file=sys.stderr)
        return os.EX_USAGE
    if not is_listening_socket(_FCGI_LISTENSOCK_FILENO):
        return _run_cgi()
    children = _children()
    # A pool takes a second SIGTERM for "at once", and lighttpd sends one before it leaves itself.
    _die_with_web_server(signal.SIGQUIT if children else signal.SIGTERM)
    if children:
        _become_pool(children)
    return _serve()


def is_listening_socket(descriptor: int) -> bool:
    """FastCGI 1.0, section 2.2: getpeername() on the listening socket fails with ENOTCONN."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            sock.getpeername()
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def _open_standard_streams() -> None:
    """mod_fastcgi and mod_fcgid close them; a file opened later would take their numbers."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            # They are to be there after an execv() as well.
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, "w", closefd=False))


def _log_to_stderr() -> None:
    # Not the root logger's handler: what Trac logs has a place of its own.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("trac.fcgi: %(levelname)s: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _children() -> int:
    """How many workers the web server wants; 0 for one process that serves by itself."""
    text = os.environ.get("TRAC_FCGI_CHILDREN", "").strip()
    if not text:
        # What spawn-fcgi -C sets. lighttpd sets 1 for whatever it starts, and so means one process.
        text = os.environ.get("PHP_FCGI_CHILDREN", "").strip()
        return int(text) if text.isascii() and text.isdigit() and text != "1" else 0
    if not (text.isascii() and text.isdigit()):
        raise BootError(f"TRAC_FCGI_CHILDREN={text!r} is not a number of workers", os.EX_USAGE)
    return int(text)


def _die_with_web_server(number: signal.Signals) -> None:
    """Get ``number`` when the web server ends without saying so.

    Not when a mere starter is the parent, which ends by design. spawn-fcgi makes its children
    leaders of a session; cgi-fcgi -start only has its name.
    """
    parent = os.getppid()
    if os.getsid(0) == os.getpid() or _name_of(parent) == "cgi-fcgi":
        return
    prctl.die_with_parent(number)
    if os.getppid() != parent:
        raise SystemExit(os.EX_TEMPFAIL)


def _name_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""  # gone, or hidden from us


def _become_pool(children: int) -> NoReturn:
    """Be trac-spawn on the same socket; the process, its parent and its signals stay the same."""
    options = ["--listen", f"fd://{_FCGI_LISTENSOCK_FILENO}", "-n", str(children)]
    os.execv(sys.executable, [sys.executable, "-c", _POOL, *options])


def _spec() -> ApplicationSpec:
    def given(variable: str) -> str | None:
        return os.environ.get(variable) or None

    spec = ApplicationSpec(
        env=given("TRAC_ENV"),
        env_parent_dir=given("TRAC_ENV_PARENT_DIR"),
        env_index_template=given("TRAC_ENV_INDEX_TEMPLATE"),
        base_url=given("TRAC_BASE_URL"),
        template_vars=given("TRAC_TEMPLATE_VARS"),
        script_name=_script_name(),
        trust_remote_user=_trust_remote_user(),
        static_files=not _says_yes("TRAC_SPAWN_NO_STATIC_FILES"),
        accelerate=not _says_yes("TRAC_SPAWN_NO_ACCELERATE"),
    )
    if (spec.env is None) == (spec.env_parent_dir is None):
        which = "neither" if spec.env is None else "both"
        raise BootError(
            f"{which} of TRAC_ENV and TRAC_ENV_PARENT_DIR set: set one of them, in the web server's"
            " configuration (bin-environment, FastCgiConfig -initial-env, FcgidInitialEnv)",
            os.EX_USAGE,
        )
    return spec


def _script_name() -> str | None:
    text = os.environ.get("TRAC_SPAWN_SCRIPT_NAME", "").strip()
    try:
        return parse_script_name(text) if text else None
    except ValueError as error:
        raise BootError(f"TRAC_SPAWN_SCRIPT_NAME: {error}", os.EX_USAGE) from None


def _trust_remote_user() -> str:
    text = os.environ.get("TRAC_SPAWN_TRUST_REMOTE_USER", "").strip().lower() or ALWAYS
    if text not in TRUST:
        raise BootError(
            f"TRAC_SPAWN_TRUST_REMOTE_USER: {text!r} is not one of {', '.join(TRUST)}", os.EX_USAGE
        )
    return text


def _says_yes(variable: str) -> bool:
    text = os.environ.get(variable, "").strip().lower()
    if text not in ("", *_YES, *_NO):
        raise BootError(f"{variable}: {text!r} is neither yes nor no", os.EX_USAGE)
    return text in _YES


def _peers(listener: socket.socket) -> PeerRules:
    """FCGI_WEB_SERVER_ADDRS (FastCGI 1.0, section 3.2). Raises BootError."""
    texts = web_server_addresses(os.environ.get("FCGI_WEB_SERVER_ADDRS", ""))
    if not texts and is_exposed(listener):
        raise BootError(
            "other machines can reach this socket, and whoever connects can claim to be any user of Trac:"
            " set FCGI_WEB_SERVER_ADDRS to the web server's address, or let it listen on 127.0.0.1",
            os.EX_USAGE,
        )
    try:
        return PeerRules(tuple(map(parse_network, texts)))
    except ValueError as error:
        raise BootError(f"FCGI_WEB_SERVER_ADDRS: {error}", os.EX_USAGE) from None


def _serve() -> int:
    """One process on the web server's socket, a request at a time."""
    listener = socket.socket(fileno=os.dup(_FCGI_LISTENSOCK_FILENO))
    listener.setblocking(False)
    peers = _peers(listener)
    setproctitle("trac-spawn: trac.fcgi loading")
    application = load(_spec())
    application.warm_up()
    sealing.freeze()
    config = WorkerConfig(Ceilings(_MAX_BODY), peers=peers)
    slot = Scoreboard(1).slot(1)
    slot.occupy(os.getpid(), 1, time.time_ns())
    Worker(application, [listener], config, slot=slot, name="trac.fcgi").run()
    return os.EX_OK


# -- plain CGI -----------------------------------------------------------------------------------


class CgiOutput:
    """The answer goes to standard output as it is (RFC 3875, section 6)."""

    def send(self, data: list[bytes], end: bool) -> None:
        try:
            sys.stdout.buffer.write(b"".join(data))
            sys.stdout.buffer.flush()
        except OSError as error:
            raise PeerGone(str(error)) from error

    def error(self, text: str) -> None:
        sys.stderr.write(text)


def _run_cgi() -> int:
    if "REQUEST_METHOD" not in os.environ:
        print(USAGE, file=sys.stderr)
        return os.EX_USAGE
    output = CgiOutput()
    # The bytes of the environment as latin-1, which is what PEP 3333 calls for.
    params = {name.decode("latin-1"): value.decode("latin-1") for name, value in os.environb.items()}
    try:
        body = _read_body(content_length(params))
    except BadRequest as error:
        output.send(error_answer(error.status, error.reason), True)
        return os.EX_OK
    # Not opened ahead: a CGI process serves one request, and Trac opens the environment for it.
    application = load(_spec(), ahead=False)
    return _answer(application, params, body, output)


def _answer(
    application: Application, params: dict[str, str], body: BinaryIO, output: CgiOutput
) -> int:
    base = {**server_keys(run_once=True), **application.environ}
    environ = make_environ(params, body, ErrorStream(output.error), base)
    try:
        application.rules.apply(environ)
    except BadRequest as error:
        log.warning("%s: %s", error.status, error.detail)
        output.send(error_answer(error.status, error.reason), True)
        return os.EX_OK
    result = respond(application.call, environ, output, log)
    return os.EX_OK if result.clean else os.EX_SOFTWARE


def _read_body(length: int | None) -> BinaryIO:
    """All of the body, and nothing beyond it. Raises BadRequest when it ends before that."""
    if not length:
        return io.BytesIO()
    if length > _MAX_BODY:
        raise BadRequest("413 Content Too Large", f"the request's body is larger than {_MAX_BODY} bytes")
    body = tempfile.SpooledTemporaryFile(max_size=BODY_IN_MEMORY)
    rest = length
    while rest:
        data = sys.stdin.buffer.read(min(rest, _BLOCK))
        if not data:
            raise BadRequest("400 Bad Request", f"the body ends {rest} bytes short of CONTENT_LENGTH")
        body.write(data)
        rest -= len(data)
    body.seek(0)
    return cast(BinaryIO, body)

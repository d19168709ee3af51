"""The command against a control socket that the test answers, and its reports."""

from __future__ import annotations

import json
import os
import pwd
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest

from spawner import asking, controlpath, ctl, report, verbs
from spawner.addresses import address_of
from spawner.control import Call, Control, default_control_path, open_control
from spawner.settings import Settings
from spawner.status import ANSWERS, Death, PoolStatus, Status
from workers.errors import BootError
from workers.fastcgi import connection as fastcgi

DEADLINE = 10.0


def pool_status(*addresses: str, busy: int = 1, idle: int = 1) -> PoolStatus:
    states = ["busy"] * busy + ["idle"] * idle
    return {
        "name": "trac",
        "state": "running",
        "generation": 2,
        "pm": "dynamic",
        "target": 2,
        "max_workers": 8,
        "max_children_reached": 1,
        "addresses": [
            {"address": address, "listen_queue": {"waiting": 3, "limit": 2048}} for address in addresses
        ],
        "template": {"pid": 813, "generation": 2, "ready": True, "warming_up": False, "age_s": 61.0},
        "spare": 814,
        "workers": [
            {
                "slot": number,
                "generation": 2,
                "pid": 820 + number,
                "state": state,
                "requests": 1000 * number,
                "request": {
                    "started_s_ago": 0.34, "method": "GET", "uri": "/wiki\x1b[2J", "user": "joe",
                    "address": "::1", "id": "x",
                } if state == "busy" else None,
                "age_s": 11_520.0,
                "rss": 86 << 20,
                "private": None,
                "proportional": None,
            }
            for number, state in enumerate(states, 1)
        ],
        "reloads": {"ok": 1, "failed": 1, "last_error": "plugins/x.py:\n  bad \x1b[2J syntax"},
        "recycles": {"max-requests": 12, "max-age": 0},
        "deaths": {"SIGKILL": 1},
        "limits": {"max-requests": 1000, "max-memory": 500 << 20, "slow-after": 0.5, "request-timeout": 0.0},
        "refused": 4,
        "slow": 0,
        "scoreboard": "W_",
        "totals": {"requests": 6, "answers": {"GET 2xx": 3, "POST 2xx": 1, "GET 4xx": 2}},
    }


def status_of(*pools: PoolStatus) -> Status:
    return {
        "master": {
            "version": "1.0",
            "pid": 812,
            "started": 1_800_000_000.0,
            "age_s": 11_530.0,
            "state": "running",
        },
        "pools": list(pools),
    }


DEATHS: Dict[str, Any] = {
    "deaths": [
        {
            "at": 1_800_000_000.0, "pool": "trac", "slot": 3, "generation": 1, "pid": 833,
            "reason": "request time-out", "request": "GET /x\x1b]0;owned\x07", "requests": 17,
            "rss": 300 << 20, "age_s": 61.0, "traceback": "Stack:\n  File x\x9b\n",
        }
    ]
}  # fmt: skip

RESULTS: Dict[str, Any] = {
    "status": status_of(pool_status("unix:/run/trac.sock")),
    "reload": {"pools": {"trac": 3}},
    "stop": {},
    "scale": {"pool": "trac", "target": 5, "max_workers": 5},
    "recycle": {"pools": {"trac": [1, 2]}},
    "reopen": {},
    "pause": {"pools": ["trac"]},
    "resume": {"pools": ["trac"]},
    "config": {
        "settings": [
            {"pool": None, "name": "pidfile", "value": "/run/trac.pid", "source": "default"},
            {"pool": "trac", "name": "workers", "value": "2", "source": "command line -n"},
            {"pool": "trac", "name": "env", "value": "/srv/trac", "source": "file x, line 3"},
        ]
    },
    "last-deaths": DEATHS,
}

REPORTS = {
    "reload": "trac: generation 3 serves\n",
    "stop": "stopped\n",
    "scale": "trac: 5 workers wanted\n",
    "recycle": "trac: replacing 1, 2\n",
    "reopen": "log files opened again\n",
    "pause": "trac: paused\n",
    "resume": "trac: resumed\n",
    "config": (
        "[trac-spawn]\npidfile = /run/trac.pid  # default\n\n"
        "[pool trac]\nworkers = 2  # command line -n\nenv = /srv/trac  # file x, line 3\n"
    ),
}
ARGUMENTS = {"scale": ["trac", "-2"], "recycle": ["trac", "3"]}


class Master:
    """Answers at a control socket, in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.results = dict(RESULTS)
        self.calls: List[Tuple[str, Dict[str, str]]] = []
        self.answer: Callable[[Call], None] = lambda call: call.reply(self.results[call.verb])
        self._selector = selectors.DefaultSelector()
        self._control = Control(
            open_control(self.path), self._selector, {name: self._handle for name in verbs.ON_THE_WIRE}
        )
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, self._stop)
        self._running = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _handle(self, call: Call) -> None:
        self.calls.append((call.verb, dict(call.arguments)))
        self.answer(call)

    def _stop(self) -> None:
        self._running = False

    def _run(self) -> None:
        while self._running:
            for key, _ in self._selector.select():
                key.data()
        self._control.close()

    def close(self) -> None:
        self._wake.send(b"x")
        self._thread.join(DEADLINE)
        self._wake.close()
        self._woken.close()
        self._selector.close()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in list(os.environ):
        if variable.startswith("TRAC_"):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("TRAC_SPAWN_CONTROL", str(tmp_path / "c"))


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    master = Master(tmp_path / "c")
    yield master
    master.close()


class Pool:
    """Answers FastCGI's management requests at a listening socket, or does not."""

    def __init__(self, listening: socket.socket, says: Optional[bytes] = None, mute: bool = False) -> None:
        self.listening = listening
        self._says = says
        self._mute = mute
        listening.listen()
        self.address = str(address_of(listening))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        kept = []
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                break
            if self._mute:
                kept.append(client)
                continue
            with client:
                server = fastcgi.ServerConnection(values={"FCGI_MAX_CONNS": "1"})
                server.receive_data(client.recv(65536))
                server.next_event()
                client.sendall(server.data_to_send() if self._says is None else self._says)
        for client in kept:
            client.close()

    def close(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._thread.join(DEADLINE)
        self.listening.close()


@pytest.fixture
def make_pool(tmp_path: Path) -> Iterator[Callable[..., Pool]]:
    pools: List[Pool] = []

    def make(name: str = "p", tcp: bool = False, **how: Any) -> Pool:
        listening = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
        listening.bind(("127.0.0.1", 0) if tcp else str(tmp_path / name))
        pools.append(Pool(listening, **how))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("trac-spawnctl: ") and captured.err.count("\n") == 1
    return captured.err[len("trac-spawnctl: ") : -1]


# The verbs


@pytest.mark.parametrize("verb", [name for name in RESULTS])
def test_every_verb_asks_and_tells(
    master: Master, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    arguments = ARGUMENTS.get(verb, [])
    assert ctl.run([verb, *arguments]) == os.EX_OK
    captured = capsys.readouterr()
    assert captured.err == ""
    if verb in REPORTS:
        assert captured.out == REPORTS[verb]
    names = [argument.name for argument in verbs.BY_NAME[verb].arguments]
    assert master.calls == [(verb, dict(zip(names, arguments)))]


@pytest.mark.parametrize("verb", [name for name in RESULTS])
def test_every_verb_in_json(master: Master, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    for line in (["--json", verb], [verb, "--json"]):
        assert ctl.run([*line, *ARGUMENTS.get(verb, [])]) == os.EX_OK
        assert json.loads(capsys.readouterr().out) == {"ok": True, "result": RESULTS[verb]}


def test_status_is_one_screen(master: Master, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.run(["status"]) == os.EX_OK
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1_800_000_000))
    assert capsys.readouterr().out.splitlines() == [
        f"trac-spawn 1.0 (pid 812): running, started {started}, 3h 12m ago",
        "",
        "pool trac: running, generation 2, 2 of 2 workers ready, 1 busy",
        "  dynamic: at most 8 workers, max children reached 1 times",
        "  unix:/run/trac.sock: 3 of 2048 waiting",
        "  template: pid 813, generation 2, ready",
        "  spare worker: pid 814",
        "  reloads: 1 done, 1 failed",
        "  the last reload that failed: plugins/x.py: bad \\x1b[2J syntax",
        "  recycled: 12 max-requests; died: 1 SIGKILL",
        "  limits: max-requests 1000, max-memory 500.0M, slow-after 0.5s",
        "  connections refused by who made them: 4",
        "  scoreboard: W_ (_ waits, W answers, G leaves); answered 6: 4 2xx, 2 4xx",
        "  SLOT  GEN  PID  STATE  REQUESTS  REQUEST     AGE  MEMORY  PRIVATE",
        "     1    2  821   busy      1000     0.3s  3h 12m   86.0M        -",
        "     2    2  822   idle      2000        -  3h 12m   86.0M        -",
        "  slot 1: GET /wiki\\x1b[2J (joe)",
    ]


def test_status_of_many_workers_is_one_screen_too(
    master: Master, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = pool_status("unix:/x", busy=30, idle=34)
    for worker in pool["workers"]:
        if worker["request"]:
            worker["request"]["started_s_ago"] = float(worker["slot"] % 10)
    pool["workers"][63]["state"] = "starting"
    master.results["status"] = status_of(pool)
    assert ctl.run(["status"]) == os.EX_OK
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 32
    table = next(index for index, line in enumerate(lines) if line.split()[:1] == ["SLOT"])
    longest = [7, 8, 9, 17, 18, 19, 28, 29]
    assert [int(line.split()[0]) for line in lines[table + 1 :][: report.SHOWN]] == longest
    rest = lines[table + 1 + report.SHOWN]
    assert rest == "  and 56 more, 22 busy, 1 starting, 33 idle: see trac-spawnctl top"
    assert len(lines) == table + 2 + 2 * report.SHOWN


def test_last_deaths_with_traceback_and_without_escapes(
    master: Master, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a visitor has put into a URI must not reach the terminal."""
    assert ctl.run(["last-deaths"]) == os.EX_OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("trac: worker 3 gen 1 (pid 833): request time-out")
    assert lines[1:] == [
        "  after 17 requests and 1m 1s, memory 300.0M",
        "  last request: GET /x\\x1b]0;owned\\x07",
        "    Stack:",
        "      File x\\x9b",
    ]


def test_a_pool_with_nothing_known(master: Master, capsys: pytest.CaptureFixture[str]) -> None:
    pool = pool_status("unix:/x", busy=0, idle=1)
    pool["template"] = None
    pool["reloads"]["last_error"] = None
    pool["addresses"][0]["listen_queue"] = {"waiting": None, "limit": None}
    pool["workers"][0].update(pid=None, rss=None, state="starting")  # type: ignore[call-arg]
    master.results["status"] = status_of(pool)
    assert ctl.run(["status"]) == os.EX_OK
    text = capsys.readouterr().out
    assert "0 of 2 workers ready" in text and "? of ? waiting" in text
    assert "template:" not in text and "last reload" not in text
    master.results["last-deaths"] = {"deaths": []}
    assert ctl.run(["last-deaths"]) == os.EX_OK
    assert capsys.readouterr().out == "no worker has died\n"


def test_the_test_data_have_the_shapes() -> None:
    """That mypy checks status_of() is not enough for the others."""
    for verb, result in RESULTS.items():
        assert set(result) == set(ANSWERS[verb].__annotations__)
    assert set(DEATHS["deaths"][0]) == set(Death.__annotations__)


# Failures


def test_a_failure_has_its_traceback_and_status(
    master: Master, capsys: pytest.CaptureFixture[str]
) -> None:
    master.answer = lambda call: call.fail("x.py does\nnot load", "Traceback\x1b[1m\n  line", os.EX_CONFIG)
    assert ctl.run(["reload", "trac"]) == os.EX_CONFIG
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "Traceback\\x1b[1m\n  line\ntrac-spawnctl: x.py does not load\n"
    assert ctl.run(["reload", "--json"]) == os.EX_CONFIG
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "ok": False,
        "error": "x.py does\nnot load",
        "details": "Traceback\x1b[1m\n  line",
        "status": os.EX_CONFIG,
    }
    assert captured.err == ""


def test_a_failure_never_looks_like_success(
    master: Master, capsys: pytest.CaptureFixture[str]
) -> None:
    master.answer = lambda call: call.fail("odd", status=0)
    assert ctl.run(["stop"]) == os.EX_SOFTWARE
    assert complaint(capsys) == "odd"


def test_no_master(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert ctl.run(["status"]) == os.EX_UNAVAILABLE
    message = complaint(capsys)
    assert message.startswith(f"no master answers at {tmp_path}/c: No such file or directory; start one ")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "c"))
    assert ctl.run(["status"]) == os.EX_UNAVAILABLE
    assert "nobody listens there any more" in complaint(capsys)
    assert ctl.run(["-s", "/tmp/" + "x" * 200, "ping"]) == os.EX_UNAVAILABLE
    assert "too long" in complaint(capsys)


def test_a_master_of_somebody_else(capsys: pytest.CaptureFixture[str]) -> None:
    """The kernel refuses before the master has to. Not in tmp_path, which is closed to others."""
    ours = os.geteuid()
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        os.chmod(folder, 0o755)
        listening.bind(f"{folder}/c")
        listening.listen()
        os.chmod(f"{folder}/c", 0)
        os.seteuid(ours or 65534)
        try:
            status = ctl.run(["-s", f"{folder}/c", "status"])
        finally:
            os.seteuid(ours)
        assert status == os.EX_NOPERM
        owner = pwd.getpwuid(ours).pw_name
        assert complaint(capsys) == f"{folder}/c: only root and {owner} may use it"


def test_a_master_that_does_not_answer(master: Master, capsys: pytest.CaptureFixture[str]) -> None:
    kept: List[Call] = []
    master.answer = kept.append
    assert ctl.run(["reload", "--timeout", "0.2"]) == os.EX_TEMPFAIL
    assert complaint(capsys).startswith(f"the master at {master.path} has not answered within 0.2 seconds")


def serve_once(path: str, says: bytes) -> threading.Thread:
    """Somebody who is no master."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()

    def serve() -> None:
        with listening:
            client, _ = listening.accept()
            with client:
                client.recv(65536)
                client.sendall(says)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("says", "status", "words"),
    [
        (b"", os.EX_UNAVAILABLE, "has ended without an answer"),
        (b'{"ok": true, "res', os.EX_UNAVAILABLE, "has ended without an answer"),
        (b"220 mail ready\n", os.EX_PROTOCOL, "this is no answer of trac-spawn"),
        (b'{"ok": false}\n', os.EX_PROTOCOL, "this is no answer of trac-spawn"),
        (b"[1]\n", os.EX_PROTOCOL, "this is no answer of trac-spawn"),
        (b'{"ok": true, "result": {"pools": []}}\n', os.EX_PROTOCOL, "--json shows it"),
        (b'{"ok": true, "result": [1]}\n', os.EX_PROTOCOL, "--json shows it"),
    ],
)
def test_what_is_no_answer(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, says: bytes, status: int, words: str
) -> None:
    thread = serve_once(str(tmp_path / "c"), says)
    assert ctl.run(["status"]) == status
    assert words in complaint(capsys)
    thread.join(DEADLINE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which verb? known are status, top,"),
        (["relaod"], "there is no verb 'relaod'; did you mean 'reload'?"),
        (["xyz"], "there is no verb 'xyz'; known are status, top,"),
        (["status", "trac"], "unexpected extra argument"),
        (["scale", "trac"], "Missing argument 'N|+N|-N'"),
        (["scale", "trac", "-x"], "scale: workers: '-x' is neither a number"),
        (["status", "--jsno"], "--jsno"),
        (["recycle", "trac", "x"], "recycle: slot: 'x' is not the number"),
        (["status", "--timeout", "0"], "--timeout: the time must be more than 0"),
        (["--timeout", "soon", "status"], "--timeout: 'soon' is not a time"),
    ],
)
def test_usage(capsys: pytest.CaptureFixture[str], arguments: List[str], words: str) -> None:
    assert ctl.run(arguments) == os.EX_USAGE
    assert words in complaint(capsys)


# Where the control socket is


def test_the_option_comes_before_the_environment(
    master: Master, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAC_SPAWN_CONTROL", "/nowhere")
    for arguments in (["-s", master.path, "reopen"], ["reopen", "--control", master.path]):
        assert ctl.run(arguments) == os.EX_OK
    assert ctl.run(["reopen"]) == os.EX_UNAVAILABLE
    monkeypatch.delenv("TRAC_SPAWN_CONTROL")
    monkeypatch.setenv("TRAC_SPAWN_PIDFILE", "/nowhere/trac.pid")
    assert asking.find_control(None) == "/nowhere/trac.ctl"


@pytest.mark.parametrize(
    ("pidfile", "control"),
    [("/run/trac.pid", "/run/trac.ctl"), ("/run/a.b/trac", "/run/a.b/trac.ctl")],
)
def test_beside_the_pid_file(pidfile: str, control: str) -> None:
    assert default_control_path(Settings(pidfile=pidfile)) == control


def test_in_the_runtime_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRAC_SPAWN_CONTROL")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_control_path(Settings()) == "/run/trac-spawn.ctl"
    owner = tmp_path.stat().st_uid or 12345
    os.chown(tmp_path, owner, -1)
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    assert default_control_path(Settings()) == f"{tmp_path}/trac-spawn.ctl"
    # sudo and su leave the variable of somebody else.
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert default_control_path(Settings()) is None
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    assert controlpath.runtime_path() is None
    with pytest.raises(BootError, match="no runtime folder"):
        asking.find_control(None)


# ping


def test_ping_asks_every_address(
    master: Master, make_pool: Callable[..., Pool], capsys: pytest.CaptureFixture[str]
) -> None:
    addresses = [make_pool("p").address, make_pool(tcp=True).address]
    assert addresses[1].startswith("127.0.0.1:")
    master.results["status"] = status_of(pool_status(*addresses))
    assert ctl.run(["ping"]) == os.EX_OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" answers after ")[0] for line in lines] == [f"trac: {one}:" for one in addresses]
    assert all(line.endswith(" ms") for line in lines)
    assert master.calls == [("status", {})]


@pytest.mark.parametrize(
    ("workers", "words"),
    [
        ((2, 0), "all 2 workers were busy"),
        ((1, 1), "1 of 2 workers were busy"),
        ((0, 0), "there are no workers"),
    ],
)
def test_ping_of_a_busy_pool(
    master: Master,
    make_pool: Callable[..., Pool],
    capsys: pytest.CaptureFixture[str],
    workers: Tuple[int, int],
    words: str,
) -> None:
    mute, lively = make_pool("mute", mute=True), make_pool("lively")
    pool = pool_status(mute.address, lively.address, busy=workers[0], idle=workers[1])
    master.results["status"] = status_of(pool)
    assert ctl.run(["ping", "--timeout", "0.3"]) == os.EX_UNAVAILABLE
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"trac: {mute.address}: no answer within 0.3 seconds: {words}"
    assert second.startswith(f"trac: {lively.address}: answers after ")


def test_ping_of_what_does_not_speak_fastcgi(
    master: Master, make_pool: Callable[..., Pool], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    closing, other = make_pool("closing", says=b""), make_pool("other", says=b"HTTP/1.1 400 No\r\n\r\n")
    gone = f"unix:{tmp_path}/gone"
    master.results["status"] = status_of(pool_status(closing.address, other.address, gone))
    assert ctl.run(["ping", "--json"]) == os.EX_UNAVAILABLE
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is True
    pongs = answer["result"]["addresses"]
    assert [pong["answer_s"] for pong in pongs] == [None] * 3
    assert pongs[0]["error"] == "closed the connection without an answer"
    assert "version" in pongs[1]["error"]
    assert pongs[2]["error"] == "No such file or directory"
    assert set(pongs[0]) == {"pool", "address", "answer_s", "error"}


def test_ping_of_nothing_is_no_success(master: Master, capsys: pytest.CaptureFixture[str]) -> None:
    master.results["status"] = status_of()
    assert ctl.run(["ping"]) == os.EX_UNAVAILABLE
    assert capsys.readouterr().out == "no pool listens anywhere\n"


# The program


def test_as_a_program(master: Master) -> None:
    code = "from spawner.ctl import main; main()"
    command = [sys.executable, "-c", code]
    result = subprocess.run([*command, "scale", "trac", "+3"], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "trac: 5 workers wanted\n", "")
    result = subprocess.run([*command, "-V"], capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith("trac-spawnctl ")


def test_a_reader_that_has_seen_enough_is_no_traceback(master: Master) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = "from spawner.ctl import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "status"], stdout=writing, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (128 + 13, b"")


def test_it_starts_without_what_only_the_master_needs() -> None:
    code = "import sys; import spawner.ctl; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert not {"psutil", "trac", "setproctitle"} & set(result.stdout.split())


# Pieces


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0s"), (-1, "0.0s"), (9.96, "10.0s"), (45.9, "45s"), (60, "1m 0s"), (200, "3m 20s"),
        (7500, "2h 5m"), (86_399, "23h 59m"), (356_400, "4d 3h"),
    ],
)  # fmt: skip
def test_span(seconds: float, text: str) -> None:
    assert report.span(seconds) == text

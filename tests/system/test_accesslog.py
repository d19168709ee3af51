"""--access-log with real pools, and with the real logrotate."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
from pathlib import Path

from workers.fastcgi import client

from .clients import fcgi_load, params
from .peer import Peer
from .pools import BIN, MODES, Pool, Spawner, base_environment
from .processes import PATIENCE, wait_until
from .visits import APP, METRICS, get, page_of


def lines(path: Path, count: int) -> list[str]:
    """The log's, once there are so many: a line is written after its answer."""
    wait_until(lambda: path.exists() and path.read_text().count("\n") >= count, what=f"{count} lines")
    return path.read_text().splitlines()


def test_a_line_for_each_request(spawn: Spawner, tmp_path: Path) -> None:
    log = tmp_path / "access"
    pool = spawn(
        "-n", 1, *APP, "--access-log", log, "--access-format", "%m %r%Q%q %s %b %i %{X-Request-Id}o",
        "--access-suppress", "/echo",
    )  # fmt: skip
    get(pool, "/")
    answer = client.request(str(pool.socket), params("/echo?id=7", HTTP_X_REQUEST_ID="my-id"))
    assert answer.header("X-Request-Id") == "my-id"
    get(pool, "/echo")
    assert client.request(str(pool.socket), params("/none")).status == 404
    assert client.request(str(pool.socket), params("/raise")).status == 500
    found = lines(log, 4)
    assert re.fullmatch(r"GET / 200 \d+ [0-9a-f]{18} -", found[0])
    assert re.fullmatch(r"GET /echo\?id=7 200 \d+ my-id -", found[1])
    assert found[2].startswith("GET /none 404 15 ")
    assert found[3].startswith("GET /raise 500 ")
    assert len(found) == 4
    assert log.stat().st_mode & 0o777 == 0o640
    # The error log says which of them it was.
    request_id = found[3].split()[4]
    pool.wait_for_line(rf"the application failed .*{request_id}")


def test_what_never_reaches_the_application_is_seen_too(spawn: Spawner, tmp_path: Path) -> None:
    log = tmp_path / "access"
    pool = spawn(
        "-n", 1, *APP, *METRICS, "--access-log", log, "--access-format", "%m %r %s %b %i",
        "--receive-timeout", "1s", "--max-body", "1000",
    )  # fmt: skip

    def refused(path: str, **more: str) -> int:
        answer = client.request(str(pool.socket), params(path, **more))
        expected.append(f"GET {path} {answer.status} {len(answer.body)} {answer.header('X-Request-Id')}")
        return answer.status

    expected: list[str] = []
    assert refused("/broken", CONTENT_LENGTH="x") == 400
    assert refused("/large", CONTENT_LENGTH="1001") == 413
    with Peer(pool.socket) as peer:
        peer.send(peer.begin("/many", COOKIE="x" * 2_000_000))
        assert peer.reply().status == 431
    with Peer(pool.socket) as upload, Peer(pool.socket) as header:
        upload.send(upload.begin("/slow", CONTENT_LENGTH="5"))
        header.send(header.begin("/slower")[:50])
        assert upload.reply().status == header.reply().status == 408
    found = lines(log, 5)
    assert found[:2] == expected
    patterns = (r"- - 431 \d+ \w+", r"GET /slow 408 \d+ \w+", r"- - 408 \d+ \w+")
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in found[2:]), (pattern, found)
    request_id = next(line.split()[4] for line in found if "/slow " in line)
    pool.wait_for_line(rf"408 Request Timeout: .*: GET /slow \(request {request_id}\)")
    values = page_of(pool).get("/metrics").text
    assert 'status="4xx"} 3' in values and "trac_spawn_request_duration_seconds_count" in values


def test_standard_output_and_json(spawn: Spawner) -> None:
    pool = spawn("-n", 2, *APP, "--access-log", "-", "--access-format", "json")
    get(pool, "/echo?id=9")
    told = json.loads(pool.wait_for_line(r'"uri": "/echo\?id=9"').string)
    assert (told["status"], told["method"], told["pool"]) == (200, "GET", "trac")


#: In a mount namespace of its own: a /dev in which a system log can be.
OWN_DEV = """set -e
for name in null zero full random urandom; do
    touch {dev}/$name
    mount --bind /dev/$name {dev}/$name
done
mount --rbind {dev} /dev
exec {command}
"""


class SystemLog:
    """Stands for the daemon behind /dev/log."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        path.chmod(0o666)
        self.socket.settimeout(PATIENCE)

    def wait_for(self, pattern: str) -> re.Match[str]:
        while True:
            found = re.fullmatch(pattern, self.socket.recv(8192).decode().rstrip("\0"), re.DOTALL)
            if found:
                return found


def test_the_system_log(spawn_as_root: Spawner, tmp_path: Path, other_user: str) -> None:
    dev = tmp_path / "dev"
    dev.mkdir(0o755)
    log = SystemLog(dev / "log")
    where = tmp_path / "trac.sock"
    options = ("-s", where, "-n", 1, "-u", other_user, *APP, "--log-file", "syslog", "--access-log", "syslog")
    command = shlex.join(map(str, (BIN / "trac-spawn", *options)))
    pool = spawn_as_root.supervisor.start(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", OWN_DEV.format(dev=dev, command=command)],
        "syslog", env=base_environment(tmp_path, spawn_as_root.code), cwd=tmp_path,
    )  # fmt: skip
    log.wait_for(r"<30>trac-spawn: INFO: ready: 1 workers?.*")
    date = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    get(str(where), "/echo?id=1")
    log.wait_for(rf'<30>{date} trac-spawn\[\d+\]: 127\.0\.0\.1 - - \[[^]]+\] "GET /echo\?id=1 .*')
    log.socket.close()
    get(str(where), "/echo?id=lost")
    # Another one takes its place, and the worker finds it by itself.
    log = SystemLog(dev / "log")
    get(str(where), "/echo?id=2")
    log.wait_for(rf'<30>{date} trac-spawn\[\d+\]: .*"GET /echo\?id=2 .*')
    log.socket.close()
    get(str(where), "/echo")
    pool.signal(signal.SIGTERM)
    assert pool.wait_exit() == 0


@MODES
def test_no_line_is_lost_when_logrotate_rotates(
    spawn: Spawner, tmp_path: Path, mode: list[str]
) -> None:
    """Four rotations under load, workers being recycled; then each request is in one of the files."""
    folder = tmp_path / "log"
    folder.mkdir(0o755)
    log = folder / "access"
    pool = spawn(
        "-n", 2, *APP, "--access-log", log, "--access-format", "%q", "--max-requests", 40, *mode
    )
    with fcgi_load(pool.socket, threads=3) as load:
        for number in range(1, 5):
            load.wait_for(30)
            rotate(pool, log, tmp_path)
            wait_until((folder / f"access.{number}").exists, what="a rotated file")
            wait_until(log.exists, what="a fresh file")
        load.wait_for(30)
    load.check()
    files = [log, *(folder / f"access.{number}" for number in range(1, 5))]
    total = load.requests

    def written() -> list[str]:
        return [line for file in files for line in file.read_text().splitlines()]

    wait_until(lambda: len(written()) >= total, what="all lines")
    assert sorted(written()) == sorted(f"id=load{number}x" for number in range(1, total + 1))
    assert log.stat().st_size > 0


def rotate(pool: Pool, log: Path, tmp_path: Path) -> None:
    """As cron would: the configuration is what the manual says."""
    config = tmp_path / "logrotate.conf"
    config.write_text(
        f"{log} {{\n  rotate 9\n  nocreate\n  missingok\n  delaycompress\n"
        f"  postrotate\n    kill -USR1 {pool.pid}\n  endscript\n}}\n"
    )
    config.chmod(0o644)
    command = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(config)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": PATH})
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr


PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def test_another_user_writes_to_what_root_has_opened(
    spawn_as_root: Spawner, tmp_path: Path, other_user: str
) -> None:
    folder = tmp_path / "log"
    folder.mkdir(0o700)
    log = folder / "access"
    pool = spawn_as_root("-n", 1, *APP, "--user", other_user, "--access-log", log)
    get(pool, "/echo?id=before")
    lines(log, 1)
    log.rename(folder / "old")
    pool.signal(signal.SIGUSR1)
    wait_until(log.exists, what="a fresh file")
    wait_until(lambda: [get(pool, "/echo?id=after"), log.read_text()][1], what="a line in it")
    # One that is born later writes there too.
    (worker,) = pool.workers()
    os.kill(worker.pid, signal.SIGKILL)
    pool.wait_for_line("died: SIGKILL")
    get(pool, "/echo?id=later")
    wait_until(lambda: "id=later" in log.read_text(), what="its line")


def test_a_reload_can_move_the_log(spawn: Spawner, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    config = tmp_path / "spawn.conf"

    def write(target: Path) -> None:
        config.write_text(f"[trac-spawn]\naccess-log = {target}\naccess-format = %q\n")

    write(first)
    pool = spawn("-n", 1, *APP, "-f", config)
    get(pool, "/echo?id=1")
    lines(first, 1)
    write(second)
    pool.signal(signal.SIGHUP)
    pool.wait_for_line("reloaded: generation 2")
    get(pool, "/echo?id=2")
    assert lines(second, 1) == ["id=2"] and lines(first, 1) == ["id=1"]
    held = os.listdir(f"/proc/{pool.pid}/fd")
    assert str(first) not in {os.readlink(f"/proc/{pool.pid}/fd/{number}") for number in held}


def test_a_log_that_cannot_be_opened_is_an_error_of_the_start(spawn: Spawner, tmp_path: Path) -> None:
    pool = spawn("-n", 1, *APP, "--access-log", tmp_path / "no" / "where", ready=False)
    assert pool.wait_exit() == os.EX_CANTCREAT
    assert "--access-log" in pool.log

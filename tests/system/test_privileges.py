"""Dropping privileges, in processes of their own; the refusals, when the tests are not root."""

from __future__ import annotations

import json
import os
import pwd
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pytest

from .pools import ROOT, base_environment

#: Runs the code of a test and prints its `result` and what /proc says about the process; a
#: BootError is printed as such.
FRAME = """
import json, os, sys
from spawner import privileges
from spawner.privileges import Identity, check_root_only, drop, resolve, set_rlimits
from workers.errors import BootError
result = None
try:
    exec(sys.argv[1])
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    status = {name: value.split() for name, value in status.items()}
    print(json.dumps({"result": result, "status": status}))
except BootError as error:
    print(json.dumps({"error": str(error), "exit": error.exit_code}))
"""


class Process:
    """Runs code as root, or as a user without rights, and returns what it printed."""

    def __init__(self, directory: Path, code: Path, user: Optional[str]) -> None:
        self.directory = directory
        self.code = code
        self.user = user

    def __call__(self, script: str, root: bool = True) -> Any:
        options: dict[str, Any] = {}
        if self.user is not None and not root:
            group = pwd.getpwnam(self.user).pw_gid
            options = {"user": self.user, "group": group, "extra_groups": []}
        done = subprocess.run(
            [sys.executable, "-c", FRAME, script],
            env=base_environment(self.directory, self.code),
            cwd="/",
            stdout=subprocess.PIPE,
            timeout=30,
            check=True,
            **options,
        )
        return json.loads(done.stdout)


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Process:
    if os.geteuid() != 0:
        return Process(tmp_path, ROOT, None)
    code = request.getfixturevalue("_public_code")
    return Process(tmp_path, code, request.getfixturevalue("other_user"))


def refused(report: Any, *words: str) -> None:
    """Without root, dropping to somebody else is an error that names what was asked."""
    assert report["exit"] == os.EX_NOPERM
    for word in words:
        assert word in report["error"]


def test_everything_is_dropped_for_good(run: Process, other_user: str) -> None:
    entry = pwd.getpwnam(other_user)
    report = run(
        f"drop(resolve({other_user!r}, None), None, None, None)\n"
        "result = [os.getresuid(), os.getresgid(), {n: os.environ.get(n) for n in "
        "('HOME', 'USER', 'LOGNAME')}]"
    )
    if os.geteuid() != 0:
        return refused(report, "cannot become", other_user)
    uids, gids, environ = report["result"]
    assert uids == [entry.pw_uid] * 3
    assert gids == [entry.pw_gid] * 3
    assert environ == {"HOME": entry.pw_dir, "USER": other_user, "LOGNAME": other_user}
    status = report["status"]
    # Real, effective, saved and file system ids, as the kernel has them.
    assert status["Uid"] == [str(entry.pw_uid)] * 4
    assert status["Gid"] == [str(entry.pw_gid)] * 4
    groups = os.getgrouplist(other_user, entry.pw_gid)
    assert sorted(map(int, status["Groups"])) == sorted(set(groups))
    assert status["NoNewPrivs"] == ["1"]
    for capabilities in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert int(status[capabilities][0], 16) == 0


def test_the_groups_of_the_parent_are_gone_and_the_given_ones_set(run: Process) -> None:
    report = run(
        "if os.geteuid() == 0: os.setgroups([0, 4242])\n"
        "drop(Identity(61234, 61235, (61235, 61236)), None, None, None)\n"
        "result = [os.getgroups(), os.environ.get('USER'), os.environ['HOME']]"
    )
    if os.geteuid() != 0:
        return refused(report, "cannot become", "61234")
    groups, user, home = report["result"]
    assert sorted(groups) == [61235, 61236]
    assert (user, home) == (None, "/")


def test_a_way_back_is_noticed(run: Process) -> None:
    """Capabilities that survive the change of user (here: because the process asked to keep
    them, and took them up again) are what the check is for."""
    if os.geteuid() != 0:
        return refused(run("drop(Identity(0, 0, (0,)), None, None, None)"), "cannot become")
    report = run(
        "import ctypes\n"
        "SECBIT_NO_SETUID_FIXUP = 4\n"
        "assert ctypes.CDLL(None).prctl(28, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) == 0\n"
        "drop(Identity(61234, 61235, (61235,)), None, None, None)"
    )
    refused(report, "not dropped for good", "back to root")


def test_a_group_alone(run: Process) -> None:
    report = run("drop(Identity(None, 61235, (61235,)), None, None, None)")
    if os.geteuid() != 0:
        return refused(report, "cannot become", "61235")
    assert report["status"]["Gid"] == ["61235"] * 4
    assert report["status"]["Groups"] == ["61235"]
    assert report["status"]["Uid"] == ["0"] * 4


def test_no_change_asked_still_sets_no_new_privileges(run: Process) -> None:
    report = run(
        "before = dict(os.environ)\n"
        "drop(Identity(), None, None, None)\n"
        "result = dict(os.environ) == before",
        root=False,
    )
    assert report["result"] is True
    assert report["status"]["NoNewPrivs"] == ["1"]


def test_without_root_becoming_oneself_is_fine(run: Process) -> None:
    report = run(
        "me, mine = str(os.getuid()), str(os.getgid())\n"
        "check_root_only({'user': me, 'group': mine, 'socket_user': me, 'socket-group': mine})\n"
        "drop(resolve(me, mine), None, None, None)\n"
        "result = [os.getuid(), os.getgid()]",
        root=False,
    )
    assert report["result"] == [int(report["status"][key][0]) for key in ("Uid", "Gid")]
    assert 0 not in report["result"] or os.geteuid() != 0


@pytest.mark.parametrize("name", ["user", "group", "socket_user", "socket_group"])
def test_without_root_becoming_somebody_else_is_refused(run: Process, name: str) -> None:
    refused(run(f"check_root_only({{{name!r}: 'root'}})", root=False), "--" + name[:6], "only root")
    report = run(f"check_root_only({{{name!r}: 'no-such-name'}})", root=False)
    assert report["exit"] == os.EX_NOUSER


def test_without_root_chroot_is_refused(run: Process) -> None:
    refused(run("check_root_only({'chroot': '/'})", root=False), "--chroot", "only root")
    refused(run("drop(Identity(), '/', None, None)", root=False), "--chroot", "not permitted")


def test_root_may_do_all_of_it(run: Process) -> None:
    report = run("check_root_only({'user': 'root', 'chroot': '/', 'socket_user': 'root'})")
    if os.geteuid() != 0:
        return refused(report, "only root")
    assert "error" not in report


def test_chroot_chdir_and_umask(run: Process, tmp_path: Path) -> None:
    inside = tmp_path / "jail" / "inside"
    inside.mkdir(parents=True)
    (inside / "file").write_text("here")
    for folder in (inside, inside.parent):
        folder.chmod(0o755)
    report = run(
        f"drop(Identity(61234, 61235, (61235,)), {str(inside.parent)!r}, '/inside', 0o027)\n"
        "result = [os.getcwd(), os.listdir('/'), open('file').read(), os.umask(0), "
        "os.path.samefile('/', '/..')]\n"
        # /proc is outside now: what the frame reads comes from here.
        "print(json.dumps({'result': result})); sys.exit()"
    )
    if os.geteuid() != 0:
        return refused(report, "--chroot", "not permitted")
    assert report["result"] == ["/inside", ["inside"], "here", 0o027, True]


def test_chroot_alone_leaves_no_directory_outside(run: Process, tmp_path: Path) -> None:
    report = run(
        f"drop(Identity(), {str(tmp_path)!r}, None, None)\n"
        "print(json.dumps({'result': os.getcwd()})); sys.exit()"
    )
    if os.geteuid() != 0:
        return refused(report, "--chroot", "not permitted")
    assert report["result"] == "/"


def test_a_missing_chroot_or_chdir_is_named(run: Process, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    report = run(f"drop(Identity(), {missing!r}, None, None)")
    if os.geteuid() != 0:
        # chroot() looks for the directory first, whoever asks.
        assert report["exit"] in (os.EX_NOPERM, os.EX_NOINPUT)
    else:
        assert report["exit"] == os.EX_NOINPUT
    assert missing in report["error"]
    report = run(f"drop(Identity(), None, {missing!r}, None)", root=False)
    assert report["exit"] == os.EX_NOINPUT
    assert "--chdir" in report["error"] and missing in report["error"]


def test_chdir_is_tried_as_the_new_user(run: Process, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    report = run(f"drop(Identity(61234, 61235, (61235,)), None, {str(closed)!r}, None)")
    if os.geteuid() != 0:
        return refused(report, "cannot become")
    assert report["exit"] == os.EX_NOINPUT
    assert "as user 61234: Permission denied" in report["error"]


def test_the_umask_stays_when_none_is_given(run: Process) -> None:
    report = run(
        "os.umask(0o037); drop(Identity(), None, None, None); result = os.umask(0)", root=False
    )
    assert report["result"] == 0o037


def test_limits_are_set_and_the_hard_ones_stay(run: Process) -> None:
    report = run(
        "import resource\n"
        "which = (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)\n"
        "before = [resource.getrlimit(one) for one in which]\n"
        "set_rlimits(None, None)\n"
        "assert before == [resource.getrlimit(one) for one in which]\n"
        "set_rlimits(100, 0)\n"
        "result = [before, [resource.getrlimit(one) for one in which]]",
        root=False,
    )
    before, after = report["result"]
    assert after == [[100, before[0][1]], [0, before[1][1]]]


def test_a_core_file_without_limit(run: Process) -> None:
    report = run("import resource; set_rlimits(None, -1); result = resource.getrlimit(4)")
    unlimited = [resource.RLIM_INFINITY, resource.RLIM_INFINITY]
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == resource.RLIM_INFINITY:
        assert report["result"] == unlimited
    elif os.geteuid() != 0:
        refused(report, "--rlimit-core", "hard limit")
    else:
        assert report.get("result") == unlimited or report["exit"] == os.EX_NOPERM


def test_a_limit_above_the_hard_one_is_refused(run: Process) -> None:
    report = run(
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (50, 60))\n"
        "set_rlimits(61, None)",
        root=False,
    )
    refused(report, "--rlimit-files", "61", "hard limit here is 60")


def test_core_dumps_survive_the_change_of_user_only_when_asked(run: Process) -> None:
    script = (
        "import ctypes\n"
        "drop(Identity(61234, 61235, (61235,)), None, None, None, core_dumps={})\n"
        "result = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)"
    )
    report = run(script.format(True))
    if os.geteuid() != 0:
        return refused(report, "cannot become")
    assert report["result"] == 1
    assert run(script.format(False))["result"] != 1


def test_die_with_parent_and_subreaper(run: Process) -> None:
    """An orphan is adopted; one that asked to die with its parent does."""
    report = run(
        "import signal\n"
        "from workers import prctl\n"
        "prctl.become_subreaper()\n"
        "reading, writing = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    if os.fork() == 0:\n"
        "        prctl.die_with_parent(signal.SIGTERM)\n"
        "        os.write(writing, b'x')\n"
        "        signal.pause()\n"
        "    os.read(reading, 1)\n"
        "    os._exit(0)\n"
        "result = sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2))",
        root=False,
    )
    assert report["result"] == [-15, 0]

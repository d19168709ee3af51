"""A real browser without a window, driven over a pair of pipes (--remote-debugging-pipe): messages of the
Chrome DevTools Protocol, in JSON, each ended by a NUL."""

from __future__ import annotations

import base64
import json
import os
import select
import time
from pathlib import Path
from typing import Any

from .pools import base_environment
from .processes import PATIENCE, Program, Supervisor, wait_until

#: It starts slowly on a machine that is busy.
START = PATIENCE * 3


class Chromium:
    """One tab. Whatever its console says at the level of an error is in ``errors``."""

    def __init__(self, supervisor: Supervisor, directory: Path) -> None:
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={directory}/chromium",
        ]  # fmt: skip
        # It has its ends as 3 and 4.
        script = f'exec chromium "$@" 3<&{to_read} 4>&{to_write}'
        self.program = Program(
            ["bash", "-c", script, "chromium", *options, "about:blank"],
            supervisor.log_path("chromium"),
            env=base_environment(directory),
            cwd=directory,
            pass_fds=(to_read, to_write),
        )
        supervisor.add(self.program)
        os.close(to_read)
        os.close(to_write)
        self._number = 0
        self._session: dict[str, str] = {}
        self._received = b""
        self.errors: list[str] = []
        pages = self._call("Target.getTargets", timeout=START)["targetInfos"]
        page = next(one["targetId"] for one in pages if one["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)
        wait_until(lambda: self.evaluate("document.readyState") == "complete", what="the page")

    def evaluate(self, expression: str) -> Any:
        """What a piece of JavaScript comes to."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))

    def look(self, width: int, height: int, dark: bool = False, scripts: bool = True) -> None:
        """Be a screen of this size, with the visitor's wishes."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Emulation.setScriptExecutionDisabled", value=not scripts)

    def screenshot(self, path: Path) -> None:
        data = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """It ends all its processes by itself."""
        self._session = {}
        self._call("Browser.close")
        self.program.wait_exit()
        os.close(self._to)
        os.close(self._from)

    def _call(self, method: str, timeout: float = PATIENCE, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + timeout
        while True:
            told = self._read(deadline, method)
            if told.get("id") == self._number:
                assert "error" not in told, (method, told)
                return dict(told["result"])
            self._note(told)

    def _read(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._from, 1 << 20) if ready else b""
            assert data, f"chromium does not answer {what}"
            self._received += data
        line, _, self._received = self._received.partition(b"\0")
        return dict(json.loads(line))

    def _note(self, told: dict[str, Any]) -> None:
        params = told.get("params", {})
        if told["method"] == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif told["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(str(params["args"]))
        elif told["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(str(params["entry"]))

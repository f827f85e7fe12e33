"""Headless Chromium, driven by its own protocol over two pipes: no driver has to be installed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe", "--hide-scrollbars"),
    # A container's shared memory may be too small for a page: it is taken from the disk.
    "--disable-dev-shm-usage",
)
PATIENCE = 60.0


def short_environment() -> dict[str, str]:
    """The environment for Chromium, which makes a socket in TMPDIR, whose path may have 107 bytes."""
    return os.environ | {"TMPDIR": "/tmp"}


class Tab:
    """One tab: what it shows can be asked by JavaScript, and what its console says and asks for is kept."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive, self._buffer, self._next = send, receive, b"", 0
        self.console: list[str] = []
        self.asked: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")

    _session: str | None = None

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol; its result."""
        self._next += 1
        order = {"id": self._next, "method": method, "params": params}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._send, json.dumps(order).encode() + b"\0")
        while True:
            found = self._read(PATIENCE)
            if found.get("id") == self._next:
                assert "error" not in found, (method, found)
                return found["result"]

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, (expression, found)
        return found["result"].get("value")

    def wait(self, expression: str, seconds: float = PATIENCE) -> Any:
        """Wait until an expression is true; its value."""
        end = time.monotonic() + seconds
        while not (value := self.js(f"(v => v instanceof Node || v)({expression})")):
            assert time.monotonic() < end, f"{expression}\n{self.js('document.body.innerText')[-3000:]}\n{self.console}"
            self._listen(0.1)
        return value

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=url)

    def fill(self, selector: str, text: str) -> None:
        """Type into a field."""
        self.wait(f"document.querySelector({selector!r})")
        self.js(f"document.querySelector({selector!r}).focus(); document.querySelector({selector!r}).select()")
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Press an element once it may be pressed."""
        self.click_on(f"document.querySelector({selector!r})")

    def click_on(self, found: str) -> None:
        """The same for the element that an expression gives."""
        self.wait(f"{found} && !{found}.disabled")
        self.js(f"{found}.click()")

    def upload(self, selector: str, path: Path) -> None:
        """Choose a file."""
        found = self.call("Runtime.evaluate", expression=f"document.querySelector({selector!r})")["result"]
        self.call("DOM.setFileInputFiles", files=[str(path)], objectId=found["objectId"])

    def screenshot(self, path: Path, width: int, height: int) -> None:
        """A picture of the whole page at that size of the window."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._listen(0.5)
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def _listen(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and (b"\0" in self._buffer or self._ready(left)):
            self._read(left)

    def _ready(self, seconds: float) -> bool:
        return bool(select.select([self._receive], [], [], seconds)[0])

    def _read(self, seconds: float) -> dict[str, Any]:
        """The next message; events are looked at on the way."""
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            assert self._ready(max(0.0, end - time.monotonic())), "Chromium does not answer"
            data = os.read(self._receive, 1 << 20)
            assert data, "Chromium is gone"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        params = found.get("params", {})
        match found.get("method"):
            case "Network.requestWillBeSent":
                self.asked.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.console.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                self.console.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.console.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        return found


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """Chromium with an empty profile, ended with the block."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    command = f'exec "$@" 3<&{to_read} 4>&{from_write}'
    words = ["bash", "-c", command, "bash", str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}"]
    with subprocess.Popen(
        words, env=short_environment(), pass_fds=(to_read, from_write), stderr=subprocess.DEVNULL
    ) as process:
        os.close(to_read)
        os.close(from_write)
        try:
            yield Tab(to_write, from_read)
        finally:
            process.terminate()
            process.wait(20)
            os.close(to_write)
            os.close(from_read)

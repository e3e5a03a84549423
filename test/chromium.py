"""A real headless Chromium, driven through its debugging port, and what a page did in it.

Found by the environment variable DSG_ROS_CHROMIUM or on the PATH; none of the project's own dependencies bring one.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

client = pytest.importorskip("websockets.sync.client", reason="it comes with viser, which is not installed")
connection = pytest.importorskip("websockets.exceptions")

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "chromium-headless-shell")
SOFTWARE_GL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")

# Counts what is really drawn: points of each frame, by WebGL, and where lines go on the canvases of the curves.
WITNESS = """
(() => {
  window.drawn = {points: 0, frames: 0, history: []};
  let now = 0;
  const count = (mode, n) => { if (mode === WebGL2RenderingContext.POINTS) now += n; };
  const wrap = (name, at) => {
    const original = WebGL2RenderingContext.prototype[name];
    WebGL2RenderingContext.prototype[name] = function (...a) { count(a[0], a[at]); return original.apply(this, a); };
  };
  wrap('drawArrays', 2); wrap('drawElements', 1);
  const tick = () => {
    if (now !== window.drawn.points && now > 0) window.drawn.history.push([Date.now() / 1000, now]);
    if (now > 0) { window.drawn.points = now; window.drawn.frames += 1; }
    now = 0;
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
})();
"""
CURVES = """
[...document.querySelectorAll('.uplot canvas')].map(c => {
  const pixels = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  let hash = 7, inked = 0;
  for (let i = 0; i < pixels.length; i += 4) {
    if (pixels[i + 3] > 128) inked++;
    hash = (hash * 31 + pixels[i] + pixels[i + 3]) | 0;
  }
  return [inked, hash];
})
"""


def program() -> str:
    """Where it is; the test is skipped where there is none."""
    found = os.environ.get("DSG_ROS_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip("no Chromium on the PATH: install one, or name it in DSG_ROS_CHROMIUM")
    return found


class Chromium:
    """One window on one page."""

    def __init__(self, width: int = 1280, height: int = 720) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="chromium-"))
        options = [
            "--headless", "--no-sandbox", "--disable-dev-shm-usage", "--remote-debugging-port=0", *SOFTWARE_GL,
            f"--user-data-dir={self._folder}", f"--window-size={width},{height}", "--no-first-run",
            "--disable-background-networking", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [program(), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self._ids = itertools.count(1)
        self.requested: list[str] = []
        """Addresses that the page asked for."""

    def __enter__(self) -> Chromium:
        told = self._folder / "DevToolsActivePort"
        until(lambda: told.exists() and len(told.read_text().splitlines()) == 2, "the browser's debugging port", 60.0)
        port = told.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
            page = next(target for target in json.load(answer) if target["type"] == "page")
        self._socket = client.connect(page["webSocketDebuggerUrl"], max_size=None, proxy=None)
        for domain in ("Page", "Runtime", "Network"):
            self._call(f"{domain}.enable")
        self._call("Page.addScriptToEvaluateOnNewDocument", source=WITNESS)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(connection.ConnectionClosed):
            self._call("Browser.close")
        self._socket.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, url: str) -> float:
        """Go there; the time it was asked for, in seconds since 1970."""
        began = time.time()
        self._call("Page.navigate", url=url)
        return began

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def points(self) -> int:
        """How many points the newest frame drew."""
        return int(self.evaluate("window.drawn.points"))

    def history(self) -> list[tuple[float, int]]:
        """When (seconds since 1970) which number of points was first drawn."""
        return [(float(at), int(n)) for at, n in self.evaluate("window.drawn.history")]

    def curves(self) -> list[tuple[int, int]]:
        """Of every chart its inked pixels and a hash of them all."""
        return [tuple(chart) for chart in self.evaluate(CURVES)]

    def text(self) -> str:
        """What stands on the page."""
        return str(self.evaluate("document.body.innerText"))

    def click(self, label: str) -> None:
        """Click on what bears this text."""
        bears = f"(e.innerText ?? '').trim() === {json.dumps(label)}"
        element = f"[...document.querySelectorAll('body *')].filter(e => {bears}).pop()"
        x, y = self.evaluate(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({element}.getBoundingClientRect())")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path) -> None:
        """A picture of the page, as PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def _call(self, method: str, **parameters: Any) -> Any:
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60.0))
            if message.get("method") == "Network.requestWillBeSent":
                self.requested.append(message["params"]["request"]["url"])
            elif message.get("method") == "Network.webSocketCreated":
                self.requested.append(message["params"]["url"])
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]


def until(condition: Callable[[], Any], what: str, timeout: float) -> Any:
    """The first truthy value of ``condition``; a failed test when there is none in time."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"no {what} within {timeout:.0f} s")

"""A browser's end of the connection without a browser: takes what the page is sent and decodes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

viser = pytest.importorskip("viser", reason="the web view's library is not installed (pip install viser)")
# These come with it.
msgspec = pytest.importorskip("msgspec")
zstandard = pytest.importorskip("zstandard")
client = pytest.importorskip("websockets.sync.client")

PROTOCOL = f"viser-v{viser.__version__}"
TYPES = {"<f4": np.float32, "<f8": np.float64, "|u1": np.uint8}


def join(url: str, **options: Any) -> Any:
    """A connection as the page's script opens it."""
    return client.connect(url.replace("http", "ws"), subprotocols=[PROTOCOL], max_size=None, proxy=None, **options)


class Client:
    """Remembers the scene and the panel as a browser would."""

    def __init__(self, url: str) -> None:
        self._socket = join(url)
        self.clouds: dict[str, np.ndarray] = {}
        self.lines: dict[str, np.ndarray] = {}
        self.charts: dict[str, dict[str, Any]] = {}
        self.texts: dict[str, str] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def voxels(self) -> int:
        return sum(map(len, self.clouds.values()))

    def chart(self, title: str) -> dict[str, Any] | None:
        """The chart whose title begins so."""
        return next((chart for chart in self.charts.values() if chart["title"].startswith(title)), None)

    def until(self, condition: Callable[[Client], Any], what: str, timeout: float = 20.0) -> Any:
        """Read on until ``condition`` holds; its value."""
        deadline = time.monotonic() + timeout
        while not (value := condition(self)):
            try:
                self._take(self._socket.recv(timeout=max(0.0, deadline - time.monotonic())))
            except TimeoutError:
                raise AssertionError(f"no {what} within {timeout:.0f} s: {self.charts.keys()}, {self.texts}") from None
        return value

    def _take(self, frame: bytes) -> None:
        size = int.from_bytes(frame[8:16], "little")
        told = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(frame[16 : 16 + size]))
        buffers, at = [], 16 + size
        for length in told["binaryBufferLengths"]:
            at += -at % 8
            buffers.append(frame[at : at + length])
            at += length
        for message in told["messages"]:
            self._apply(arrays(message, buffers))

    def _apply(self, m: dict[str, Any]) -> None:
        match m["type"]:
            case "PointCloudMessage":
                self.clouds[m["name"]] = m["props"]["points"].reshape(-1, 3)
            case "LineSegmentsMessage":
                self.lines[m["name"]] = m["props"]["points"].reshape(-1, 2, 3)
            case "RemoveSceneNodeMessage":
                self.clouds.pop(m["name"], None)
            case "SceneNodeUpdateMessage":
                for kind, shape in ((self.clouds, (-1, 3)), (self.lines, (-1, 2, 3))):
                    if m["name"] in kind and "points" in m["updates"]:
                        kind[m["name"]] = m["updates"]["points"].reshape(shape)
            case "GuiUplotMessage":
                self.charts[m["uuid"]] = dict(m["props"])
            case "GuiMarkdownMessage":
                self.texts[m["uuid"]] = m["props"]["_markdown"]
            case "GuiUpdateMessage":
                self.charts.get(m["uuid"], {}).update(m["updates"])
                if m["uuid"] in self.texts and "_markdown" in m["updates"]:
                    self.texts[m["uuid"]] = m["updates"]["_markdown"]
            case "GuiRemoveMessage":
                self.charts.pop(m["uuid"], None)


def arrays(value: Any, buffers: list[bytes]) -> Any:
    """``value`` with the arrays in the place of what stands for them."""
    if isinstance(value, dict):
        if "__binary_index" in value:
            return np.frombuffer(buffers[value["__binary_index"]], TYPES[value["dtype"]])
        return {key: arrays(item, buffers) for key, item in value.items()}
    return [arrays(item, buffers) for item in value] if isinstance(value, list) else value

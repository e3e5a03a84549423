"""The page and its server, on viser, in a process of its own: `serve` is what `dsg_ros.aside` runs there.

Why a process: the server's event loop, the encoding of large arrays and 0.8 s of imports would hold the node's
interpreter lock, and whatever a client makes of its connection stays out of the node's memory.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import viser
from numpy.typing import NDArray

from dsg_ros.aside import Receive
from dsg_ros.errors import UserError
from dsg_ros.view.curves import Curves
from dsg_ros.view.scene import Scene
from dsg_ros.view.update import Settings, Update
from dsg_ros.voxel_colours import COLOURINGS

NICENESS = 10
"""A late picture is late; a late callback loses messages."""
_REFIT = 1.15
"""The camera steps back when the map has grown by this factor."""
_LONE_LINE = 10.0
"""Seconds between two lines about clients that do not speak the page's language."""


def serve(receive: Receive) -> Iterator[str]:
    """Takes `Settings`, gives the page's address; then takes `Update`s, and gives an empty text when one is shown."""
    os.nice(NICENESS)
    for name in ("websockets.server", "asyncio"):
        logging.getLogger(name).addFilter(Few())
    # It would write a line for every value of the wrong type that a client sends.
    warnings.filterwarnings("ignore", module="viser")
    # viser greets and says good-bye there, and tells of every client of another version.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    page = Page(receive())
    yield page.url
    while True:
        page.show(receive())
        yield ""


class Few(logging.Filter):
    """Of the errors that foreign clients cause, one line every ten seconds, with the number of those before it."""

    def __init__(self) -> None:
        super().__init__()
        self._due = 0.0
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._due:
            self._left_out += 1
            return False
        error = record.exc_info[1] if record.exc_info else None
        because = f" ({type(error).__name__}: {error})" if error is not None else ""
        more = f"; {self._left_out} more like it" if self._left_out else ""
        record.msg, record.args = f"web view: a client's connection failed{because}{more}", ()
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        self._due, self._left_out = now + _LONE_LINE, 0
        return True


class Server(viser.ViserServer):
    """viser's server without its tunnel: any client may ask it for one, and would open this page to the internet."""

    def request_share_url(self, verbose: bool = True) -> str | None:
        """Refused."""
        return None


class Page:
    """The server, what is drawn in it, and its panel.  `UserError` where the port is not to be had."""

    def __init__(self, settings: Settings) -> None:
        os.environ.pop("_VISER_PORT_OVERRIDE", None)
        self._server = Server(settings.host, settings.port, label="dsg_ros", verbose=False)
        port = self._server.get_port()
        if settings.port not in (0, port):  # viser takes the next free one without a word
            self._server.stop()
            raise UserError(f"port {settings.port} on {settings.host} is taken: choose another view_port, or 0")
        self.url = address(settings.host, port)
        self._server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="large")
        self._server.gui.main_panel.dock_right()
        self._scene = Scene(self._server.scene, settings.chunk)
        self._fitted = 0.0
        self._drawing = threading.Lock()  # ticks and choices come on viser's threads
        self._add_panel()
        self._curves = Curves(self._server.gui)
        self._server.on_client_connect(self._fit)

    def show(self, update: Update) -> None:
        """Draw what changed, in one piece."""
        with self._drawing, self._server.atomic():
            self._scene.show(update)
            self._curves.show(update)
            if update.counts is not None or update.restarted:
                self._summary.content = summary(update, self._scene.voxels)
        if update.restarted:
            self._fitted = 0.0
        self._step_back()

    def _add_panel(self) -> None:
        gui = self._server.gui
        self._summary = gui.add_markdown("waiting for the first scan")
        with gui.add_folder("View", expand_by_default=False):
            self._follow = gui.add_checkbox("keep the whole map in view", True)
            colour = gui.add_dropdown("voxels by", COLOURINGS)
            colour.on_update(lambda _: self._colour(colour.value))
            for name, switch in self._scene.show_parts().items():
                box = gui.add_checkbox(name, True)
                box.on_update(switched(box, switch))

    def _colour(self, colouring: str) -> None:
        with self._drawing, self._server.atomic():
            self._scene.colour(next(c for c in COLOURINGS if c == colouring))

    def _step_back(self) -> None:
        """Keep what is drawn in view, of those who look and those who come."""
        if self._scene.bounds is None:
            return
        low, high = self._scene.bounds
        size = float(np.linalg.norm(high - low))
        if size < _REFIT * self._fitted:
            return
        self._fitted = size
        camera = self._server.initial_camera
        camera.position, camera.look_at = overview(low, high)
        if self._follow.value:
            for client in self._server.get_clients().values():
                self._fit(client)

    def _fit(self, client: viser.ClientHandle) -> None:
        if self._scene.bounds is None:
            return
        with client.atomic():
            client.camera.up_direction = (0.0, 0.0, 1.0)
            client.camera.position, client.camera.look_at = overview(*self._scene.bounds)


def overview(low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where to look at a box from, south of it and above, and its middle."""
    middle = (low + high) / 2.0
    distance = max(0.62 * float(np.linalg.norm(high - low)), 2.0)
    return middle + distance * np.array([0.0, -0.55, 0.83]), middle


def switched(box: viser.GuiCheckboxHandle, switch: Callable[[bool], None]) -> Callable[[viser.GuiEvent], None]:
    """What a tick in ``box`` does."""
    return lambda event: switch(box.value)


def summary(update: Update, voxels: int) -> str:
    """The first lines of the panel."""
    counts = update.counts or {}
    told = [f"{counts[name]} {name}" for name in ("scans", "keyframes", "loops") if name in counts]
    state = f"**{update.localisation}**, " if update.localisation else ""
    return state + ", ".join([*told, f"{voxels} voxels"])


def address(host: str, port: int) -> str:
    """What to type into a browser on this machine."""
    try:
        told = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if told.is_unspecified:
        return f"http://localhost:{port}"
    return f"http://[{host}]:{port}" if told.version == 6 else f"http://{host}:{port}"

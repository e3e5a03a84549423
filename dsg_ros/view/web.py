"""The web view as seen by who is shown: hand over estimates, and let it take its time."""

from __future__ import annotations

import importlib.util
import ipaddress
import socket
import threading
from collections.abc import Callable

from dsg_ros.aside import Aside
from dsg_ros.errors import UserError
from dsg_ros.interface import Estimate, RunResult
from dsg_ros.view.pending import Pending
from dsg_ros.view.update import Health, Settings

PERIOD = 0.2
"""Seconds between two updates of the page."""
PATIENCE = 2.0
"""Seconds an update may take when the view is to end."""
SERVE = "dsg_ros.view.page:serve"


class NoView:
    """In the place of a `WebView` where none is asked for."""

    url = ""

    def take(self, estimate: Estimate) -> None:
        """Nothing is shown."""

    def tell(self, health: Health) -> None:
        """Likewise."""

    def clear(self) -> None:
        """There is nothing to clear."""

    def stop(self) -> None:
        """Nothing runs."""


class WebView:
    """A page at ``http://host:port`` with all that it is handed over.

    `take`, `tell` and `clear` return at once, from any thread, whatever the page's process and its clients do: what is
    not taken is merged with what comes next.  ``say`` is told what the operator should know, as level and text.
    """

    def __init__(self, host: str, port: int, say: Callable[[str, str], None], chunk: float = 8.0) -> None:
        self._settings = Settings(host, port, chunk)
        self._say = say
        self._pending = Pending()
        self._stopping = threading.Event()
        self._known = threading.Event()
        self._aside: Aside | None = None
        self._thread = threading.Thread(target=self._run, name="view", daemon=True)
        self.url = ""
        """Where the page is; empty until it is there, and when it has ended."""

    def start(self) -> None:
        """Have the page served; `UserError` where that is bound to fail."""
        check(self._settings.host, self._settings.port)
        self._thread.start()

    def wait(self, timeout: float) -> str:
        """The page's address, when it is there; empty where it is not to be had, which was said, or not in time."""
        self._known.wait(timeout)
        return self.url

    def take(self, estimate: Estimate) -> None:
        """Show an estimate."""
        self._pending.take(estimate)

    def tell(self, health: Health) -> None:
        """Show how the inputs are kept up with."""
        self._pending.tell(health)

    def finish(self, result: RunResult) -> None:
        """Show the map as it is after the final refinement."""
        self._pending.finish(result)

    def clear(self) -> None:
        """Show nothing of the map so far."""
        self._pending.clear()

    def stop(self) -> None:
        """End the page; nothing is left running."""
        self._stopping.set()
        if not self._thread.is_alive():
            return
        self._thread.join(PATIENCE)
        if self._thread.is_alive() and self._aside is not None:
            self._aside.kill()
        self._thread.join()

    def _run(self) -> None:
        try:
            with Aside(SERVE) as self._aside:
                self._show(self._aside)
        except Exception as error:  # noqa: BLE001 - whatever it was: the view is not what the robot runs for
            if not self._stopping.is_set():
                self._say("error", f"the web view has ended, all else goes on: {error}")
        finally:
            self.url = ""
            self._known.set()

    def _show(self, page: Aside) -> None:
        page.send(self._settings)
        self.url = next(page)
        self._known.set()
        self._say("info", f"web view: {self.url}")
        if not loopback(self._settings.host):
            self._say("warning", f"whoever reaches this machine on {self._settings.host} can see the web view")
        while not self._stopping.wait(PERIOD):
            update = self._pending.drain()
            if update is not None:
                page.send(update)
                next(page)


def check(host: str, port: int) -> None:
    """`UserError` where the web view cannot listen on this address, or is not installed."""
    if importlib.util.find_spec("viser") is None:
        raise UserError("the web view needs the package viser: pip install viser")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        hint = "choose another view_port, or 0 for any that is free" if port else "see view_host"
        raise UserError(f"the web view cannot listen on {host}, port {port} ({error.strerror}): {hint}") from None


def loopback(host: str) -> bool:
    """Whether only this machine can connect to ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

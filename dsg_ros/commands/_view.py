"""A run in the web view: every estimate, the rate of scans, and the result, which stays until somebody has seen it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from dsg_ros import config
from dsg_ros.interface import Estimate, RunResult
from dsg_ros.synchroniser import dropped_scans
from dsg_ros.throttle import to_log
from dsg_ros.view.update import Health
from dsg_ros.view.web import WebView

View = Literal["none", "web"]

START_UP = 60.0
"""Longest wait [s] for the page."""
_EVERY = 1.0
"""Seconds between two points of the curves of rates and drops."""


class Watched:
    """Hands a run's estimates to the view."""

    def __init__(self, view: WebView) -> None:
        self._view = view
        self._began = self._told = time.monotonic()
        self._scans = 0

    def take(self, estimate: Estimate, counts: Mapping[str, int]) -> None:
        """Show the estimate of one scan more; ``counts`` are the log's so far."""
        self._view.take(estimate)
        self._scans += 1
        now = time.monotonic()
        if now - self._told >= _EVERY:
            rates = {"scans mapped": self._scans / (now - self._told)}
            self._view.tell(Health(now - self._began, rates, dropped_scans(counts)))
            self._told, self._scans = now, 0

    def finish(self, result: RunResult) -> None:
        """Show the result."""
        self._view.finish(result)

    def stay(self) -> None:
        """Keep the page until Ctrl-C, where somebody sits at a terminal."""
        if self._view.url and sys.stdin.isatty():
            print(f"the web view stays at {self._view.url} until Ctrl-C", flush=True)
            try:
                while self._view.url:
                    time.sleep(0.2)
            except KeyboardInterrupt:
                print()


@contextmanager
def watching(view: View, settings: config.Node) -> Iterator[Watched | None]:
    """What a run is watched with; None where it is not to be."""
    if view == "none":
        yield None
        return
    web = WebView(settings.view_host, settings.view_port, to_log(__name__), settings.chunk)
    web.start()
    try:
        web.wait(START_UP)
        yield Watched(web)
    finally:
        web.stop()

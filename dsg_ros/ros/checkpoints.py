"""When the worker is to keep its state, and what came of it: for diagnostics, and the log where it went wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from dsg_ros import config as cfg
from dsg_ros.throttle import Say, Throttle
from dsg_ros.worker import messages
from dsg_ros.worker.checkpoints import Checkpointed

LAST_WAIT = 60.0
"""Seconds that the end of the node waits for its last checkpoint."""


class Checkpoints:
    """Has the state kept every ``checkpoint_period``; ``request`` asks the worker."""

    def __init__(
        self, config: Callable[[], cfg.Node], request: Callable[[messages.Command], Future[Any]], say: Say
    ) -> None:
        self._config, self._request = config, request
        self._throttled = Throttle(say, period=60.0)
        self._asked: Future[Any] | None = None
        self._since = time.monotonic()
        self._last: Checkpointed | None = None
        self._kept: float | None = None
        self._counts = {"written": 0, "failed": 0}
        self._held = 0.0
        self._error = ""

    @property
    def on(self) -> bool:
        """Whether any are to be written."""
        config = self._config()
        return bool(config.map_folder and config.checkpoint_period and not config.localisation)

    def tick(self) -> None:
        """Ask for one if it is time; to be called now and then, while there is a map that may have changed."""
        if self.on and time.monotonic() - self._since >= self._config().checkpoint_period:
            self.ask()

    def ask(self) -> Future[Any]:
        """Ask for one now, unless one is on its way."""
        if self._asked is None or self._asked.done():
            self._since = time.monotonic()
            self._asked = self._request(messages.Checkpoint(self._config().map_folder))
            self._asked.add_done_callback(self._answered)
        return self._asked

    def figures(self) -> dict[str, Any]:
        """How many were written, how old the newest is and what it cost; and what is wrong, if something is."""
        last, now = self._last, time.monotonic()
        told: dict[str, Any] = {**self._counts, "error": self._error}
        if last is not None and self._kept is not None:
            told |= {
                "age_s": round(now - self._kept, 1), "keyframes": last.keyframes, "bytes": last.bytes,
                "fresh_bytes": last.fresh, "held_ms": round(1e3 * last.held, 2),
                "largest_held_ms": round(1e3 * self._held, 2), "seconds": round(last.seconds, 3),
            }  # fmt: skip
        return told

    def _answered(self, done: Future[Any]) -> None:
        error = done.exception()
        if error is not None:
            self._counts["failed"] += 1
            self._error = str(error)
            self._throttled("error", "checkpoint", f"no checkpoint, mapping goes on: {error}")
            return
        self._kept, self._error = time.monotonic(), ""
        if done.result().seconds:  # else nothing had changed
            self._counts["written"] += 1
            self._last = done.result()
            self._held = max(self._held, self._last.held)

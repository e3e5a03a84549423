"""Say what happens again and again only now and then."""

from __future__ import annotations

import logging
import math
import time
import traceback
from collections.abc import Callable

Say = Callable[[str, str], None]
"""``say(level, text)``, level as in `logging` but lower case."""


def to_log(name: str) -> Say:
    """Says it in the log of this name."""
    log = logging.getLogger(name)
    return lambda level, text: log.log(getattr(logging, level.upper()), "%s", text)


class Throttle:
    """Passes a message on when its kind was not heard for ``period`` seconds of wall time."""

    def __init__(self, say: Say, period: float = 5.0) -> None:
        self._say, self._period = say, period
        self._latest: dict[str, float] = {}

    def __call__(self, level: str, kind: str, text: str) -> None:
        now = time.monotonic()
        if now - self._latest.get(kind, -math.inf) >= self._period:
            self._latest[kind] = now
            self._say(level, text)


class Traces:
    """Says an exception with its traceback, each place that raises now and then only."""

    def __init__(self, say: Say, period: float = 60.0) -> None:
        self._throttled = Throttle(say, period)

    def __call__(self, error: BaseException) -> None:
        raised = traceback.extract_tb(error.__traceback__)[-1:]
        kind = f"{type(error).__name__} {raised[0].filename}:{raised[0].lineno}" if raised else type(error).__name__
        self._throttled("error", kind, "".join(traceback.format_exception(error)))

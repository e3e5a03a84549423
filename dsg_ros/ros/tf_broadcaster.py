"""map->odom at a steady rate, whatever the solver and the callbacks do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros.ros.ticker import Ticker

_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Correction:
    """``parent_from_child`` (7,) as it is broadcast."""

    parent: str
    child: str
    pose: NDArray[np.float64]


class TfBroadcaster:
    """A thread that publishes the latest `Correction` ``rate()`` times a second of wall time.

    ``now()`` is the ROS clock [ns].  Each transform is dated ``tolerance()`` seconds ahead, so that it still holds
    when the next one is due.  While the ROS clock stands, nothing is published: no stamp goes out twice.
    An exception of any of them goes to ``on_error``; the next transform is tried all the same.
    """

    def __init__(
        self,
        publish: Callable[[Correction, int], None],
        now: Callable[[], int],
        rate: Callable[[], float],
        tolerance: Callable[[], float],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._publish, self._now, self._rate, self._tolerance = publish, now, rate, tolerance
        self._on_error = on_error
        self._correction: Correction | None = None
        self._ticker: Ticker | None = None
        self._latest_stamp: int | None = None
        self._quiet_since: float | None = None  # None: nothing went out before, so no gap begins
        self.published = 0
        self.largest_gap = 0.0
        """Longest wall time [s] to a transform from the one before, or from the last look at a clock that stood."""
        self._window: tuple[float, int] = (time.monotonic(), 0)

    def set(self, correction: Correction | None) -> None:
        """From now on this is published; None is silence.  One assignment: the thread never sees half of it."""
        self._correction = correction

    def start(self) -> None:
        self._quiet_since = None
        self._ticker = Ticker("tf", lambda: 1.0 / self._rate(), self._tick, self._on_error)
        self._ticker.start()

    def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.stop()
            self._ticker = None

    def measured_rate(self) -> float:
        """Transforms a second since the last call."""
        now, (since, count) = time.monotonic(), self._window
        self._window = now, self.published
        return (self.published - count) / max(now - since, 1e-3)

    def _tick(self) -> None:
        wall, correction = time.monotonic(), self._correction
        if correction is None:
            self._quiet_since = None
            return
        now = self._now()
        if now == 0:  # simulated time of which nothing was heard yet
            return
        if now == self._latest_stamp:
            # The clock stands: what has passed so far is not the broadcaster's gap.
            if self._quiet_since is not None:
                self._quiet_since = wall
            return
        self._publish(correction, now + round(self._tolerance() * _SECOND))
        if self._quiet_since is not None:
            self.largest_gap = max(self.largest_gap, wall - self._quiet_since)
        self.published += 1
        self._latest_stamp, self._quiet_since = now, wall

"""map->odom at a steady rate, whatever the solver and the callbacks do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SECOND = 1_000_000_000
_PAUSE = 1.0
"""A ROS clock that stands for longer [s] is taken as paused; the gap it causes is not the broadcaster's."""


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
    """

    def __init__(
        self,
        publish: Callable[[Correction, int], None],
        now: Callable[[], int],
        rate: Callable[[], float],
        tolerance: Callable[[], float],
    ) -> None:
        self._publish, self._now, self._rate, self._tolerance = publish, now, rate, tolerance
        self._correction: Correction | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.published = 0
        self.largest_gap = 0.0
        """Longest wall time [s] between two transforms while the ROS clock ran."""
        self._window: tuple[float, int] = (time.monotonic(), 0)

    def set(self, correction: Correction | None) -> None:
        """From now on this is published; None is silence.  One assignment: the thread never sees half of it."""
        self._correction = correction

    def start(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="tf", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def measured_rate(self) -> float:
        """Transforms a second since the last call."""
        now, (since, count) = time.monotonic(), self._window
        self._window = now, self.published
        return (self.published - count) / max(now - since, 1e-3)

    def _run(self) -> None:
        latest_stamp, latest_wall = None, time.monotonic()
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            wall = time.monotonic()
            # After a stall go on from here: catching up would publish a burst.
            due = max(due + 1.0 / self._rate(), wall)
            correction = self._correction
            if correction is None:
                latest_stamp = None
                continue
            now = self._now()
            if now == latest_stamp or now == 0:  # zero: simulated time of which nothing was heard yet
                continue
            self._publish(correction, now + round(self._tolerance() * _SECOND))
            gap = wall - latest_wall
            if latest_stamp is not None and gap < _PAUSE:
                self.largest_gap = max(self.largest_gap, gap)
            self.published += 1
            latest_stamp, latest_wall = now, wall

"""How long things take: callbacks, and a scan from when it is handed to the worker until its estimate is there."""

from __future__ import annotations

import time
from collections import deque

import numpy as np


class Latencies:
    """Durations [s]; percentiles over the latest 20,000."""

    def __init__(self) -> None:
        self._ring = np.zeros(20_000, np.float32)
        self.count = 0
        self.largest = 0.0

    def add(self, seconds: float) -> None:
        self._ring[self.count % len(self._ring)] = seconds
        self.count += 1
        self.largest = max(self.largest, seconds)

    def percentiles(self) -> tuple[float, float]:
        """Median and 99th percentile [s]; zeros before the first."""
        known = self._ring[: min(self.count, len(self._ring))]
        if not len(known):
            return 0.0, 0.0
        median, high = np.percentile(known, (50, 99))
        return float(median), float(high)

    def figures(self) -> dict[str, float]:
        """For diagnostics."""
        median, high = (round(1e3 * seconds, 3) for seconds in self.percentiles())
        return {
            "count": self.count, "p50_ms": median, "p99_ms": high, "largest_ms": round(1e3 * self.largest, 3),
        }  # fmt: skip


class Answers(Latencies):
    """Of scans, whose estimates come in their order: waiting for the worker, and for the scan before, is in it."""

    LONGEST = 1000
    """Scans that may wait and are still timed."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: deque[tuple[int, float]] = deque(maxlen=self.LONGEST)

    def ask(self, stamp: int) -> None:
        """The scan of ``stamp`` [ns] is handed over."""
        self._asked.append((stamp, time.perf_counter()))

    def told(self, stamp: int) -> None:
        """Its estimate is there; scans before it that are still waited for were dropped."""
        while self._asked:
            asked, began = self._asked.popleft()
            if asked == stamp:
                self.add(time.perf_counter() - began)
                return

"""Where the time goes: seconds by phase, totals and recent percentiles, in bounded memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

RECENT = 512
"""Durations of a phase that percentiles are taken over."""


class Stopwatch:
    """``with stopwatch("register"): ...`` adds to the phase of that name."""

    def __init__(self) -> None:
        self._total: dict[str, float] = {}
        self._recent: dict[str, deque[float]] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self._total[phase] = self._total.get(phase, 0.0) + seconds
            self._recent.setdefault(phase, deque(maxlen=RECENT)).append(seconds)

    def totals(self) -> dict[str, float]:
        """Seconds in each phase so far."""
        return dict(self._total)

    def last(self) -> dict[str, float]:
        """The latest duration of each phase [s]: ``seconds.<phase>``."""
        return {f"seconds.{phase}": recent[-1] for phase, recent in self._recent.items()}

    def summary(self) -> dict[str, float]:
        """Total [s], and median and 99th percentile of the recent durations [s], of each phase."""
        out: dict[str, float] = {}
        for phase, recent in self._recent.items():
            p50, p99 = np.percentile(np.array(recent), [50, 99])
            out |= {
                f"seconds_total.{phase}": self._total[phase],
                f"seconds_p50.{phase}": float(p50),
                f"seconds_p99.{phase}": float(p99),
            }
        return out

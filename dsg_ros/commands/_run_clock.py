"""How long a run takes, phase by phase and scan by scan."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from dsg_ros.report import timing


@dataclass
class Clock:
    """Wall-clock seconds by phase, and of every scan until its estimate and until all is done that it leaves to do."""

    phases: dict[str, float] = field(default_factory=dict)
    estimates: list[float] = field(default_factory=list)
    scans: list[float] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - began

    @contextmanager
    def scan(self) -> Iterator[Callable[[], None]]:
        """A scan is worked on; what is handed in is to be called when its estimate is there."""
        began = time.perf_counter()
        yield lambda: self.estimates.append(time.perf_counter() - began)
        self.scans.append(time.perf_counter() - began)

    def metrics(self) -> dict[str, float]:
        """Durations as the report names them: the run's phases, and a scan through the pipeline."""
        found = {f"{timing.RUN}{name}": seconds for name, seconds in self.phases.items()}
        if self.scans:
            p50, p99 = np.percentile(self.scans, [50, 99])
            found |= {f"{timing.TOTAL}whole_scan": sum(self.scans)}
            found |= {f"{timing.P50}whole_scan": float(p50), f"{timing.P99}whole_scan": float(p99)}
        return found

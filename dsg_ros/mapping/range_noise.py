"""How noisy a planar scanner's ranges are, by its scans alone: whatever the map is worth, and wherever the robot is.

A beam on a wall lies on the line through its neighbours but for the noise of the three.  Edges, bushes and people make
scans look noisier and nothing makes them look less noisy, so of a scan the beams that depart least are asked, and of
all scans those with the least noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import plain
from dsg_ros.mapping.range_noise_kernel import departures
from dsg_ros.state import State

LEAST = 0.1
"""The share of beams, and of scans, that is asked."""
OF_NORMAL = 0.12566
"""Deviations within which a normal variable lies with that chance."""
FEWEST_BEAMS, FEWEST_SCANS = 20, 20
"""Beams of a scan, and scans, of which anything is said."""
EDGES = np.geomspace(1e-3, 1.0, 91)
"""Borders [m] of the bins in which the scans are counted, 8 % apart."""


def _least(found: NDArray[np.float64]) -> float:
    """`numpy.quantile` at `LEAST`, which takes longer than all else that a scan costs here."""
    ordered, at = np.sort(found), LEAST * (len(found) - 1)
    low = int(at)
    return float(ordered[low] + (at - low) * (ordered[low + 1] - ordered[low]))


class RangeNoise:
    """Hears scans; ``deviation`` [m] is that of their ranges, 0 until it is known or where it is below a millimetre."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(EDGES) + 1, np.int64)
        self.deviation = 0.0

    def hear(self, points: NDArray[np.floating]) -> None:
        """Take a scan of ``points`` (n, 3) in the sensor's frame, in the order of its beams."""
        found = departures(plain(points.astype(np.float64)))
        if len(found) >= FEWEST_BEAMS:
            self._counts[np.searchsorted(EDGES, _least(found) / OF_NORMAL)] += 1
            self.deviation = self._told()

    def _told(self) -> float:
        total = int(self._counts.sum())
        if total < FEWEST_SCANS:
            return 0.0
        bin_ = int(np.searchsorted(np.cumsum(self._counts), LEAST * total))
        return float(EDGES[bin_ - 1]) if bin_ else 0.0

    def state(self) -> State:
        """As `dsg_ros.state` says."""
        return {"counts": self._counts.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        self._counts[:] = state["counts"]
        self.deviation = self._told()

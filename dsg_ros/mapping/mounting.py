"""Does the scanner sit as its extrinsic says?  Mounted the other way round, it shows turns or steps the wrong way."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import se3
from dsg_ros.state import State, packed, unpacked

TURN, TRAVEL = 3.0, 10.0
"""Turning [rad] and travel [m], back and forth added up, before a verdict: no single bad match has a say then."""

UPSIDE_DOWN, BACKWARDS = -0.5, 0.3
"""Share of the odometry's turning that the scans show in its direction: 1 as it should be, -1 upside down.  And of its
steps: -1 backwards; the prior from the odometry holds part of the matches to its side then.
"""

_log = logging.getLogger(__name__)


@dataclass
class _Agreement:
    """Of what two say about the same quantity: ``share`` is the second's, along the first (least squares)."""

    both: float = 0.0
    first: float = 0.0
    total: float = 0.0

    def add(self, first: float, second: float) -> None:
        self.both += first * second
        self.first += first * first
        self.total += abs(first)

    @property
    def share(self) -> float:
        return self.both / self.first if self.first else 1.0


class MountingCheck:
    """Compares steps by odometry and by scans; a verdict is logged once, and counted as 1 in ``counts``."""

    def __init__(self) -> None:
        self._turning, self._steps = _Agreement(), _Agreement()
        self.counts = {"sensor_upside_down": 0, "sensor_backwards": 0}

    def add(self, odometry: NDArray[np.float64], registration: NDArray[np.float64]) -> None:
        """The same step (7,) of the base as measured by the odometry and by the scans."""
        told, seen = se3.log(odometry), se3.log(registration)
        self._turning.add(float(told[5]), float(seen[5]))
        self._steps.add(float(told[0]), float(seen[0]))
        if self._turning.total >= TURN and self._turning.share < UPSIDE_DOWN:
            self._tell("sensor_upside_down", "scans turn left where the odometry turns right", "upside down")
        # Upside down also mixes up where steps go: one verdict is enough.
        elif self._steps.total >= TRAVEL and self._steps.share < BACKWARDS:
            self._tell("sensor_backwards", "scans go back where the odometry goes ahead", "turned by 180 deg")

    @property
    def wrong(self) -> bool:
        """Whether a verdict was told."""
        return any(self.counts.values())

    def state(self) -> State:
        """As `dsg_ros.state` says."""
        sums = {"turning": asdict(self._turning), "steps": asdict(self._steps)}
        return {"sums": packed(sums), "counts": packed(self.counts)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        sums = unpacked(state["sums"])
        self._turning, self._steps = _Agreement(**sums["turning"]), _Agreement(**sums["steps"])
        self.counts = unpacked(state["counts"])

    def _tell(self, name: str, finding: str, mounting: str) -> None:
        if self.counts[name]:
            return
        self.counts[name] = 1
        _log.warning(
            "%s: the sensor seems to be mounted %s against its extrinsic (TF base -> sensor), or the odometry has the "
            "wrong sign; the map will be wrong until that is mended", finding, mounting,
        )  # fmt: skip

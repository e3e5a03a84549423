"""Does the sensor sit as its extrinsic says?  Mounted the other way round, it shows turns or steps the wrong way.

A 3D lidar that is tilted shows turns about another axis than the odometry.  Upside down it shows nothing: its clouds
do not fit while the robot turns, and the odometry is believed.  So two clouds with a turn in between are also matched
as if they were the other way up.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.core.native import plain, se3
from dsg_ros.mapping.local_map import LocalMapper
from dsg_ros.state import State, packed, unpacked

TURN, TRAVEL = 3.0, 10.0
"""Turning [rad] and travel [m], back and forth added up, before a verdict: no single bad match has a say then."""

UPSIDE_DOWN, BACKWARDS = -0.5, 0.3
"""Share of the odometry's turning that the scans show in its direction: 1 as it should be, -1 upside down.  And of its
steps: -1 backwards; the prior from the odometry holds part of the matches to its side then.
"""

TILTED = 0.2
"""Angle between the axes about which odometry and clouds turn [rad], from which on that is told."""

FLIP: NDArray[np.float64] = np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
"""Half a turn about the axis ahead."""
LEAST_TURN, TRIES = 0.15, 40
"""Turn [rad] between two keyframes for them to be matched the other way up; so many are, then it is known."""
CLEARER, AGREEING = 0.15, 4
"""By so much larger a share of inliers is the better one; and it takes so many to believe it, and as many times those
that say otherwise.
"""
PRIOR = np.eye(6)
"""Information [1/m^2, 1/rad^2] of the odometry between two clouds: it hardly counts."""

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
    """Compares steps by odometry and by scans; a verdict is logged once, and counted as 1 in ``counts``.

    ``mapper`` is that of the scans.
    """

    def __init__(self, mapper: LocalMapper) -> None:
        self._mapper = mapper
        self._turning, self._steps = _Agreement(), _Agreement()
        # Turns (2, 3) told and seen, added up in proportion to those told about the vertical.
        self._axes = np.zeros((2, 3))
        self._upright, self._flipped, self._tries = 0, 0, 0
        self.counts = {"sensor_upside_down": 0, "sensor_backwards": 0, "sensor_tilted": 0}

    def add(self, odometry: NDArray[np.float64], registration: NDArray[np.float64]) -> None:
        """The same step (7,) of the base as measured by the odometry and by the scans."""
        told, seen = se3.log(odometry), se3.log(registration)
        self._turning.add(float(told[5]), float(seen[5]))
        self._steps.add(float(told[0]), float(seen[0]))
        self._axes += told[5] * np.stack([told[3:], seen[3:]])
        if self._turning.total >= TURN and self._turning.share < UPSIDE_DOWN:
            self._tell("sensor_upside_down", "scans turn left where the odometry turns right", "upside down")
        # Upside down also mixes up where steps go: one verdict is enough.
        elif self._steps.total >= TRAVEL and self._steps.share < BACKWARDS:
            self._tell("sensor_backwards", "scans go back where the odometry goes ahead", "turned by 180 deg")
        elif not self._mapper.planar and not self.wrong:
            known = self._turning.total >= TURN and self._steps.total >= TRAVEL
            if known and (tilt := self._tilt()) > TILTED:
                finding = "clouds turn about another axis than the odometry"
                self._tell("sensor_tilted", finding, f"tilted by about {np.degrees(tilt):.0f} deg")

    def _tilt(self) -> float:
        """Angle [rad] between the axes of turns as told and as seen; 0 where the two have nothing in common."""
        told, seen = self._axes
        if told @ seen <= 0.0:
            return 0.0
        return float(np.arctan2(np.linalg.norm(np.cross(told, seen)), told @ seen))

    def turned(self, before: NDArray[np.float64], after: NDArray[np.float64], odometry: NDArray[np.float64]) -> None:
        """Clouds (n, 3), (m, 3) of two keyframes, in the base frame, with the step (7,) by ``odometry`` in between."""
        least = self._mapper.least_points
        turns = not self._mapper.planar and abs(se3.log(odometry)[5]) >= LEAST_TURN
        if not turns or self._tries >= TRIES or min(len(before), len(after)) < least:
            return
        self._tries += 1
        place, flipped = self._mapper.build(poses.IDENTITY[None], [before]), plain(FLIP)
        starts = plain(odometry), se3.compose(flipped, se3.compose(plain(odometry), flipped))
        upright, flipped_too = (
            self._mapper.register(place, after, start[None], start, PRIOR).inliers for start in starts
        )
        self._upright += upright > flipped_too + CLEARER
        self._flipped += flipped_too > upright + CLEARER
        if self._flipped >= AGREEING * max(1, self._upright):
            self._tell("sensor_upside_down", "clouds fit while it turns if they are turned over", "upside down")

    @property
    def wrong(self) -> bool:
        """Whether a verdict was told."""
        return any(self.counts.values())

    def state(self) -> State:
        """As `dsg_ros.state` says."""
        sums = {"turning": asdict(self._turning), "steps": asdict(self._steps)}
        tries = {"upright": self._upright, "flipped": self._flipped, "tries": self._tries}
        counts = packed(self.counts)
        return {"sums": packed(sums), "axes": self._axes.copy(), "tries": packed(tries), "counts": counts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""
        sums = unpacked(state["sums"])
        self._turning, self._steps = _Agreement(**sums["turning"]), _Agreement(**sums["steps"])
        self._axes[:] = state["axes"]
        tries = unpacked(state["tries"])
        self._upright, self._flipped, self._tries = tries["upright"], tries["flipped"], tries["tries"]
        self.counts = unpacked(state["counts"])

    def _tell(self, name: str, finding: str, mounting: str) -> None:
        if self.counts[name]:
            return
        self.counts[name] = 1
        _log.warning(
            "%s: the sensor seems to be mounted %s against its extrinsic (TF base -> sensor), or the odometry has the "
            "wrong sign; the map will be wrong until that is mended", finding, mounting,
        )  # fmt: skip

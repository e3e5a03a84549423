"""Whether the robot was carried off: from one scan to the next the place is another, and the odometry knows nothing.

A scan that does not fit the map says little by itself: a crowd, a ramp, a room that opens, odometry that slipped.  But
scans that follow one another overlap wherever the robot is, and whatever the map is worth.  So a scan that fits the map
far less than the one before is held against those just before, and so are the two after it: if they overlap among
themselves, and those before among themselves, and both far more than any does with one of the others, although the
odometry tells of hardly any way, there is a break between two places.
"""

from __future__ import annotations

from collections import deque
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.native import plain
from dsg_ros.mapping.local_map import LocalMap, LocalMapper

SCANS = 3
"""Before the break, and after it."""
BREAK = 0.25
"""Inlier share by which scans of two places overlap less than those of one.  Over 150 breaks made at random in each of
three offices it was 0.3 or more for nine of ten, and without a break 0.06 at most; 0.15 outdoors, on ramps and grass.
"""
DROP = 0.15
"""Of the share that fits the map, from one scan to the next, that gives rise to the question."""
MOST_WAY, MOST_TURN = 0.5, 0.3
"""Odometry [m, rad] between two scans up to which they must overlap."""
PRIOR = np.eye(6)
"""Information [1/m^2, 1/rad^2] of the odometry between two scans: it hardly counts."""

Array = NDArray[np.float64]


class Scan:
    """``points`` (n, 3) in the base frame, at ``odometry`` (7,)."""

    def __init__(self, points: Array, odometry: Array, mapper: LocalMapper) -> None:
        self.points, self.odometry, self._mapper = points, plain(odometry), mapper

    @cached_property
    def place(self) -> LocalMap:
        """A local map of this scan alone, in its frame; built when it is first asked for."""
        return self._mapper.build(poses.IDENTITY[None], [self.points])


class Carried:
    """Looks at every scan, and matches it to those before where it does not fit the map."""

    def __init__(self, settings: config.Registration, mapper: LocalMapper) -> None:
        self._settings, self._mapper = settings, mapper
        self._before: deque[Scan] = deque(maxlen=SCANS)
        self._after: list[Scan] = []
        self._fitted = 0.0

    @property
    def suspected(self) -> bool:
        """Whether the newest scans may be of another place: the map should not have them yet."""
        return bool(self._after)

    def clear(self) -> None:
        """Forget the scans."""
        self._before.clear()
        self._after.clear()

    def look(self, points: Array, odometry: Array, inliers: float) -> bool:
        """Take the newest scan, ``points`` (n, 3) in the base frame at ``odometry`` (7,), of which a share of
        ``inliers`` fits the map; whether the robot was carried off before it and the `SCANS` - 1 scans before it.

        One that sees too little to be matched is no sign of anything.
        """
        if len(points) < self._settings.least_points:
            return False
        newest, fitted, self._fitted = Scan(points, odometry, self._mapper), self._fitted, inliers
        if not self._after and not (inliers < fitted - DROP and self._may_break(newest)):
            self._before.append(newest)
            return False
        self._after.append(newest)
        if len(self._after) < SCANS:
            return False
        before, after = list(self._before), self._after
        within = min(self._least(before), self._least(after))
        across = max(self._overlap(old, new) for old in before for new in after)
        self._before.extend(after)
        self._after = []
        return across < within - BREAK

    def _may_break(self, newest: Scan) -> bool:
        """Whether the scan sees another place than the last, with which it should overlap."""
        if len(self._before) < SCANS:
            return False
        step = poses.log(poses.between(self._before[-1].odometry, newest.odometry))
        if np.linalg.norm(step[:3]) > MOST_WAY or np.linalg.norm(step[3:]) > MOST_TURN:
            return False
        return self._overlap(self._before[-1], newest) < self._overlap(*list(self._before)[-2:]) - BREAK

    def _least(self, scans: list[Scan]) -> float:
        """How much any of some scans overlaps with one before it, at least."""
        return min(self._overlap(old, new) for k, new in enumerate(scans) for old in scans[:k])

    def _overlap(self, old: Scan, new: Scan) -> float:
        """Share of the new scan's points that fit the old one, however the odometry has turned."""
        if min(len(old.points), len(new.points)) < self._settings.least_points:
            return 0.0
        start = plain(poses.between(old.odometry, new.odometry))
        return float(self._mapper.register(old.place, new.points, self._mapper.fan(start), start, PRIOR).inliers)

"""Raw odometry of the last minutes: where the base was, by the wheels, when a position was measured."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsg_ros.interface import OdometryTrack
from dsg_ros.state import State

Vector = NDArray[np.float64]

KEPT = 20_000
"""Newest samples kept: over six minutes at 50 Hz."""
BEHIND = 1_000_000_000
"""Nanoseconds before the newest sample at which odometry is taken to begin anew."""
AROUND = 250_000_000
"""Nanoseconds on either side in which a velocity is sought."""


class OdometryHistory:
    """Samples in the order of their stamps, each once, from tracks that overlap."""

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._poses: list[Vector] = []

    def hear(self, track: OdometryTrack) -> None:
        """Take over what is newer than all before; where a track ends much earlier, begin anew."""
        stamps = track.stamps.tolist()
        if self._stamps and stamps[-1] < self._stamps[-1] - BEHIND:
            self._stamps.clear()
            self._poses.clear()
        newest = self._stamps[-1] if self._stamps else stamps[0] - 1
        first = bisect.bisect_right(stamps, newest)
        self._stamps += stamps[first:]
        self._poses += list(track.poses[first:].copy())  # not views, which would keep whole tracks
        if len(self._stamps) > 2 * KEPT:
            del self._stamps[:-KEPT], self._poses[:-KEPT]

    def state(self, since: int) -> State:
        """What `at` needs for stamps from ``since`` [ns] on, as `dsg_ros.state` says."""
        first = max(0, bisect.bisect_left(self._stamps, since - AROUND) - 1)
        return {"stamps": np.array(self._stamps[first:], np.int64), "poses": np.array(self._poses[first:])}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self._stamps, self._poses = state["stamps"].tolist(), list(state["poses"])

    def at(self, stamp: int, gap: float) -> tuple[Vector, Vector] | None:
        """Pose (7,) and velocity (6,) at ``stamp`` [ns]; None where there are no samples around within ``gap`` [s]."""
        after = bisect.bisect_left(self._stamps, stamp)
        if after == len(self._stamps) or (after == 0 and self._stamps[0] != stamp):
            return None
        exact = self._stamps[after] == stamp
        if not exact and self._stamps[after] - self._stamps[after - 1] > gap * 1e9:
            return None
        first = min(bisect.bisect_left(self._stamps, stamp - AROUND), max(after - 1, 0))
        last = max(bisect.bisect_right(self._stamps, stamp + AROUND), after + 1)
        track = OdometryTrack(np.array(self._stamps[first:last], np.int64), np.stack(self._poses[first:last]))
        return track.at(stamp), track.velocity(stamp)

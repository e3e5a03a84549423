"""Scan after scan: predict by calibrated odometry, register to the local map, look further when the match is poor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.native import plain, se3
from dsg_ros.mapping.local_map import LocalMap, LocalMapper

Prediction = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Calibrated increment (7,) and its standard deviations (6,)."""


@dataclass(frozen=True)
class Tracked:
    """``pose`` (7,) base in map; ``own`` (7,) the scan's opinion of it, without the odometry's.

    ``information`` (6, 6) is that of ``own``, ``innovation`` (6,) the tangent from the predicted pose to it and
    ``sigmas`` (6,) the prediction's deviations [m, rad].
    """

    pose: NDArray[np.float64]
    own: NDArray[np.float64]
    information: NDArray[np.float64]
    innovation: NDArray[np.float64]
    sigmas: NDArray[np.float64]
    inliers: float
    restarted: bool


class Tracker:
    """Keeps the pose of the last scan and the local map it is matched to.

    ``predict(increment, seconds)`` maps a measured odometry increment to the calibrated one and its deviations.
    """

    def __init__(
        self, settings: config.Slam, mapper: LocalMapper, predict: Callable[[NDArray[np.float64], float], Prediction]
    ) -> None:
        self._settings = settings
        self._mapper = mapper
        self._predict = predict
        self._map: LocalMap | None = None
        self._odometry: NDArray[np.float64] | None = None
        self._stamp = 0
        self.pose = poses.IDENTITY.copy()
        self.counts = {"restarts_tried": 0, "restarts_taken": 0, "scans_on_odometry_alone": 0}

    def set_map(self, local_map: LocalMap) -> None:
        """Match the scans to come against ``local_map``."""
        self._map = local_map

    def move(self, pose: NDArray[np.float64]) -> None:
        """Correct the pose of the last scan (after a solve)."""
        self.pose = pose

    def track(self, points: NDArray[np.float64], odometry: NDArray[np.float64], stamp: int) -> Tracked:
        """Pose of a scan of ``points`` (n, 3) in the base frame, taken at ``stamp`` [ns] and raw ``odometry`` (7,)."""
        odometry = plain(odometry)
        if self._odometry is None:
            measured, seconds = poses.IDENTITY.copy(), 0.0
        else:
            # Stamps of some logs run backwards; an increment over no time has no bias, all that time is used for.
            measured, seconds = se3.between(self._odometry, odometry), max(0.0, (stamp - self._stamp) * 1e-9)
        self._odometry, self._stamp = odometry, stamp
        increment, sigmas = self._predict(measured, seconds)
        prediction = se3.compose(self.pose, increment)
        tracked = self._match(points, prediction, increment, sigmas)
        self.pose = tracked.pose
        return tracked

    def _match(
        self,
        points: NDArray[np.float64],
        prediction: NDArray[np.float64],
        increment: NDArray[np.float64],
        sigmas: NDArray[np.float64],
    ) -> Tracked:
        s = self._settings.registration
        if self._map is None or len(points) < s.least_points:
            if self._map is not None:
                self.counts["scans_on_odometry_alone"] += 1
            return Tracked(prediction, prediction, np.zeros((6, 6)), np.zeros(6), sigmas, 0.0, False)
        prior = np.diag(1.0 / sigmas**2)
        match = self._mapper.register(self._map, points, prediction[None], prediction, prior)
        restarted = False
        if match.inliers < s.restart_below:
            self.counts["restarts_tried"] += 1
            starts = self._mapper.restarts(prediction, increment)
            other = self._mapper.register(self._map, points, starts, prediction, prior * s.restart_prior)
            if other.inliers > max(s.restart_least, match.inliers + s.restart_gain):
                self.counts["restarts_taken"] += 1
                match, restarted = other, True
        own, information, innovation = self._mapper.opinion(match, prediction, prior)
        return Tracked(match.pose, own, information, innovation, sigmas, match.inliers, restarted)

"""The map around the robot at two resolutions, and the registration of scans to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.native import plain
from dsg_ros.mapping import opinion_kernel, registration, voxel_kernels, voxel_map
from dsg_ros.mapping.range_noise import RangeNoise

DOUBT = 8
"""Power of the inlier share by which a match's variance grows.  By real logs, indoors and out: 4 leaves what is matched
outdoors too sure, and 16 makes it worthless."""

LEAST_INLIERS = 0.05
"""A smaller inlier share counts as this."""

WIDTH = 2.5
"""Deviations of the ranges' noise within which a point is an inlier, where that is farther than the inlier distance: 99
of 100 are.
"""


@dataclass(frozen=True)
class LocalMap:
    """Voxel tables, ``coarse`` to find the way and ``fine`` to be precise."""

    coarse: voxel_map.VoxelTable
    fine: voxel_map.VoxelTable


def merged(trajectory: NDArray[np.float64], clouds: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Points (n, 3) of ``clouds``, each (., 3) in the frame of its pose of ``trajectory`` (k, 7), brought together."""
    if not clouds:
        return np.zeros((0, 3))
    counts = np.array([len(cloud) for cloud in clouds])
    return voxel_kernels.placed(np.concatenate(clouds), counts, plain(trajectory))


class LocalMapper:
    """Builds local maps and registers scans to them, for planar or spatial scans.

    ``range_noise`` is to hear the scans.
    """

    def __init__(self, settings: config.Registration, input_settings: config.Input, *, planar: bool) -> None:
        self._settings = settings
        self.planar = planar
        self.axes = registration.observed_axes(planar)
        self._indices = np.array(self.axes)
        # Those of a registration, for every scan.
        self._floors = self._variances(settings.floor_translation, settings.floor_rotation)
        self.capacity = input_settings.max_points
        self._starts = _restarts(settings)
        self.range_noise = RangeNoise()

    @property
    def least_points(self) -> int:
        """What has fewer points is not matched."""
        return self._settings.least_points

    @property
    def inlier_distance(self) -> float:
        """How near to its surface a point is an inlier [m]: with half of what a noisy scanner sees as outliers, every
        match would be in `doubt`.
        """
        return max(self._settings.inlier_distance, WIDTH * self.range_noise.deviation)

    def build(self, trajectory: NDArray[np.float64], clouds: Sequence[NDArray[np.float64]]) -> LocalMap:
        """Local map of keyframe ``clouds``, each (n, 3) in its own frame, at ``trajectory`` (k, 7)."""
        return self.build_from_points(merged(trajectory, clouds))

    def build_from_points(self, points: NDArray[np.float64]) -> LocalMap:
        """Local map of ``points`` (n, 3) in the frame the map is to have."""
        return self.complete(points, self.coarse(points))

    def coarse(self, points: NDArray[np.float64]) -> voxel_map.VoxelTable:
        """The coarse table of ``points`` (n, 3), which is there in a third of the time, for clouds in a sixth."""
        return self._table(points, self._settings.coarse_voxel)

    def complete(self, points: NDArray[np.float64], coarse: voxel_map.VoxelTable) -> LocalMap:
        """Local map of ``points`` (n, 3) that have this ``coarse`` table."""
        fine = self._table(points, self._settings.fine_voxel)
        if self.planar:
            voxel_map.borrow(fine, coarse)
        return LocalMap(coarse, fine)

    def _table(self, points: NDArray[np.float64], size: float) -> voxel_map.VoxelTable:
        s = self._settings
        return voxel_map.build(points, size, planar=self.planar, flatness=s.flatness, noise=s.noise)

    def register(
        self,
        local_map: LocalMap,
        points: NDArray[np.float64],
        starts: NDArray[np.float64],
        prediction: NDArray[np.float64],
        prior: NDArray[np.float64],
    ) -> registration.Match:
        """Match ``points`` (n, 3), in the base frame, from every pose of ``starts`` (s, 7).

        ``prior`` (6, 6) is the information of ``prediction`` (7,); zero lets the scan decide alone.
        """
        return registration.register(
            local_map.coarse, local_map.fine, points, starts, prediction, prior,
            axes=self._indices, inlier_distance=self.inlier_distance,
        )  # fmt: skip

    def opinion(
        self, match: registration.Match, prediction: NDArray[np.float64], prior: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], int, NDArray[np.float64]]:
        """What the scan of ``match`` says without the odometry: see `registration.opinion`."""
        return registration.opinion(match, prediction, prior, self._indices)

    def fan(self, base: NDArray[np.float64]) -> NDArray[np.float64]:
        """Starts (s, 7) around the pose ``base`` (7,): turned by up to `config.Registration.restart_angle` each way.

        Some robots turn far between two scans.
        """
        return poses.compose(base, self._starts)

    def doubt(self, inliers: float) -> float:
        """Share by which the variance of a match grows, for the points that the map does not explain.

        Where many do not fit (ramps, grass, crowds), those that do were chosen by a pose that is off as well: the
        error is far larger than the inliers' scatter tells.  Nothing up to `config.Registration.trusted_inliers`.
        """
        lacking = self._settings.trusted_inliers / max(inliers, LEAST_INLIERS)
        return max(1.0, lacking) ** DOUBT - 1.0

    def registration_information(self, information: NDArray[np.float64], inliers: float) -> NDArray[np.float64]:
        """`factor_information` of a scan matched to the map of the keyframes before it."""
        s = self._settings
        return self.factor_information(information, inliers, s.floor_translation, s.floor_rotation)

    def weighed(
        self,
        own: NDArray[np.float64],
        information: NDArray[np.float64],
        inliers: float,
        prediction: NDArray[np.float64],
        covariance: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pose (7,) between what the scan says, ``own`` (7,) with ``information`` (6, 6), and the ``prediction`` (7,)
        with ``covariance`` (6, 6); and its covariance.

        Here the scan's variance is its own, and `doubt` times that of its factor.
        """
        doubt = self.doubt(inliers)
        share = 1.0 / (1.0 + doubt / self._settings.discount)
        told = opinion_kernel.bounded(information, share, doubt * self._floors, self._indices)
        return opinion_kernel.weighed(own, told, plain(prediction), plain(covariance), self._indices)

    def factor_information(
        self, information: NDArray[np.float64], inliers: float, floor_translation: float, floor_rotation: float
    ) -> NDArray[np.float64]:
        """Information (6, 6) of a factor from a registration's: discounted (neighbouring points are not independent),
        bounded by floors [m], [rad] that stand for what the voxel model does not explain, and less what is in `doubt`.
        Unobserved axes stay zero.
        """
        floors = self._variances(floor_translation, floor_rotation)
        bounded = opinion_kernel.bounded(information, self._settings.discount, floors, self._indices)
        return bounded / (1.0 + self.doubt(inliers))

    def _variances(self, translation: float, rotation: float) -> NDArray[np.float64]:
        """Along the observed axes, of deviations [m], [rad]."""
        return np.where(self._indices < 3, translation, rotation) ** 2


def _restarts(settings: config.Registration) -> NDArray[np.float64]:
    count = int(np.floor(settings.restart_angle / settings.restart_step))
    return poses.from_planar(0.0, 0.0, np.arange(-count, count + 1) * settings.restart_step)

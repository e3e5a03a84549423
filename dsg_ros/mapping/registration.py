"""Registration of a scan to a local voxel map: point to distribution, Gauss-Newton, coarse to fine, odometry a prior.

The prediction (calibrated odometry) enters as a Gaussian prior on the pose; its information and that of the scan are
kept apart in the answer, so that a factor can be made of the scan's alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import plain
from dsg_ros.mapping import opinion_kernel
from dsg_ros.mapping import registration_kernel as kernel
from dsg_ros.mapping.voxel_map import VoxelTable

PLANAR_AXES = (0, 1, 5)
"""The tangent directions a planar scan observes: x, y, yaw."""

COARSE = kernel.Stage(kernel=0.3, spread=2.0, iterations=6, tolerance=2e-3)
FINE = kernel.Stage(kernel=0.1, spread=0.0, iterations=15, tolerance=1e-4)


class Match(NamedTuple):
    """``pose`` (7,) base in map; ``information`` (6, 6) of the scan alone at ``pose`` (right perturbation).

    ``inliers`` is the share of points closer than the inlier distance to their voxel's surface, ``error`` [m] their
    mean metric distance.
    """

    pose: NDArray[np.float64]
    information: NDArray[np.float64]
    inliers: float
    error: float


def register(
    coarse: VoxelTable,
    fine: VoxelTable,
    points: NDArray[np.float64],
    starts: NDArray[np.float64],
    prediction: NDArray[np.float64],
    prior: NDArray[np.float64],
    *,
    axes: NDArray[np.int64],
    inlier_distance: float,
) -> Match:
    """Match ``points`` (n, 3) from every pose of ``starts`` (s, 7); the best by inliers is given.

    ``prediction`` (7,) and ``prior`` (6, 6) are the odometry's pose and its information.  Points are in the base
    frame, poses are of the base in map; only the tangent directions ``axes`` move; ``inlier_distance`` in metres.  All
    starts go through the coarse stage; the one with most points near the map goes on to the fine one.
    """
    poses_and_points = (plain(points), plain(starts), plain(prediction), plain(prior))
    return Match(*kernel.register(coarse, fine, *poses_and_points, axes, COARSE, FINE, inlier_distance))


def observed_axes(planar: bool) -> tuple[int, ...]:
    """Tangent directions that registration may move."""
    return PLANAR_AXES if planar else tuple(range(6))


def scan_only(
    information: NDArray[np.float64],
    prediction_error: NDArray[np.float64],
    prior: NDArray[np.float64],
    axes: tuple[int, ...],
) -> tuple[NDArray[np.float64], NDArray[np.float64], int, NDArray[np.float64]]:
    """Take the prior out of a match: tangent (6,) from the MAP pose to the scan's own optimum, information (6, 6), how
    many directions were left to odometry and, as a tangent (6,) of length 1, the one the scan knows least of; zeros.

    With ``e`` (6,), ``prediction_error``, the tangent from prediction to MAP and ``d`` that from MAP to the scan's own
    optimum, the gradient of the sum vanishes at the MAP: ``H d = prior e``, for ``H`` the scan's ``information`` and
    ``prior`` (6, 6).  Directions in which the scan knows less than the prior does are left to odometry: their
    information is dropped and the mean is not moved along them.
    """
    return opinion_kernel.scan_only(information, prediction_error, prior, np.array(axes))


def opinion(
    match: Match, prediction: NDArray[np.float64], prior: NDArray[np.float64], axes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int, NDArray[np.float64]]:
    """What the scan alone says, by `scan_only` of a ``prediction`` (7,) with information ``prior`` (6, 6): its pose
    (7,), information (6, 6), the number of directions it leaves open and the widest of them (6,).
    """
    return opinion_kernel.opinion(match.pose, match.information, plain(prediction), plain(prior), axes)

"""The calibrated odometry of a single increment, for every scan, on the host: JAX's calls cost more than the work.

The linear map itself is that of `dsg_ros.core.factors.odometry`, evaluated once for each theta; a test compares the
two.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.factors.odometry import linear_map
from dsg_ros.core.native import se3
from dsg_ros.core.theta import Theta

Vector = NDArray[np.float64]


class IncrementModel:
    """Calibrated increment and its standard deviations under one theta."""

    def __init__(self, theta: Theta, noises: config.Odometry) -> None:
        rows = np.asarray(linear_map(theta))
        self._map = np.ascontiguousarray(rows[:6].T)
        self._bias = rows[6].copy()
        self._offset = float(theta.time_offset)
        growth = np.exp(np.asarray(theta.odometry_noise)).tolist()
        told_t = (noises.sigma_translation, noises.translation_per_metre, noises.translation_per_radian)
        told_r = (noises.sigma_rotation, noises.rotation_per_radian, noises.rotation_per_metre)
        self._translation = tuple(a * b for a, b in zip(told_t, growth[:3], strict=True))
        self._rotation = tuple(a * b for a, b in zip(told_r, growth[3:], strict=True))

    def in_time(self, odometry: Vector, velocity: Vector) -> Vector:
        """Odometry pose (7,) at the moment of a scan, from the one with its stamp and the ``velocity`` (6,) there."""
        if self._offset == 0.0:
            return odometry
        return se3.compose(odometry, se3.exp(self._offset * velocity))

    def predict(self, increment: Vector, seconds: float) -> tuple[Vector, Vector]:
        """Calibrated increment (7,) of a measured one (7,) over ``seconds``, and its deviations (6,) [m, rad]."""
        tangent = poses.log(increment)
        distance, turn = math.hypot(*tangent[:3].tolist()), math.hypot(*tangent[3:].tolist())
        t, r = self._translation, self._rotation
        translation = t[0] + t[1] * distance + t[2] * turn
        rotation = r[0] + r[1] * turn + r[2] * distance
        sigmas = np.array([translation, translation, translation, rotation, rotation, rotation])
        return poses.exp(self._map @ tangent + self._bias * seconds), sigmas


def rate(increment: Vector, before: Vector, after: Vector) -> Vector:
    """What the tangent of ``increment`` (7,) gains a second when both its ends are taken later, where the base moves at
    velocities ``before`` and ``after`` (6,): central differences over a hundredth of a second.
    """
    if not (before.any() or after.any()):
        return np.zeros(6)
    step = 0.005
    later, earlier = (
        se3.log(se3.compose(se3.compose(se3.exp(-h * before), increment), se3.exp(h * after))) for h in (step, -step)
    )
    return (later - earlier) / (2 * step)

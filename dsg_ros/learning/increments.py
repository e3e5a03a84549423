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
from dsg_ros.core.theta import Theta

Vector = NDArray[np.float64]


class IncrementModel:
    """Calibrated increment and its standard deviations under one theta."""

    def __init__(self, theta: Theta, noises: config.Odometry) -> None:
        rows = np.asarray(linear_map(theta))
        self._map = np.ascontiguousarray(rows[:6].T)
        self._bias = rows[6].copy()
        growth = np.exp(np.asarray(theta.odometry_noise)).tolist()
        told_t = (noises.sigma_translation, noises.translation_per_metre, noises.translation_per_radian)
        told_r = (noises.sigma_rotation, noises.rotation_per_radian, noises.rotation_per_metre)
        self._translation = tuple(a * b for a, b in zip(told_t, growth[:3], strict=True))
        self._rotation = tuple(a * b for a, b in zip(told_r, growth[3:], strict=True))

    def predict(self, increment: Vector, seconds: float) -> tuple[Vector, Vector]:
        """Calibrated increment (7,) of a measured one (7,) over ``seconds``, and its deviations (6,) [m, rad]."""
        tangent = poses.log(increment)
        distance, turn = math.hypot(*tangent[:3].tolist()), math.hypot(*tangent[3:].tolist())
        t, r = self._translation, self._rotation
        translation = t[0] + t[1] * distance + t[2] * turn
        rotation = r[0] + r[1] * turn + r[2] * distance
        sigmas = np.array([translation, translation, translation, rotation, rotation, rotation])
        return poses.exp(self._map @ tangent + self._bias * seconds), sigmas

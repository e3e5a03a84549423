"""The calibrated odometry of a single increment, for every scan: plain Python numbers, since arrays of six cost more
in calls.

The linear map itself is that of `dsg_ros.core.factors.odometry`, evaluated once for each theta; a test compares the
two.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros import config
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
        tangent = _log(increment.tolist())
        distance, turn = math.hypot(*tangent[:3]), math.hypot(*tangent[3:])
        t, r = self._translation, self._rotation
        translation = t[0] + t[1] * distance + t[2] * turn
        rotation = r[0] + r[1] * turn + r[2] * distance
        mapped = (self._map @ tangent + self._bias * seconds).tolist()
        sigmas = np.array([translation, translation, translation, rotation, rotation, rotation])
        return np.array(_exp(mapped)), sigmas


def _cross(a: list[float], b: list[float]) -> list[float]:
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def _log(pose: list[float]) -> list[float]:
    """As `dsg_ros.poses.log`."""
    t, axis, w = pose[:3], pose[3:6], pose[6]
    if w < 0:
        axis, w = [-a for a in axis], -w
    sine = math.hypot(*axis)
    angle = 2 * math.atan2(sine, w)
    factor = 2.0 if sine < 1e-12 else angle / sine
    phi = [factor * a for a in axis]
    if angle < 1e-4:
        coefficient = 1 / 12 + angle**2 / 720
    else:
        coefficient = (1 - 0.5 * angle / math.tan(0.5 * angle)) / angle**2
    cross = _cross(phi, t)
    twice = _cross(phi, cross)
    return [t[i] - 0.5 * cross[i] + coefficient * twice[i] for i in range(3)] + phi


def _exp(tangent: list[float]) -> list[float]:
    """As `dsg_ros.poses.exp`."""
    rho, phi = tangent[:3], tangent[3:]
    angle = math.hypot(*phi)
    if angle < 1e-5:
        a, b, half = 0.5 - angle**2 / 24, 1 / 6 - angle**2 / 120, 0.5 - angle**2 / 48
    else:
        a, b = (1 - math.cos(angle)) / angle**2, (angle - math.sin(angle)) / angle**3
        half = math.sin(0.5 * angle) / angle
    cross = _cross(phi, rho)
    twice = _cross(phi, cross)
    translation = [rho[i] + a * cross[i] + b * twice[i] for i in range(3)]
    return [*translation, *(half * p for p in phi), math.cos(0.5 * angle)]

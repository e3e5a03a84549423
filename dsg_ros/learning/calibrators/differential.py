"""A closed-form start for a differential drive with a laser, after Censi, Franchi, Marchionni and Oriolo,
"Simultaneous calibration of odometry and sensor parameters for mobile robots", IEEE T-RO 29(2), 2013, section V.

With ``J21 = -r_left / axle`` and ``J22 = r_right / axle`` a step turns the robot, and the laser on it, by
``theta = J21 phi_left + J22 phi_right``: linear least squares.  Given these, the robot's translation is ``axle`` times
a known vector c, and the laser's pose l makes

    axle c + (R(theta) - 1) (l_x, l_y) = R(l_theta) s

for its translation s: linear in ``(axle, l_x, l_y, cos l_theta, sin l_theta)``, of which the last two are of unit
length.  Once the first three are eliminated, the constrained minimum is the smaller eigenvector of a 2x2 matrix (the
paper finds the constraint's multiplier as the root of a quadratic, which is that eigenvalue).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

ROUNDS, LEFT_OUT = 4, 0.02
"""Fits, each without this share of the steps that the one before explains worst: the paper's way with outliers."""
AXLE = 3.0
"""Wheel diameters in an axle, where nothing tells its length."""
_RIDGE = 1e-9
"""Share of the matrices' largest entries added to their diagonals: a drive that does not show all gives a start too."""


def closed_form(turned: Vector, moved: Vector) -> Vector:
    """Values (6,) ``axle, left diameter, right diameter, laser x, y, yaw``.

    ``turned`` (n, 2) are the wheels' angles [rad], ``moved`` (n, 3) the laser's planar motions [m, m, rad].

    A drive so straight that the wheels' turns tell noise alone gives wheels of one size, and a guess for the axle.
    """
    kept = np.ones(len(turned), bool)
    values = _solve(turned, moved)
    for _ in range(ROUNDS - 1):
        apart = np.abs(_difference(values, turned, moved))
        spread = np.maximum(np.median(apart[kept], axis=0), 1e-12)
        worst = (apart / spread).max(axis=1)
        kept = worst <= np.quantile(worst, 1 - LEFT_OUT)
        values = _solve(turned[kept], moved[kept])
    return values if np.isfinite(values).all() and values[:3].min() > 0 else _straight_on(turned, moved)


def _straight_on(turned: Vector, moved: Vector) -> Vector:
    """Values (6,) of a robot with equal wheels that only drives straight on, with a laser in its centre."""
    rolled = turned.mean(axis=1)
    x, y = rolled @ moved[:, :2] / (rolled @ rolled)
    diameter = 2 * math.hypot(x, y)
    return np.array([AXLE * diameter, diameter, diameter, 0.0, 0.0, math.atan2(-y, x)])


def _solve(turned: Vector, moved: Vector) -> Vector:
    normal = turned.T @ turned
    j21, j22 = np.linalg.solve(normal + _RIDGE * np.trace(normal) * np.eye(2), turned.T @ moved[:, 2])
    theta = turned @ [j21, j22]
    # A constant turn over the step: forward sin(theta)/theta, sideways (1 - cos(theta))/theta.
    along, across = np.sinc(theta / np.pi), 0.5 * theta * np.sinc(0.5 * theta / np.pi) ** 2
    way = 0.5 * (turned @ [-j21, j22])
    one, sine = 1 - np.cos(theta), np.sin(theta)
    x, y = moved[:, 0], moved[:, 1]
    rows = np.concatenate(
        [np.stack([way * along, -one, -sine, -x, y], axis=1), np.stack([way * across, sine, -one, -y, -x], axis=1)]
    )
    m = rows.T @ rows
    aa = m[:3, :3] + _RIDGE * np.trace(m[:3, :3]) * np.eye(3)
    eliminate = -np.linalg.solve(aa, m[:3, 3:])
    reduced = m[3:, 3:] + m[3:, :3] @ eliminate
    direction = np.linalg.eigh(0.5 * (reduced + reduced.T))[1][:, 0]
    size = eliminate @ direction
    if size[0] < 0:  # a laser the other way round sees a robot of negative size: the sign is free
        direction, size = -direction, -size
    axle = size[0]
    return np.array([axle, -2 * j21 * axle, 2 * j22 * axle, size[1], size[2], math.atan2(direction[1], direction[0])])


def _difference(values: Vector, turned: Vector, moved: Vector) -> Vector:
    """Foretold minus seen motion of the laser (n, 3)."""
    axle, left, right, lx, ly, yaw = values
    theta = 0.5 * (right * turned[:, 1] - left * turned[:, 0]) / axle
    way = 0.25 * (right * turned[:, 1] + left * turned[:, 0])
    x = way * np.sinc(theta / np.pi) + (np.cos(theta) - 1) * lx - np.sin(theta) * ly
    y = way * 0.5 * theta * np.sinc(0.5 * theta / np.pi) ** 2 + np.sin(theta) * lx + (np.cos(theta) - 1) * ly
    c, s = math.cos(yaw), math.sin(yaw)
    return np.stack([c * x + s * y, c * y - s * x, theta], axis=1) - moved

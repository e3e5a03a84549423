"""SE(3) for compiled kernels: the conventions of `dsg_ros.poses`, for single poses; a test compares the two."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled

Array = NDArray[np.float64]


@compiled
def rotation_matrix(pose: Array) -> Array:
    """(3, 3) of a pose (7,)."""
    x, y, z, w = pose[3], pose[4], pose[5], pose[6]
    out = np.empty((3, 3))
    out[0, 0] = 1.0 - 2.0 * (y * y + z * z)
    out[0, 1] = 2.0 * (x * y - z * w)
    out[0, 2] = 2.0 * (x * z + y * w)
    out[1, 0] = 2.0 * (x * y + z * w)
    out[1, 1] = 1.0 - 2.0 * (x * x + z * z)
    out[1, 2] = 2.0 * (y * z - x * w)
    out[2, 0] = 2.0 * (x * z - y * w)
    out[2, 1] = 2.0 * (y * z + x * w)
    out[2, 2] = 1.0 - 2.0 * (x * x + y * y)
    return out


@compiled
def _cross(a: Array, b: Array) -> Array:
    out = np.empty(3)
    out[0] = a[1] * b[2] - a[2] * b[1]
    out[1] = a[2] * b[0] - a[0] * b[2]
    out[2] = a[0] * b[1] - a[1] * b[0]
    return out


@compiled
def rotate(quaternion: Array, vector: Array) -> Array:
    """``vector`` (3,) turned by ``quaternion`` (4,) [x y z w]."""
    axis = quaternion[:3]
    turned = 2.0 * _cross(axis, vector)
    return vector + quaternion[3] * turned + _cross(axis, turned)


@compiled
def _multiply(a: Array, b: Array) -> Array:
    out = np.empty(4)
    out[0] = a[3] * b[0] + a[0] * b[3] + a[1] * b[2] - a[2] * b[1]
    out[1] = a[3] * b[1] - a[0] * b[2] + a[1] * b[3] + a[2] * b[0]
    out[2] = a[3] * b[2] + a[0] * b[1] - a[1] * b[0] + a[2] * b[3]
    out[3] = a[3] * b[3] - a[0] * b[0] - a[1] * b[1] - a[2] * b[2]
    return out / math.sqrt(out[0] ** 2 + out[1] ** 2 + out[2] ** 2 + out[3] ** 2)


@compiled
def compose(a: Array, b: Array) -> Array:
    """``a_from_c`` (7,) of ``a_from_b`` and ``b_from_c``."""
    out = np.empty(7)
    out[:3] = a[:3] + rotate(a[3:], b[:3])
    out[3:] = _multiply(a[3:], b[3:])
    return out


@compiled
def between(a: Array, b: Array) -> Array:
    """``inverse(a) * b`` (7,)."""
    back = a[3:].copy()
    back[:3] *= -1.0
    out = np.empty(7)
    out[:3] = rotate(back, b[:3] - a[:3])
    out[3:] = _multiply(back, b[3:])
    return out


@compiled
def carried(relative: Array, covariance: Array) -> Array:
    """``covariance`` (6, 6) of a pose as that of the pose at ``relative`` (7,) to it, each in its own tangent.

    ``Ad C Ad^T`` with the adjoint of the inverse, ``[R^T, -R^T [t]x; 0, R^T]`` (Sola et al., eq. 175).
    """
    turn, t = rotation_matrix(relative), relative[:3]
    adjoint = np.zeros((6, 6))
    for i in range(3):
        a, b, c = turn[0, i], turn[1, i], turn[2, i]
        adjoint[i, 0] = adjoint[3 + i, 3] = a
        adjoint[i, 1] = adjoint[3 + i, 4] = b
        adjoint[i, 2] = adjoint[3 + i, 5] = c
        adjoint[i, 3], adjoint[i, 4], adjoint[i, 5] = c * t[1] - b * t[2], a * t[2] - c * t[0], b * t[0] - a * t[1]
    once, out = np.zeros((6, 6)), np.zeros((6, 6))
    for i in range(6):
        for k in range(6):
            for j in range(6):
                once[i, j] += adjoint[i, k] * covariance[k, j]
    for i in range(6):
        for j in range(6):
            for k in range(6):
                out[i, j] += once[i, k] * adjoint[j, k]
    return out


@compiled
def exp(tangent: Array) -> Array:
    """Pose (7,) of a tangent (6,) (Sola et al., "A micro Lie theory", 2018, eq. 172-174)."""
    rho, phi = tangent[:3], tangent[3:]
    angle = math.sqrt(phi[0] ** 2 + phi[1] ** 2 + phi[2] ** 2)
    if angle < 1e-5:
        a, b, half = 0.5 - angle**2 / 24, 1 / 6 - angle**2 / 120, 0.5 - angle**2 / 48
    else:
        a, b = (1 - math.cos(angle)) / angle**2, (angle - math.sin(angle)) / angle**3
        half = math.sin(0.5 * angle) / angle
    turned = _cross(phi, rho)
    out = np.empty(7)
    out[:3] = rho + a * turned + b * _cross(phi, turned)
    out[3:6] = half * phi
    out[6] = math.cos(0.5 * angle)
    return out


@compiled
def log(pose: Array) -> Array:
    """Tangent (6,) of a pose (7,); the inverse of `exp` for rotations below pi."""
    sign = -1.0 if pose[6] < 0 else 1.0
    axis = sign * pose[3:6]
    sine = math.sqrt(axis[0] ** 2 + axis[1] ** 2 + axis[2] ** 2)
    angle = 2.0 * math.atan2(sine, sign * pose[6])
    out = np.empty(6)
    out[3:] = axis * (2.0 if sine < 1e-12 else angle / sine)
    phi, t = out[3:], pose[:3]
    if angle < 1e-4:
        coefficient = 1 / 12 + angle**2 / 720
    else:
        coefficient = (1 - 0.5 * angle / math.tan(0.5 * angle)) / angle**2
    turned = _cross(phi, t)
    out[:3] = t - 0.5 * turned + coefficient * _cross(phi, turned)
    return out

"""Differences of poses and steps along tangents in compiled loops, into room that is there: rows allocate nothing.

The closed forms of `dsg_ros.core.geometry`; `se3` has those that return what they find.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@compiled
def relative_pose(first: Floats, second: Floats, out: Floats) -> None:
    """``first^-1 second`` as rotation quaternion and translation, in the layout of a pose."""
    ax, ay, az, aw = -first[3], -first[4], -first[5], first[6]
    bx, by, bz, bw = second[3], second[4], second[5], second[6]
    out[3] = aw * bx + ax * bw + ay * bz - az * by
    out[4] = aw * by - ax * bz + ay * bw + az * bx
    out[5] = aw * bz + ax * by - ay * bx + az * bw
    out[6] = aw * bw - ax * bx - ay * by - az * bz
    x, y, z = second[0] - first[0], second[1] - first[1], second[2] - first[2]
    tx, ty, tz = 2 * (ay * z - az * y), 2 * (az * x - ax * z), 2 * (ax * y - ay * x)
    out[0] = x + aw * tx + ay * tz - az * ty
    out[1] = y + aw * ty + az * tx - ax * tz
    out[2] = z + aw * tz + ax * ty - ay * tx


@compiled
def logarithm(pose: Floats, out: Floats) -> tuple[float, float]:
    """Tangent of a pose; returns ``c = 1/a^2 - cot(a/2) / (2 a)`` and its derivative in ``a^2``."""
    sign = -1.0 if pose[6] < 0 else 1.0
    vx, vy, vz, w = sign * pose[3], sign * pose[4], sign * pose[5], sign * pose[6]
    squared = vx * vx + vy * vy + vz * vz
    if squared < 0.0055:
        y = squared / (w * w)
        ratio = 2.0 / w * (1 + y * (-1 / 3 + y * (1 / 5 + y * (-1 / 7 + y * (1 / 9 + y * (-1 / 11 + y * (1 / 13)))))))
        x = ratio * ratio * squared
        c = 1 / 12 + x * (1 / 720 + x * (1 / 30240 + x * (1 / 1209600 + x * (1 / 47900160))))
        slope = 1 / 720 + x * (2 / 30240 + x * (3 / 1209600 + x * (4 / 47900160)))
    else:
        sine = math.sqrt(squared)
        angle = 2.0 * math.atan2(sine, w)
        ratio = angle / sine
        cotangent = angle * w / sine
        x = angle * angle
        c = (1.0 - 0.5 * cotangent) / x
        slope = (0.125 * ratio * ratio + 0.25 * cotangent - 1.0) / (x * x)
    wx, wy, wz = ratio * vx, ratio * vy, ratio * vz
    tx, ty, tz = pose[0], pose[1], pose[2]
    cx, cy, cz = wy * tz - wz * ty, wz * tx - wx * tz, wx * ty - wy * tx
    out[0] = tx - 0.5 * cx + c * (wy * cz - wz * cy)
    out[1] = ty - 0.5 * cy + c * (wz * cx - wx * cz)
    out[2] = tz - 0.5 * cz + c * (wx * cy - wy * cx)
    out[3], out[4], out[5] = wx, wy, wz
    return c, slope


@compiled
def tangent_between(first: Floats, second: Floats, out: Floats) -> None:
    """``log(first^-1 second)`` into ``out`` (6,)."""
    relative = np.empty(7)
    relative_pose(first, second, relative)
    logarithm(relative, out)


@compiled
def log_jacobian(pose: Floats, error: Floats, jacobian: Floats) -> None:
    """`log_jlog` of `dsg_ros.core.geometry`: error (6,) and its derivative (6, 6) under a right perturbation."""
    c, slope = logarithm(pose, error)
    wx, wy, wz = error[3], error[4], error[5]
    tx, ty, tz = pose[0], pose[1], pose[2]
    x = wx * wx + wy * wy + wz * wz
    dot = wx * tx + wy * ty + wz * tz
    r00, r01, r02 = 1 + c * (wx * wx - x), -0.5 * wz + c * wx * wy, 0.5 * wy + c * wx * wz
    r10, r11, r12 = 0.5 * wz + c * wx * wy, 1 + c * (wy * wy - x), -0.5 * wx + c * wy * wz
    r20, r21, r22 = -0.5 * wy + c * wx * wz, 0.5 * wx + c * wy * wz, 1 + c * (wz * wz - x)
    ux = 2 * slope * (dot * wx - x * tx) - 2 * c * tx
    uy = 2 * slope * (dot * wy - x * ty) - 2 * c * ty
    uz = 2 * slope * (dot * wz - x * tz) - 2 * c * tz
    t00, t01, t02 = c * (dot + wx * tx) + ux * wx, -0.5 * tz + c * wx * ty + ux * wy, 0.5 * ty + c * wx * tz + ux * wz
    t10, t11, t12 = 0.5 * tz + c * wy * tx + uy * wx, c * (dot + wy * ty) + uy * wy, -0.5 * tx + c * wy * tz + uy * wz
    t20, t21, t22 = -0.5 * ty + c * wz * tx + uz * wx, 0.5 * tx + c * wz * ty + uz * wy, c * (dot + wz * tz) + uz * wz
    jacobian[0, 0], jacobian[0, 1], jacobian[0, 2] = r00, r01, r02
    jacobian[1, 0], jacobian[1, 1], jacobian[1, 2] = r10, r11, r12
    jacobian[2, 0], jacobian[2, 1], jacobian[2, 2] = r20, r21, r22
    jacobian[3, 3], jacobian[3, 4], jacobian[3, 5] = r00, r01, r02
    jacobian[4, 3], jacobian[4, 4], jacobian[4, 5] = r10, r11, r12
    jacobian[5, 3], jacobian[5, 4], jacobian[5, 5] = r20, r21, r22
    jacobian[0, 3] = t00 * r00 + t01 * r10 + t02 * r20
    jacobian[0, 4] = t00 * r01 + t01 * r11 + t02 * r21
    jacobian[0, 5] = t00 * r02 + t01 * r12 + t02 * r22
    jacobian[1, 3] = t10 * r00 + t11 * r10 + t12 * r20
    jacobian[1, 4] = t10 * r01 + t11 * r11 + t12 * r21
    jacobian[1, 5] = t10 * r02 + t11 * r12 + t12 * r22
    jacobian[2, 3] = t20 * r00 + t21 * r10 + t22 * r20
    jacobian[2, 4] = t20 * r01 + t21 * r11 + t22 * r21
    jacobian[2, 5] = t20 * r02 + t21 * r12 + t22 * r22
    jacobian[3:, :3] = 0.0


@compiled
def rotation(pose: Floats, out: Floats) -> None:
    """The matrix (3, 3) of a pose's quaternion."""
    x, y, z, w = pose[3], pose[4], pose[5], pose[6]
    out[0, 0], out[0, 1], out[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)
    out[1, 0], out[1, 1], out[1, 2] = 2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)
    out[2, 0], out[2, 1], out[2, 2] = 2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)


@compiled
def moved(pose: Floats, tangent: Floats, out: Floats) -> None:
    """``pose * exp(tangent)`` with a unit quaternion (Sola et al., "A micro Lie theory", 2018, eq. 172-174)."""
    px, py, pz = tangent[3], tangent[4], tangent[5]
    rx, ry, rz = tangent[0], tangent[1], tangent[2]
    x = px * px + py * py + pz * pz
    if x < 0.0225:
        half = 1 / 2 + x * (-1 / 48 + x * (1 / 3840 + x * (-1 / 645120)))
        w = 1 + x * (-1 / 8 + x * (1 / 384 + x * (-1 / 46080 + x * (1 / 10321920))))
        third = 1 / 6 + x * (-1 / 120 + x * (1 / 5040 + x * (-1 / 362880)))
    else:
        angle = math.sqrt(x)
        half, w = math.sin(0.5 * angle) / angle, math.cos(0.5 * angle)
        third = (1 - 2 * half * w) / x
    second = 2 * half * half
    cx, cy, cz = py * rz - pz * ry, pz * rx - px * rz, px * ry - py * rx
    vx = rx + second * cx + third * (py * cz - pz * cy)
    vy = ry + second * cy + third * (pz * cx - px * cz)
    vz = rz + second * cz + third * (px * cy - py * cx)
    qx, qy, qz = half * px, half * py, half * pz
    ax, ay, az, aw = pose[3], pose[4], pose[5], pose[6]
    tx, ty, tz = 2 * (ay * vz - az * vy), 2 * (az * vx - ax * vz), 2 * (ax * vy - ay * vx)
    out[0] = pose[0] + vx + aw * tx + ay * tz - az * ty
    out[1] = pose[1] + vy + aw * ty + az * tx - ax * tz
    out[2] = pose[2] + vz + aw * tz + ax * ty - ay * tx
    ox = aw * qx + ax * w + ay * qz - az * qy
    oy = aw * qy - ax * qz + ay * w + az * qx
    oz = aw * qz + ax * qy - ay * qx + az * w
    ow = aw * w - ax * qx - ay * qy - az * qz
    norm = 1.0 / math.sqrt(ox * ox + oy * oy + oz * oz + ow * ow)
    out[3], out[4], out[5], out[6] = ox * norm, oy * norm, oz * norm, ow * norm


@compiled
def pull_back(poses: Floats, cotangent: Floats, out: Floats) -> None:
    """Gradient into ``out`` (n, 6), in the tangents of ``poses`` (n, 7) at zero, of a function with gradient
    ``cotangent`` (n, 7) in their numbers.

    exp turns the quaternion by ``q * (phi, 0) / 2``; the adjoint of multiplying by q is multiplying by its conjugate.
    """
    for i in range(len(poses)):
        x, y, z, w = -poses[i, 3], -poses[i, 4], -poses[i, 5], poses[i, 6]
        a, b, c = cotangent[i, 0], cotangent[i, 1], cotangent[i, 2]
        tx, ty, tz = 2 * (y * c - z * b), 2 * (z * a - x * c), 2 * (x * b - y * a)
        out[i, 0] = a + w * tx + y * tz - z * ty
        out[i, 1] = b + w * ty + z * tx - x * tz
        out[i, 2] = c + w * tz + x * ty - y * tx
        p, q, r, s = cotangent[i, 3], cotangent[i, 4], cotangent[i, 5], cotangent[i, 6]
        out[i, 3] = 0.5 * (w * p + x * s + y * r - z * q)
        out[i, 4] = 0.5 * (w * q - x * r + y * s + z * p)
        out[i, 5] = 0.5 * (w * r + x * q - y * p + z * s)


@compiled
def retract(poses: Floats, axes: Ints, step: Floats, offset: Ints, out: Floats) -> None:
    """``out`` (n, 7): poses moved by the part of ``step`` at their ``offset`` (-1: held), along ``axes``."""
    tangent = np.empty(6)
    for i in range(len(poses)):
        if offset[i] < 0:
            out[i] = poses[i]
            continue
        tangent[:] = 0.0
        for k in range(len(axes)):
            tangent[axes[k]] = step[offset[i] + k]
        moved(poses[i], tangent, out[i])

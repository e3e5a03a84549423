"""Linearisation of rows in compiled loops: the closed forms of `dsg_ros.core.geometry` and the kernels of
`dsg_ros.core.factors.base`, for the few forms that all factor types come down to once theta is given.

A row's cost is ``0.5 weight rho(|W e|^2)``; its Hessian is Gauss-Newton's, both scaled by the kernel's weight.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@compiled
def robust(kernel: int, width: float, s: float) -> tuple[float, float]:
    """``rho(s)`` and ``rho'(s)``: as `dsg_ros.core.factors.base.robust` and `robust_weight`."""
    c2 = width * width
    if kernel == 1:
        if s <= c2:
            return s, 1.0
        root = math.sqrt(s)
        return 2.0 * width * root - c2, width / root
    if kernel == 2:
        return c2 * math.log1p(s / c2), c2 / (c2 + s)
    if kernel == 3:
        share = c2 / (c2 + s)
        return s * share, share * share
    if kernel == 4:
        if s <= c2:
            return s, 1.0
        share = 2.0 * c2 / (c2 + s)
        return c2 * (3.0 * s - c2) / (c2 + s), share * share
    return s, 1.0


LEAST_PRODUCT = 1e-100
"""Where `robust_sum` takes the logarithm: the next row can be 1e100 kernel widths away before anything underflows."""


@compiled
def robust_sum(kernel: int, width: float, weight: float, s: float, pending: Floats) -> tuple[float, float]:
    """What can be added to a sum of ``weight rho(s)`` over rows, and ``rho'(s)``.

    A logarithm takes as long as all else that a sighting costs.  So those of Cauchy's kernel are taken of the product
    of many rows, kept with their common factor in ``pending`` (2,), which begins as (0, 1) and ends with `pending_sum`.
    """
    if kernel != 2:
        value, slope = robust(kernel, width, s)
        return weight * value, slope
    c2, due = width * width, 0.0
    slope = c2 / (c2 + s)
    if pending[0] != weight * c2 or not pending[1] > LEAST_PRODUCT:
        due = pending_sum(pending)
        pending[0], pending[1] = weight * c2, 1.0
    pending[1] *= slope
    return due, slope


@compiled
def pending_sum(pending: Floats) -> float:
    """What rows have left to their sum."""
    return -pending[0] * math.log(pending[1])


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
def _log_jacobian(pose: Floats, error: Floats, jacobian: Floats) -> None:
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
def cost_of(whitened: Floats, rows: int, weight: float, kernel: int, width: float) -> float:
    """Cost of a row from its whitened error."""
    squared = 0.0
    for i in range(rows):
        squared += whitened[i] * whitened[i]
    return 0.5 * weight * robust(kernel, width, squared)[0]


@compiled
def finish(
    whitened: Floats, jacobian: Floats, rows: int, columns: int, weight: float, kernel: int, width: float,
    hessian: Floats, gradient: Floats,
) -> float:  # fmt: skip
    """Cost of a row, and its scaled Hessian and gradient from whitened error (rows,) and Jacobian (rows, columns)."""
    squared = 0.0
    for i in range(rows):
        squared += whitened[i] * whitened[i]
    value, slope = robust(kernel, width, squared)
    scale = weight * slope
    for a in range(columns):
        total = 0.0
        for i in range(rows):
            total += jacobian[i, a] * whitened[i]
        gradient[a] = scale * total
    for a in range(columns):
        for b in range(a + 1):
            total = 0.0
            for i in range(rows):
                total += jacobian[i, a] * jacobian[i, b]
            hessian[a, b] = hessian[b, a] = scale * total
    return 0.5 * weight * value


class Scratch(NamedTuple):
    """Room for what a row is made of, so that rows allocate nothing."""

    relative: Floats
    difference: Floats
    error: Floats
    by_second: Floats
    turn: Floats
    both: Floats


@compiled
def scratch() -> Scratch:
    """New room for `relative_row` and `voxel_row`."""
    return Scratch(np.empty(7), np.empty(7), np.empty(6), np.empty((6, 6)), np.empty((3, 3)), np.zeros((6, 12)))


@compiled
def relative_error(
    first: Floats, second: Floats, measured: Floats, root: Floats, room: Scratch, whitened: Floats
) -> None:
    """``root log(measured^-1 first^-1 second)`` into ``whitened`` (6,)."""
    relative_pose(first, second, room.relative)
    relative_pose(measured, room.relative, room.difference)
    logarithm(room.difference, room.error)
    for i in range(6):
        whitened[i] = 0.0
        for k in range(6):
            whitened[i] += root[i, k] * room.error[k]


@compiled
def relative_row(
    first: Floats, second: Floats, measured: Floats, root: Floats, axes: Ints, room: Scratch, whitened: Floats,
    jacobian: Floats,
) -> None:  # fmt: skip
    """That, and its derivatives (6, 2 d) along the ``axes`` of the first pose, then of the second."""
    relative, error, by_second, turn, both = room.relative, room.error, room.by_second, room.turn, room.both
    d = len(axes)
    relative_pose(first, second, relative)
    relative_pose(measured, relative, room.difference)
    _log_jacobian(room.difference, error, by_second)
    # -by_second Ad(relative^-1), with Ad(T^-1) = [R^T, -R^T [t]x; 0, R^T].
    rotation(relative, turn)
    tx, ty, tz = relative[0], relative[1], relative[2]
    for i in range(6):
        a0, a1, a2 = by_second[i, 0], by_second[i, 1], by_second[i, 2]
        b0, b1, b2 = by_second[i, 3], by_second[i, 4], by_second[i, 5]
        x = a0 * turn[0, 0] + a1 * turn[0, 1] + a2 * turn[0, 2]
        y = a0 * turn[1, 0] + a1 * turn[1, 1] + a2 * turn[1, 2]
        z = a0 * turn[2, 0] + a1 * turn[2, 1] + a2 * turn[2, 2]
        both[i, 0], both[i, 1], both[i, 2] = -x, -y, -z
        both[i, 3] = -(b0 * turn[0, 0] + b1 * turn[0, 1] + b2 * turn[0, 2]) + (y * tz - z * ty)
        both[i, 4] = -(b0 * turn[1, 0] + b1 * turn[1, 1] + b2 * turn[1, 2]) + (z * tx - x * tz)
        both[i, 5] = -(b0 * turn[2, 0] + b1 * turn[2, 1] + b2 * turn[2, 2]) + (x * ty - y * tx)
        for j in range(6):
            both[i, 6 + j] = by_second[i, j]
    for i in range(6):
        whitened[i] = 0.0
        for k in range(6):
            whitened[i] += root[i, k] * error[k]
        for a in range(d):
            total, other = 0.0, 0.0
            for k in range(6):
                total += root[i, k] * both[k, axes[a]]
                other += root[i, k] * both[k, 6 + axes[a]]
            jacobian[i, a], jacobian[i, d + a] = total, other


@compiled
def relative_poses(
    poses: Floats, keys: Ints, measured: Floats, roots: Floats, weights: Floats, kernels: NDArray[np.int32],
    widths: Floats, axes: Ints, chosen: Ints, hessian: Floats, gradient: Floats, costs: Floats,
) -> None:  # fmt: skip
    """Rows ``log(measured^-1 first^-1 second)`` whitened by ``roots`` (r, 6, 6), of the rows ``chosen``.

    ``keys`` (r, 2) are rows of ``poses``.  A Hessian's numbers are the ``axes`` of the first pose, then of the second.
    """
    room, columns = scratch(), 2 * len(axes)
    whitened, jacobian = np.empty(6), np.empty((6, columns))
    for n in range(len(chosen)):
        r = chosen[n]
        relative_row(
            poses[keys[r, 0]], poses[keys[r, 1]], measured[r], roots[r], axes, room, whitened, jacobian
        )  # fmt: skip
        costs[r] = finish(
            whitened, jacobian, 6, columns, weights[r], kernels[r], widths[r], hessian[r], gradient[r]
        )  # fmt: skip


@compiled
def pose_priors(
    poses: Floats, keys: Ints, means: Floats, roots: Floats, weights: Floats, kernels: NDArray[np.int32],
    widths: Floats, axes: Ints, chosen: Ints, hessian: Floats, gradient: Floats, costs: Floats,
) -> None:  # fmt: skip
    """Rows ``log(mean^-1 pose)``, otherwise as `relative_poses`; ``keys`` (r, 1)."""
    difference, error, w = np.empty(7), np.empty(6), np.empty(6)
    jacobian, d = np.empty((6, 6)), len(axes)
    white = np.empty((6, d))
    for n in range(len(chosen)):
        r = chosen[n]
        relative_pose(means[r], poses[keys[r, 0]], difference)
        _log_jacobian(difference, error, jacobian)
        for i in range(6):
            w[i] = 0.0
            for k in range(6):
                w[i] += roots[r, i, k] * error[k]
            for a in range(d):
                total = 0.0
                for k in range(6):
                    total += roots[r, i, k] * jacobian[k, axes[a]]
                white[i, a] = total
        costs[r] = finish(w, white, 6, d, weights[r], kernels[r], widths[r], hessian[r], gradient[r])


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
def voxel_error(
    pose: Floats, voxel: Floats, point: Floats, root: Floats, room: Scratch, whitened: Floats
) -> None:  # fmt: skip
    """``root (pose^-1 voxel - point)`` into ``whitened`` (3,)."""
    turn, error = room.turn, room.error
    rotation(pose, turn)
    x, y, z = voxel[0] - pose[0], voxel[1] - pose[1], voxel[2] - pose[2]
    for i in range(3):
        error[i] = turn[0, i] * x + turn[1, i] * y + turn[2, i] * z - point[i]
    for i in range(3):
        whitened[i] = root[i, 0] * error[0] + root[i, 1] * error[1] + root[i, 2] * error[2]


@compiled
def voxel_row(
    pose: Floats, voxel: Floats, point: Floats, root: Floats, axes: Ints, room: Scratch, whitened: Floats,
    jacobian: Floats,
) -> None:  # fmt: skip
    """That, and its derivatives (3, d + 3) along the ``axes`` of the pose, then of the voxel."""
    turn, error, both, d = room.turn, room.error, room.both, len(axes)
    rotation(pose, turn)
    x, y, z = voxel[0] - pose[0], voxel[1] - pose[1], voxel[2] - pose[2]
    for i in range(3):
        error[i] = turn[0, i] * x + turn[1, i] * y + turn[2, i] * z
        both[i, :6] = 0.0
        both[i, i] = -1.0
        for j in range(3):
            both[i, 6 + j] = turn[j, i]
    px, py, pz = error[0], error[1], error[2]
    both[0, 4], both[0, 5] = -pz, py
    both[1, 3], both[1, 5] = pz, -px
    both[2, 3], both[2, 4] = -py, px
    for i in range(3):
        error[i] -= point[i]
    for i in range(3):
        whitened[i] = root[i, 0] * error[0] + root[i, 1] * error[1] + root[i, 2] * error[2]
        for a in range(d):
            k = axes[a]
            jacobian[i, a] = root[i, 0] * both[0, k] + root[i, 1] * both[1, k] + root[i, 2] * both[2, k]
        for k in range(3):
            jacobian[i, d + k] = root[i, 0] * both[0, 6 + k] + root[i, 1] * both[1, 6 + k] + root[i, 2] * both[2, 6 + k]


@compiled
def voxels_from_poses(
    poses: Floats, voxels: Floats, keys: Ints, points: Floats, roots: Floats, weights: Floats,
    kernels: NDArray[np.int32], widths: Floats, axes: Ints, chosen: Ints, hessian: Floats, gradient: Floats,
    costs: Floats,
) -> None:  # fmt: skip
    """Rows ``pose^-1 voxel - point`` whitened by ``roots`` (r, 3, 3); ``keys`` (r, 2) are a pose and a voxel."""
    room, columns = scratch(), len(axes) + 3
    whitened, jacobian = np.empty(3), np.empty((3, columns))
    for n in range(len(chosen)):
        r = chosen[n]
        voxel_row(
            poses[keys[r, 0]], voxels[keys[r, 1]], points[r], roots[r], axes, room, whitened, jacobian
        )  # fmt: skip
        costs[r] = finish(
            whitened, jacobian, 3, columns, weights[r], kernels[r], widths[r], hessian[r], gradient[r]
        )  # fmt: skip


@compiled
def voxel_priors(
    voxels: Floats, keys: Ints, points: Floats, roots: Floats, weights: Floats, kernels: NDArray[np.int32],
    widths: Floats, chosen: Ints, hessian: Floats, gradient: Floats, costs: Floats,
) -> None:  # fmt: skip
    """Rows ``voxel - point`` whitened by ``roots`` (r, 3, 3); ``keys`` (r, 1)."""
    w = np.empty(3)
    for n in range(len(chosen)):
        r = chosen[n]
        voxel = voxels[keys[r, 0]]
        for i in range(3):
            w[i] = 0.0
            for k in range(3):
                w[i] += roots[r, i, k] * (voxel[k] - points[r, k])
        costs[r] = finish(w, roots[r], 3, 3, weights[r], kernels[r], widths[r], hessian[r], gradient[r])

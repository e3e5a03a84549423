"""Linearisation of rows in compiled loops, for the few forms that all factor types come down to once theta is given.

What a robust kernel makes of them is in `robust`, where poses differ and move in `manifold`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.manifold import log_jacobian, logarithm, relative_pose, rotation
from dsg_ros.core.native.robust import finish

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
    log_jacobian(room.difference, error, by_second)
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
        log_jacobian(difference, error, jacobian)
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

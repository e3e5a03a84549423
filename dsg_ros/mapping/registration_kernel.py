"""The compiled loops of `dsg_ros.mapping.registration`: normal equations of a scan against a voxel table, and steps."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled, se3
from dsg_ros.core.native.cells import EMPTY, pack, slot_of
from dsg_ros.core.native.small import solve_positive
from dsg_ros.mapping.voxel_map import VoxelTable

Floats = NDArray[np.float64]


class Stage(NamedTuple):
    """One resolution: ``kernel`` [m] of the Geman-McClure weight, ``spread`` added to a point's sigma (in sigmas).

    ``iterations`` bounds the Gauss-Newton steps; they end when none of a step's numbers [m, rad] exceeds ``tolerance``.
    """

    kernel: float
    spread: float
    iterations: int
    tolerance: float


SLACK = 1e-9
"""How much nearer [m] a nearest voxel must be to be it for sure, whatever is lost by rounding."""


class Around(NamedTuple):
    """What is known of the table where each of n points was: to look 27 cells up, and to compare what is in them, takes
    longer than all else, and steps are small.

    The ``cell`` (n,) that a point was in, and the first ``found`` (n,) of ``rows`` (n, 27): the voxels there.  Of these
    ``nearest`` (n,) was nearest, or none if -1, when the point was at ``place`` (n, 3); it is nearest wherever the
    square of the way from there is below ``reach`` (n,).
    """

    cell: NDArray[np.int64]
    found: NDArray[np.int32]
    rows: NDArray[np.int32]
    nearest: NDArray[np.int32]
    place: Floats
    reach: Floats


@compiled
def _nowhere(points: int, planar: bool) -> Around:
    """Of so many ``points`` that no table was asked for yet."""
    rows, nearest = np.empty((points, 9 if planar else 27), np.int32), np.empty(points, np.int32)
    cell, found = np.full(points, EMPTY, np.int64), np.empty(points, np.int32)
    return Around(cell, found, rows, nearest, np.zeros((points, 3)), np.zeros(points))


@compiled
def _find_nearest(table: VoxelTable, around: Around, points: Floats, rotation: Floats, position: Floats) -> None:
    """Have the voxels in ``around.nearest`` whose own means are nearest to ``points`` (n, 3), each among its cell and
    the neighbours, once these are turned by ``rotation`` (3, 3) and moved by ``position`` (3,).
    """
    # One function: to hand two tuples of arrays on, point by point, takes longer than what is done with them.
    place, reach, rows, anchors, size = around.place, around.reach, around.rows, table.anchors, table.size
    high = 0 if table.planar else 1
    for i in range(len(points)):
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        x = rotation[0, 0] * px + rotation[0, 1] * py + rotation[0, 2] * pz + position[0]
        y = rotation[1, 0] * px + rotation[1, 1] * py + rotation[1, 2] * pz + position[1]
        z = rotation[2, 0] * px + rotation[2, 1] * py + rotation[2, 2] * pz + position[2]
        if (x - place[i, 0]) ** 2 + (y - place[i, 1]) ** 2 + (z - place[i, 2]) ** 2 < reach[i]:
            continue
        cx, cy, cz = math.floor(x / size), math.floor(y / size), 0 if table.planar else math.floor(z / size)
        centre = pack(cx, cy, cz)
        if around.cell[i] != centre:
            count = 0
            if i > 0 and around.cell[i - 1] == centre:  # a beam and the next
                count = around.found[i - 1]
                for k in range(count):
                    rows[i, k] = rows[i - 1, k]
            else:
                for dx in range(-1, 2):
                    for dy in range(-1, 2):
                        for dz in range(-high, high + 1):
                            key = centre + (dx << 42) + (dy << 21) + dz
                            at = slot_of(table.slot_keys, key)
                            if table.slot_keys[at] == key:
                                rows[i, count] = table.slot_rows[at]
                                count += 1
            around.cell[i], around.found[i] = centre, count
        best, least, runner_up = -1, np.inf, np.inf
        for k in range(around.found[i]):
            row = rows[i, k]
            distance = (x - anchors[row, 0]) ** 2 + (y - anchors[row, 1]) ** 2 + (z - anchors[row, 2]) ** 2
            if distance < least:
                best, least, runner_up = row, distance, least
            elif distance < runner_up:
                runner_up = distance
        # It stays the nearest for half the way by which the next one is farther off, within the cell.
        way = min(x - size * cx, size * (cx + 1) - x, y - size * cy, size * (cy + 1) - y)
        if not table.planar:
            way = min(way, z - size * cz, size * (cz + 1) - z)
        if runner_up < np.inf:
            way = min(way, 0.5 * (math.sqrt(runner_up) - math.sqrt(least)))
        around.nearest[i], reach[i] = best, max(way - SLACK, 0.0) ** 2
        place[i, 0], place[i, 1], place[i, 2] = x, y, z


@compiled
def normal_equations(
    table: VoxelTable,
    points: Floats,
    pose: Floats,
    kernel: float,
    spread: float,
    information: Floats,
    gradient: Floats,
    errors: Floats,
    around: Around,
) -> None:
    """Gauss-Newton ``information`` (6, 6) and ``gradient`` (6,) of the robust cost at ``pose``; metric ``errors`` (n,).

    An error [m] is that along the normal where the voxel is a surface, and in space for others what it would be along
    their least axis; infinite for points with no voxel near.
    """
    rotation = se3.rotation_matrix(pose)
    narrow = 1.0 / math.sqrt(1.0 + spread**2)
    information[:] = 0.0
    gradient[:] = 0.0
    row_of, world, d = np.empty(6), np.empty(3), np.empty(3)
    _find_nearest(table, around, points, rotation, pose[:3])
    for i in range(len(points)):
        p = points[i]
        for k in range(3):
            world[k] = rotation[k, 0] * p[0] + rotation[k, 1] * p[1] + rotation[k, 2] * p[2] + pose[k]
        voxel = around.nearest[i]
        if voxel < 0:
            errors[i] = np.inf
            continue
        mean, axes, deviations = table.shapes.means[voxel], table.shapes.axes[voxel], table.shapes.deviations[voxel]
        for k in range(3):
            d[k] = world[k] - mean[k]
        if table.shapes.flat[voxel]:
            error = abs(axes[0, 0] * d[0] + axes[0, 1] * d[1] + axes[0, 2] * d[2])
        elif table.planar:
            error = math.hypot(d[0], d[1])
        else:
            # Voxels in space are large, and a point far from the mean may well be of what is in them: of an edge, a
            # pole, a ring on the floor.  Counted is how far it lies outside, in the thickness of the distribution.
            squared = 0.0
            for axis in range(3):
                along = axes[axis, 0] * d[0] + axes[axis, 1] * d[1] + axes[axis, 2] * d[2]
                squared += (along / deviations[axis]) ** 2
            error = deviations[0] * math.sqrt(squared)
        errors[i] = error
        # Geman-McClure on the metric error (Zhang, "Parameter estimation techniques", 1997, table 1).
        weight = (kernel**2 / (kernel**2 + error**2)) ** 2
        for axis in range(3):
            if deviations[axis] == np.inf:
                continue
            scale = narrow / deviations[axis]
            u0, u1, u2 = axes[axis, 0] * scale, axes[axis, 1] * scale, axes[axis, 2] * scale
            residual = u0 * d[0] + u1 * d[1] + u2 * d[2]
            for k in range(3):
                row_of[k] = u0 * rotation[0, k] + u1 * rotation[1, k] + u2 * rotation[2, k]
            # d(R p) under a right rotation: -R [p]x, and u^T [p]x = (u x p)^T, hence each row u gives (p x u)^T.
            row_of[3] = p[1] * row_of[2] - p[2] * row_of[1]
            row_of[4] = p[2] * row_of[0] - p[0] * row_of[2]
            row_of[5] = p[0] * row_of[1] - p[1] * row_of[0]
            for a in range(6):
                weighted = weight * row_of[a]
                gradient[a] += weighted * residual
                for b in range(a, 6):
                    information[a, b] += weighted * row_of[b]
    for a in range(6):
        for b in range(a):
            information[a, b] = information[b, a]


@compiled
def _minimise(
    table: VoxelTable,
    points: Floats,
    start: Floats,
    prediction: Floats,
    prior: Floats,
    stage: Stage,
    axes: NDArray[np.int64],
    errors: Floats,
    around: Around,
) -> Floats:
    """Gauss-Newton from ``start``; only the tangent directions ``axes`` move."""
    count = len(axes)
    information, gradient = np.empty((6, 6)), np.empty(6)
    lhs, rhs, step, delta = np.empty((count, count)), np.empty(count), np.empty(count), np.zeros(6)
    pose = start.copy()
    for _ in range(stage.iterations):
        normal_equations(table, points, pose, stage.kernel, stage.spread, information, gradient, errors, around)
        innovation = se3.log(se3.between(prediction, pose))
        for i in range(count):
            rhs[i] = -gradient[axes[i]]
            for j in range(6):
                rhs[i] -= prior[axes[i], j] * innovation[j]
            for j in range(count):
                lhs[i, j] = information[axes[i], axes[j]] + prior[axes[i], axes[j]]
        if not solve_positive(lhs, rhs, step):  # neither the scan nor the prior knows some direction
            return pose
        largest = 0.0
        for i in range(count):
            delta[axes[i]] = step[i]
            largest = max(largest, abs(step[i]))
        pose = se3.compose(pose, se3.exp(delta))
        if largest <= stage.tolerance:
            break
    return pose


@compiled
def register(
    coarse: VoxelTable,
    fine: VoxelTable,
    points: Floats,
    starts: Floats,
    prediction: Floats,
    prior: Floats,
    axes: NDArray[np.int64],
    first: Stage,
    second: Stage,
    inlier_distance: float,
) -> tuple[Floats, Floats, float, float]:
    """Pose (7,), information (6, 6), share of inliers and their mean error [m]: see `registration.register`."""
    errors = np.empty(len(points))
    information, gradient = np.empty((6, 6)), np.empty(6)
    best, most = starts[0], -1
    around = _nowhere(len(points), coarse.planar)
    for i in range(len(starts)):
        found = _minimise(coarse, points, starts[i], prediction, prior, first, axes, errors, around)
        close = 0
        if len(starts) > 1:
            normal_equations(coarse, points, found, first.kernel, 0.0, information, gradient, errors, around)
            close = int(np.sum(errors < inlier_distance))
        if close > most:
            best, most = found, close
    around = _nowhere(len(points), fine.planar)
    pose = _minimise(fine, points, best, prediction, prior, second, axes, errors, around)
    normal_equations(fine, points, pose, second.kernel, second.spread, information, gradient, errors, around)
    close, total = 0, 0.0
    for error in errors:
        if error < inlier_distance:
            close += 1
            total += error
    return pose, information, close / max(len(points), 1), total / max(close, 1)

"""Compiled loops over a voxel hash table: fill it with points, look cells up, merge neighbours, take shapes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled, se3
from dsg_ros.core.native.cells import EMPTY, pack, slot_of
from dsg_ros.core.native.small import eigen_planar, eigen_spatial

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOMENTS = 10
"""Numbers kept of a voxel's points: count, sum (3), sum of products (xx, xy, xz, yy, yz, zz)."""


Table = tuple[Ints, NDArray[np.int32], Ints, Floats]
Distributions = tuple[Floats, Floats, Floats, NDArray[np.bool_]]


@compiled
def placed(points: Floats, counts: Ints, trajectory: Floats) -> Floats:
    """Points (n, 3) of clouds, one after the other with ``counts`` (k,) points each, moved by ``trajectory`` (k, 7)."""
    out = np.empty((len(points), 3))
    i = 0
    for cloud in range(len(counts)):
        pose = trajectory[cloud]
        r = se3.rotation_matrix(pose)
        for _ in range(counts[cloud]):
            p = points[i]
            for k in range(3):
                out[i, k] = r[k, 0] * p[0] + r[k, 1] * p[1] + r[k, 2] * p[2] + pose[k]
            i += 1
    return out


@compiled
def moved(points: Floats, pose: Floats) -> Floats:
    """Points (n, 3) moved by ``pose`` (7,)."""
    return placed(points, np.array([len(points)]), pose.reshape(1, 7))


@compiled
def _cells(
    points: Floats, size: float, planar: bool, most: int
) -> tuple[Ints, NDArray[np.int32], Ints, NDArray[np.int32]]:
    """`_rows`; of cells beyond the first ``most`` only the next is in it, and then the points up to there."""
    slots = 1024
    slot_keys, slot_rows = np.full(slots, EMPTY, np.int64), np.zeros(slots, np.int32)
    keys, rows = np.empty(min(len(points), most + 1), np.int64), np.empty(len(points), np.int32)
    count, last = 0, EMPTY
    for i in range(len(points)):
        layer = 0 if planar else math.floor(points[i, 2] / size)
        key = pack(math.floor(points[i, 0] / size), math.floor(points[i, 1] / size), layer)
        if key == last:  # a beam and the next
            rows[i] = rows[i - 1]
            continue
        last = key
        at = slot_of(slot_keys, key)
        if slot_keys[at] == EMPTY:
            slot_keys[at], slot_rows[at], keys[count] = key, count, key
            rows[i] = count
            count += 1
            if count > most:
                return slot_keys, slot_rows, keys[:count].copy(), rows[: i + 1]
            if 2 * count > slots:
                slots *= 2
                slot_keys, slot_rows = np.full(slots, EMPTY, np.int64), np.zeros(slots, np.int32)
                for row in range(count):
                    at = slot_of(slot_keys, keys[row])
                    slot_keys[at], slot_rows[at] = keys[row], row
        else:
            rows[i] = slot_rows[at]
    return slot_keys, slot_rows, keys[:count].copy(), rows


@compiled
def _rows(points: Floats, size: float, planar: bool) -> tuple[Ints, NDArray[np.int32], Ints, NDArray[np.int32]]:
    """Hash table of the voxels of ``points`` (n, 3): slot keys, slot rows, the voxels' keys; and each point's row."""
    return _cells(points, size, planar, len(points))


@compiled
def fill(points: Floats, origin: Floats, size: float, planar: bool) -> Table:
    """Hash table of ``points`` (n, 3) in voxels of edge ``size``: slot keys and rows, the voxels' keys and moments.

    Moments (v, 10) are about ``origin`` (3,).  ``planar``: all in one layer, whatever their height.
    """
    slot_keys, slot_rows, keys, rows = _rows(points, size, planar)
    moments = np.zeros((len(keys), MOMENTS))
    for i in range(len(points)):
        m = moments[rows[i]]
        x, y, z = points[i, 0] - origin[0], points[i, 1] - origin[1], points[i, 2] - origin[2]
        m[0] += 1.0
        m[1] += x
        m[2] += y
        m[3] += z
        m[4] += x * x
        m[5] += x * y
        m[6] += x * z
        m[7] += y * y
        m[8] += y * z
        m[9] += z * z
    return slot_keys, slot_rows, keys, moments


@compiled
def merge(slot_keys: Ints, slot_rows: NDArray[np.int32], keys: Ints, moments: Floats, planar: bool) -> Floats:
    """Moments (v, 10) of every voxel together with its occupied neighbours: 9 cells in the plane, 27 in space."""
    merged = moments.copy()
    high = 0 if planar else 1
    for row in range(len(keys)):
        for dx in range(-1, 2):
            for dy in range(-1, 2):
                for dz in range(-high, high + 1):
                    step = (dx << 42) + (dy << 21) + dz
                    if step <= 0:  # each pair of neighbours once, both ways
                        continue
                    key = keys[row] + step
                    at = slot_of(slot_keys, key)
                    if slot_keys[at] == key:
                        other = slot_rows[at]
                        for k in range(MOMENTS):
                            merged[row, k] += moments[other, k]
                            merged[other, k] += moments[row, k]
    return merged


@compiled
def averaged(points: Floats, edge: float) -> Floats:
    """Means (m, 3) of the ``points`` (n, 3) in each cell of ``edge``, in the order of the cells' keys."""
    _, _, keys, rows = _rows(points, edge, False)
    sums, counts = np.zeros((len(keys), 3)), np.zeros(len(keys))
    for i in range(len(points)):
        counts[rows[i]] += 1.0
        for k in range(3):
            sums[rows[i], k] += points[i, k]
    order = np.argsort(keys)
    out = np.empty((len(keys), 3))
    for i in range(len(order)):
        for k in range(3):
            out[i, k] = sums[order[i], k] / counts[order[i]]
    return out


@compiled
def spread(points: Floats, edge: float, capacity: int) -> Floats:
    """The first of the ``points`` (n, 3) in each cell, in the order of the cells' keys, at most ``capacity`` of them:
    of the first edge for which they are so few, each 1.25 times the one before and the first that much above ``edge``.
    """
    while True:
        edge *= 1.25
        _, _, keys, rows = _cells(points, edge, False, capacity)
        if len(keys) <= capacity:
            break
    first = np.empty(len(keys), np.int64)
    known = 0
    for i in range(len(rows)):
        if rows[i] == known:
            first[known] = i
            known += 1
    order = np.argsort(keys)
    out = np.empty((len(keys), 3))
    for i in range(len(order)):
        for k in range(3):
            out[i, k] = points[first[order[i]], k]
    return out


@compiled
def in_columns(points: Floats, edge: float, layers: int) -> NDArray[np.bool_]:
    """Which (n,) of the ``points`` (n, 3) stand in a column of cells of ``edge``, ``layers`` of them or more filled."""
    _, _, keys, cells = _rows(points, edge, False)
    bottoms = np.empty((len(keys), 3))
    for i in range(len(points)):
        bottoms[cells[i]] = points[i]
    _, _, columns, column_of = _rows(bottoms, edge, True)
    filled = np.zeros(len(columns), np.int64)
    for cell in range(len(keys)):
        filled[column_of[cell]] += 1
    out = np.empty(len(points), np.bool_)
    for i in range(len(points)):
        out[i] = filled[column_of[cells[i]]] >= layers
    return out


@compiled
def distribution(moments: Floats, mean: Floats, covariance: Floats) -> None:
    """Mean (3,) about the moments' origin and covariance (3, 3) of moments (10,)."""
    count = moments[0]
    for i in range(3):
        mean[i] = moments[1 + i] / count
    k = 4
    for i in range(3):
        for j in range(i, 3):
            covariance[i, j] = covariance[j, i] = moments[k] / count - mean[i] * mean[j]
            k += 1


@compiled
def shape(
    covariance: Floats,
    count: float,
    size: float,
    planar: bool,
    flatness: float,
    noise: float,
    axes: Floats,
    deviations: Floats,
) -> bool:
    """Whether a voxel is a surface; fills its principal ``axes`` (3, 3), least first, and ``deviations`` (3,) along.

    A surface has its smallest variance below ``flatness`` times the next one.  ``noise`` [m] is added to every
    variance: range noise, and what the voxel model does not explain.  A deviation is infinite where a point is not
    constrained: along a surface, out of a planar scan's plane, and in it where fewer than three points are known.
    """
    if planar:
        eigen_planar(covariance, deviations, axes)
    else:
        eigen_spatial(covariance, deviations, axes)
    enough = count >= (3.0 if planar else 5.0)
    flat = enough and deviations[0] < flatness * deviations[1] and deviations[1] > noise**2
    # Of a few points the spread is unknown.  In a plane they are most often beams far apart on a wall, which would hold
    # a robot back that sees a corridor's walls in the same pattern from everywhere: they tell nothing, but for what
    # larger voxels tell of them (`borrow`).  In space, where voxels are larger, a quarter of the voxel stands for it.
    unknown = 0.0 if enough else np.inf if planar else (0.25 * size) ** 2
    for i in range(3):
        deviations[i] = math.sqrt(max(deviations[i], 0.0) + noise**2 + unknown)
    if flat:
        deviations[1] = deviations[2] = np.inf
    return flat


@compiled
def shapes(moments: Floats, size: float, planar: bool, flatness: float, noise: float) -> Distributions:
    """Of voxels with ``moments`` (v, 10): means (v, 3) about the origin, axes (v, 3, 3), deviations (v, 3), flat."""
    count = len(moments)
    means, axes = np.empty((count, 3)), np.empty((count, 3, 3))
    deviations, flat = np.empty((count, 3)), np.empty(count, np.bool_)
    covariance = np.empty((3, 3))
    for row in range(count):
        distribution(moments[row], means[row], covariance)
        flat[row] = shape(covariance, moments[row, 0], size, planar, flatness, noise, axes[row], deviations[row])
    return means, axes, deviations, flat


@compiled
def build(
    points: Floats, size: float, planar: bool, flatness: float, noise: float
) -> tuple[Floats, Table, Floats, Floats, Distributions]:
    """Origin (3,), table, merged moments (v, 10), the voxels' own means (v, 3) and distributions (with `shapes`), in
    map, of ``points`` (n, 3).
    """
    origin = np.zeros(3)
    for i in range(len(points)):
        for k in range(3):
            origin[k] += points[i, k]
    origin /= max(len(points), 1)
    table = fill(points, origin, size, planar)
    slot_keys, slot_rows, keys, moments = table
    merged = merge(slot_keys, slot_rows, keys, moments, planar)
    distributions = shapes(merged, size, planar, flatness, noise)
    anchors = np.empty((len(keys), 3))
    for row in range(len(keys)):
        for k in range(3):
            anchors[row, k] = origin[k] + moments[row, 1 + k] / moments[row, 0]
            distributions[0][row, k] += origin[k]
    return origin, table, merged, anchors, distributions


@compiled
def borrow(
    anchors: Floats, axes: Floats, deviations: Floats, flat: NDArray[np.bool_], size: float,
    slot_keys: Ints, slot_rows: NDArray[np.int32], from_axes: Floats, from_deviations: Floats,
    from_flat: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Give voxels of a plane that hold too few points to tell a normal that of the larger voxel, of edge ``size``, that
    they lie in, where that is a surface: beams far apart on a wall tell how far it is, and nothing along it.
    """
    for row in range(len(anchors)):
        if deviations[row, 0] < np.inf:
            continue
        key = pack(math.floor(anchors[row, 0] / size), math.floor(anchors[row, 1] / size), 0)
        at = slot_of(slot_keys, key)
        if slot_keys[at] != key or not from_flat[slot_rows[at]]:
            continue
        flat[row] = True
        axes[row] = from_axes[slot_rows[at]]
        deviations[row] = from_deviations[slot_rows[at]]


@compiled
def observe(
    cloud: Floats,
    pose: Floats,
    around: tuple[Ints, NDArray[np.int32], Floats],
    size: float,
    planar: bool,
    least_points: int,
    shape_noise: tuple[float, float],
    mean_noise: tuple[float, float, float],
) -> tuple[Ints, Ints, Floats, Floats, Floats, Floats]:
    """What ``cloud`` (n, 3), seen from ``pose`` (7,), tells of the voxels of edge ``size`` it lies in.

    ``around`` is the local map there: slot keys and rows, and the voxels' own moments.  Voxels with fewer than
    ``least_points`` are left out; ``shape_noise`` is flatness and noise as in `shape`, ``mean_noise`` the noise of a
    point, the share of the points that count and the roughness of a surface.

    Returned, in the order of their keys: keys (m,), points seen (m,), their means (m, 3), square-root information
    (m, 3, 3) and normals (m, 3), zero where not a surface, in the frame of the pose; means (m, 3) in map.
    """
    world = moved(cloud, pose)
    _, _, found, rows = _rows(world, size, planar)
    counts, sums = np.zeros(len(found), np.int64), np.zeros((len(found), 3))
    for i in range(len(cloud)):
        counts[rows[i]] += 1
        for k in range(3):
            sums[rows[i], k] += cloud[i, k]
    order = np.argsort(found)
    order = order[counts[order] >= least_points]
    keys, counts, points = found[order], counts[order], np.empty((len(order), 3))
    roots, normals = np.zeros((len(order), 3, 3)), np.zeros((len(order), 3))
    slot_keys, slot_rows, moments = around
    flatness, spread = shape_noise
    noise, share, roughness = mean_noise
    rotation = se3.rotation_matrix(pose)
    mean, covariance, axes, deviations = np.empty(3), np.empty((3, 3)), np.empty((3, 3)), np.empty(3)
    for row in range(len(order)):
        for k in range(3):
            points[row, k] = sums[order[row], k] / counts[row]
        at, flat = slot_of(slot_keys, keys[row]), False
        if slot_keys[at] == keys[row]:
            own = moments[slot_rows[at]]
            distribution(own, mean, covariance)
            flat = shape(covariance, own[0], size, planar, flatness, spread, axes, deviations)
        else:
            axes[:] = np.eye(3)
        # Along a surface an observation says next to nothing; that little keeps every voxel's block regular.
        # The mean of n points is n times surer, but not surer than the voxel is a plane.
        sigma = math.sqrt(noise**2 / (share * counts[row]) + roughness**2) if flat else size
        for a in range(3):
            for k in range(3):
                for j in range(3):
                    roots[row, a, k] += axes[a, j] * rotation[j, k]
            if a == 0 and flat:
                normals[row] = roots[row, 0]
            for k in range(3):
                roots[row, a, k] /= sigma if a == 0 else size
    return keys, counts, points, roots, normals, moved(points, pose)

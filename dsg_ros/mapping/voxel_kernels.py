"""Compiled loops over a voxel hash table: fill it with points, look cells up, merge neighbours, take shapes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import compiled
from dsg_ros.core.native.cells import EMPTY, pack, slot_of
from dsg_ros.core.native.small import eigen_planar, eigen_spatial

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOMENTS = 10
"""Numbers kept of a voxel's points: count, sum (3), sum of products (xx, xy, xz, yy, yz, zz)."""


@compiled
def fill(points: Floats, origin: Floats, size: float, planar: bool) -> tuple[Ints, NDArray[np.int32], Ints, Floats]:
    """Hash table of ``points`` (n, 3) in voxels of edge ``size``: slot keys and rows, the voxels' keys and moments.

    Moments (v, 10) are about ``origin`` (3,).  ``planar``: all in one layer, whatever their height.
    """
    slots = 16
    while slots < 2 * len(points):
        slots *= 2
    slot_keys = np.full(slots, EMPTY, np.int64)
    slot_rows = np.zeros(slots, np.int32)
    keys = np.empty(len(points), np.int64)
    moments = np.zeros((len(points), MOMENTS))
    count = 0
    for i in range(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        layer = 0 if planar else math.floor(z / size)
        key = pack(math.floor(x / size), math.floor(y / size), layer)
        at = slot_of(slot_keys, key)
        if slot_keys[at] == EMPTY:
            slot_keys[at], slot_rows[at], keys[count] = key, count, key
            count += 1
        m = moments[slot_rows[at]]
        x, y, z = x - origin[0], y - origin[1], z - origin[2]
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
    return slot_keys, slot_rows, keys[:count].copy(), moments[:count].copy()


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
                        merged[row] += moments[other]
                        merged[other] += moments[row]
    return merged


@compiled
def rows_of(slot_keys: Ints, slot_rows: NDArray[np.int32], keys: Ints) -> Ints:
    """Rows (n,) of voxels by ``keys`` (n,), -1 for those that are not there."""
    out = np.full(len(keys), -1, np.int64)
    for i in range(len(keys)):
        at = slot_of(slot_keys, keys[i])
        if slot_keys[at] == keys[i]:
            out[i] = slot_rows[at]
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
    constrained: along a surface, and out of a planar scan's plane.
    """
    if planar:
        eigen_planar(covariance, deviations, axes)
    else:
        eigen_spatial(covariance, deviations, axes)
    enough = count >= (3.0 if planar else 5.0)
    flat = enough and deviations[0] < flatness * deviations[1] and deviations[1] > noise**2
    # Of a few points the spread is unknown: a quarter of the voxel stands for it.
    unknown = 0.0 if enough else (0.25 * size) ** 2
    for i in range(3):
        deviations[i] = math.sqrt(max(deviations[i], 0.0) + noise**2 + unknown)
    if flat:
        deviations[1] = deviations[2] = np.inf
    return flat


@compiled
def shapes(
    moments: Floats, size: float, planar: bool, flatness: float, noise: float
) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    """Of voxels with ``moments`` (v, 10): means (v, 3) about the origin, axes (v, 3, 3), deviations (v, 3), flat."""
    count = len(moments)
    means, axes = np.empty((count, 3)), np.empty((count, 3, 3))
    deviations, flat = np.empty((count, 3)), np.empty(count, np.bool_)
    covariance = np.empty((3, 3))
    for row in range(count):
        distribution(moments[row], means[row], covariance)
        flat[row] = shape(covariance, moments[row, 0], size, planar, flatness, noise, axes[row], deviations[row])
    return means, axes, deviations, flat

"""Voxels eliminated from the normal equations of a window, one 3 x 3 block at a time: the Schur complement."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import blas, compiled
from dsg_ros.core.native.window_rows import Normal

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SMALLEST = 1e-13
"""Pivots of a system with unit diagonal below this are rounding."""
COLUMNS = 192
"""Of voxels that are taken out together, three each."""


@compiled
def normal_equations(poses: int, d: int, voxels: int, sightings: int) -> Normal:
    """Room for them: ``poses`` and ``voxels`` that may move, poses by ``d`` numbers."""
    size = poses * d
    return Normal(
        np.zeros((size, size)), np.zeros(size), np.zeros((voxels, 3, 3)), np.zeros((voxels, 3)),
        np.empty((sightings, d, 3)),
    )  # fmt: skip


@compiled
def chains(keys: Ints, column: int, count: int) -> tuple[Ints, Ints]:
    """Rows by the variable in ``column``: first row, and the next one after each."""
    first, following = np.full(count, -1, np.int64), np.full(len(keys), -1, np.int64)
    for r in range(len(keys) - 1, -1, -1):
        following[r] = first[keys[r, column]]
        first[keys[r, column]] = r
    return first, following


@compiled
def scales_of(blocks: Floats, out: Floats) -> None:
    """The diagonals (v, 3) of blocks, 1 where they are 0."""
    for v in range(len(blocks)):
        for i in range(3):
            out[v, i] = blocks[v, i, i] if blocks[v, i, i] > 0 else 1.0


@compiled
def _half_inverse(blocks: Floats, v: int, damping: float, scales: Floats, halves: Floats) -> float:
    """``G^-1`` into ``halves[v]``, with ``G G^T`` the symmetric positive definite ``blocks[v]`` (3, 3), ``damping``
    times ``scales[v]`` on its diagonal.

    Returns the determinant of ``G G^T``, 0 where it is singular to rounding: then nothing is written.
    """
    a, b, c = blocks[v, 0, 0] + damping * scales[v, 0], blocks[v, 1, 0], blocks[v, 2, 0]
    d, e, f = blocks[v, 1, 1] + damping * scales[v, 1], blocks[v, 2, 1], blocks[v, 2, 2] + damping * scales[v, 2]
    if not a > 0.0:
        return 0.0
    over_a = 1.0 / a
    second, below = d - b * b * over_a, e - b * c * over_a
    if not second > 0.0:
        return 0.0
    over_second = 1.0 / second
    third = f - c * c * over_a - below * below * over_second
    if not a * second * third > SMALLEST * a * d * f:
        return 0.0
    x, y, z = math.sqrt(over_a), math.sqrt(over_second), 1.0 / math.sqrt(third)
    halves[v, 0, 0], halves[v, 1, 1], halves[v, 2, 2] = x, y, z
    halves[v, 1, 0] = -y * b * over_a
    halves[v, 2, 1] = -z * below * over_second
    halves[v, 2, 0] = -z * (c * over_a + below * y * halves[v, 1, 0])
    return a * second * third


@compiled
def _flush(places: Ints, d: int, panel: Floats, columns: int, square: Floats, system: Floats, size: int) -> None:
    """Take ``panel panel^T`` from the lower half of ``system``: ``panel`` (len(places) d, columns) has the rows of
    the poses at ``places``.
    """
    n = len(places) * d
    if n * columns == 0:
        return
    square[: n * n] = 0.0
    blas.subtract_square(n, columns, panel, n, square, n)
    for b in range(len(places)):
        for a in range(b, len(places)):
            low, high = min(places[a], places[b]), max(places[a], places[b])
            for j in range(d):
                for i in range(d):
                    # Below the diagonal alone is something written.
                    if a > b or i >= j:
                        part = square[(b * d + j) * n + a * d + i]
                        if places[a] >= places[b]:
                            system[(low + j) * size + high + i] += part
                        if places[a] < places[b] or (a > b and low == high):
                            system[(low + i) * size + high + j] += part


@compiled
def eliminate(
    keys: Ints, first_seen: Ints, next_seen: Ints, place: Ints, free_voxels: Bools, normal: Normal,
    voxel_scales: Floats, damping: float, halves: Floats, system: Floats, right: Floats, regular: float,
) -> float:  # fmt: skip
    """Take the voxels out of the lower half of ``system`` (column-major) and of ``right``; ``halves`` (v, 3, 3) get
    what solves for them again (`_half_inverse`).  Returns the smallest determinant of a block, its diagonal scaled to
    one.

    A voxel that is not determined ends it with 0, or, if ``regular`` is positive, is damped that much:
    in the directions that its rows do not see they have nothing to pass on.  Neighbouring voxels that the same poses
    see are taken out in one product of matrices.
    """
    size, d, least, longest = len(right), normal.cross.shape[1], np.inf, 0
    for v in range(len(halves)):
        a, length = first_seen[v], 0
        while a >= 0:
            a, length = next_seen[a], length + 1
        longest = max(longest, length)
    seeing, group = np.empty(longest, np.int64), np.empty(longest, np.int64)
    panel, square = np.empty(longest * d * COLUMNS), np.empty((longest * d) ** 2)
    count, columns = 0, 0
    for v in range(len(halves)):
        if not free_voxels[v] or first_seen[v] < 0:
            continue
        pivot = _half_inverse(normal.blocks, v, damping, voxel_scales, halves)
        if pivot == 0.0:
            if regular == 0.0:
                return 0.0
            pivot = _half_inverse(normal.blocks, v, regular, voxel_scales, halves)
        least = min(least, pivot / (voxel_scales[v, 0] * voxel_scales[v, 1] * voxel_scales[v, 2]))
        a, length, same = first_seen[v], 0, True
        while a >= 0:
            if place[keys[a, 0]] >= 0:
                seeing[length] = place[keys[a, 0]]
                same = same and length < count and group[length] == seeing[length]
                length += 1
            a = next_seen[a]
        if not same or length != count or columns == COLUMNS:
            _flush(group[:count], d, panel, columns, square, system, size)
            group[:length] = seeing[:length]
            count, columns = length, 0
        h00, h10, h11 = halves[v, 0, 0], halves[v, 1, 0], halves[v, 1, 1]
        h20, h21, h22 = halves[v, 2, 0], halves[v, 2, 1], halves[v, 2, 2]
        p0, p1, p2 = normal.pulls[v, 0], normal.pulls[v, 1], normal.pulls[v, 2]
        p0, p1, p2 = h00 * p0, h10 * p0 + h11 * p1, h20 * p0 + h21 * p1 + h22 * p2
        a, row, rows = first_seen[v], 0, count * d
        while a >= 0:
            pa = place[keys[a, 0]]
            if pa >= 0:
                for i in range(d):
                    x, y, z = normal.cross[a, i, 0], normal.cross[a, i, 1], normal.cross[a, i, 2]
                    x, y, z = h00 * x, h10 * x + h11 * y, h20 * x + h21 * y + h22 * z
                    panel[columns * rows + row] = x
                    panel[(columns + 1) * rows + row] = y
                    panel[(columns + 2) * rows + row] = z
                    right[pa + i] += x * p0 + y * p1 + z * p2
                    row += 1
            a = next_seen[a]
        columns += 3
    _flush(group[:count], d, panel, columns, square, system, size)
    return least


@compiled
def solved(halves: Floats, v: int, x: float, y: float, z: float) -> tuple[float, float, float]:
    """A voxel's block, of which ``halves`` are made, solved for a right-hand side."""
    x, y, z = (
        halves[v, 0, 0] * x,
        halves[v, 1, 0] * x + halves[v, 1, 1] * y,
        halves[v, 2, 0] * x + halves[v, 2, 1] * y + halves[v, 2, 2] * z,
    )
    return (
        halves[v, 0, 0] * x + halves[v, 1, 0] * y + halves[v, 2, 0] * z,
        halves[v, 1, 1] * y + halves[v, 2, 1] * z,
        halves[v, 2, 2] * z,
    )

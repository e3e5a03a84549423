"""Voxels with distributions (NDT), built from the points of a few keyframes, in a hash table.

A local map is a pure function of keyframe poses and points: when the graph moves, it is simply built again (half a
millisecond for thirty planar keyframes), so nothing can go stale.  Each voxel keeps the additive moments (n, sum x,
sum x x^T); the mean and the normal come from the moments of the voxel and its neighbours merged, which keeps a wall
that straddles a voxel border one wall (Biber and Strasser, "The normal distributions transform", 2003; Magnusson,
2009).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import plain
from dsg_ros.core.native.cells import OFFSET
from dsg_ros.mapping import voxel_kernels as kernels


class Shapes(NamedTuple):
    """Distributions of voxels.

    ``means`` (v, 3) in map, principal ``axes`` (v, 3, 3) as rows, that of least variance first, and the
    ``deviations`` (v, 3) [m] along them, infinite where a point is not constrained; ``flat`` (v,) are surfaces, whose
    normal is the first axis.
    """

    means: NDArray[np.float64]
    axes: NDArray[np.float64]
    deviations: NDArray[np.float64]
    flat: NDArray[np.bool_]


class VoxelTable(NamedTuple):
    """Occupied voxels of edge ``size`` [m] in the order of their first points, found through a hash table.

    ``moments`` (v, 10) and ``merged`` (v, 10), with the neighbours', are about ``origin`` (3,), the centroid of all
    points: within a local map float64 then keeps second moments to a picometre.  A point belongs to the voxel whose
    own mean, ``anchors`` (v, 3), is nearest; its residual is taken against the merged neighbourhood, ``shapes``.
    """

    size: float
    planar: bool
    origin: NDArray[np.float64]
    slot_keys: NDArray[np.int64]
    slot_rows: NDArray[np.int32]
    keys: NDArray[np.int64]
    moments: NDArray[np.float64]
    merged: NDArray[np.float64]
    anchors: NDArray[np.float64]
    shapes: Shapes


def build(points: NDArray[np.float64], size: float, *, planar: bool, flatness: float, noise: float) -> VoxelTable:
    """Table of ``points`` (n, 3) in voxels of edge ``size`` [m].

    ``planar``: all in one layer, whatever their height, which a planar scan does not measure: it is zero up to
    rounding, and zero is the border of two layers.

    A voxel is a surface when its smallest variance is below ``flatness`` times the next one; ``noise`` [m] is the
    standard deviation added to every variance (range noise, and what the voxel model does not explain).
    """
    origin, table, merged, anchors, shapes = kernels.build(plain(points), size, planar, flatness, noise)
    return VoxelTable(size, planar, origin, *table, merged, anchors, Shapes(*shapes))


def borrow(fine: VoxelTable, coarse: VoxelTable) -> None:
    """Normals for those voxels of ``fine`` that hold too few points of a plane to have one: from ``coarse``."""
    kernels.borrow(
        fine.anchors, fine.shapes.axes, fine.shapes.deviations, fine.shapes.flat, coarse.size,
        coarse.slot_keys, coarse.slot_rows, coarse.shapes.axes, coarse.shapes.deviations, coarse.shapes.flat,
    )  # fmt: skip


def pack(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """One int64 a cell from ``(..., 3)`` integer cells; 21 bits an axis: +-1,048,576 cells."""
    shifted = cells + OFFSET
    return (shifted[..., 0] << 42) | (shifted[..., 1] << 21) | shifted[..., 2]


def unpack(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """The cells ``(..., 3)`` of keys that `pack` made."""
    mask = (1 << 21) - 1
    return np.stack([keys >> 42, (keys >> 21) & mask, keys & mask], axis=-1) - OFFSET


def cells_of(points: NDArray[np.float64], size: float, *, planar: bool = False) -> NDArray[np.int64]:
    """Integer cells ``(n, 3)`` of points ``(n, 3)`` for a voxel edge ``size`` [m]; ``planar`` as in `build`."""
    cells = np.floor(points / size).astype(np.int64)
    if planar:
        cells[:, 2] = 0
    return cells

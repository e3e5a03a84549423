"""Voxels with distributions (NDT), built from the points of a few keyframes, and their hash table for lookups in JAX.

A local map is a pure function of keyframe poses and points: when the graph moves, it is simply built again (about a
millisecond for thirty planar keyframes), so nothing can go stale.  Each voxel keeps the additive statistics (n, sum x,
sum x x^T); the mean and the normal come from the statistics of the voxel and its neighbours merged, which keeps a wall
that straddles a voxel border one wall (Biber and Strasser, "The normal distributions transform", 2003; Magnusson,
2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

PROBES = 4
_OFFSET = 1 << 20
_EMPTY = np.int64(-1)


class VoxelTable(NamedTuple):
    """A local map on the device, of fixed shape: ``S`` hash slots, ``V`` voxel rows.

    A point belongs to the voxel whose own mean, ``anchors`` (V, 3), is nearest; its residual is taken against the
    mean of
    the merged neighbourhood, ``means`` (V, 3).
    ``whitening`` (V, 3, 3) maps ``point - mean`` to a residual of unit variance: one row (normal / sigma) where the
    voxel is
    planar, the inverse square root of its covariance elsewhere.  ``projector`` (V, 3, 3) keeps the part of ``point
    - mean``
    that counts as metric error: along the normal where planar, everything elsewhere.
    """

    slot_keys: Int[Array, " S"]
    slot_rows: Int[Array, " S"]
    anchors: Float[Array, "V 3"]
    shapes: Float[Array, "V 21"]
    size: Float[Array, ""]

    def shape_at(
        self, rows: Int[Array, " n"]
    ) -> tuple[Float[Array, "n 3"], Float[Array, "n 3 3"], Float[Array, "n 3 3"]]:
        """Means, whitening and projectors of ``rows``: side by side in one array, which moves to the device as one."""
        shape = self.shapes[rows]
        return shape[:, :3], shape[:, 3:12].reshape(-1, 3, 3), shape[:, 12:].reshape(-1, 3, 3)


@dataclass(frozen=True)
class VoxelStatistics:
    """Host-side statistics of occupied voxels, sorted by packed ``keys`` (v,).

    ``anchors`` (v, 3) are the voxels' own means; ``counts`` (v,), ``means`` (v, 3) and ``covariances`` (v, 3, 3)
    those of the merged neighbourhoods.
    """

    size: float
    keys: NDArray[np.int64]
    anchors: NDArray[np.float64]
    counts: NDArray[np.float64]
    means: NDArray[np.float64]
    covariances: NDArray[np.float64]


def pack(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """One int64 a cell from ``(..., 3)`` integer cells; 21 bits an axis: +-1,048,576 cells."""
    shifted = cells + _OFFSET
    return (shifted[..., 0] << 42) | (shifted[..., 1] << 21) | shifted[..., 2]


def cells_of(points: NDArray[np.float64], size: float, *, planar: bool = False) -> NDArray[np.int64]:
    """Integer cells ``(n, 3)`` of points ``(n, 3)`` for a voxel edge ``size`` [m].

    ``planar``: all in one layer, whatever their height, which a planar scan does not measure: it is zero up to
    rounding, and zero is the border of two layers.
    """
    cells = np.floor(points / size).astype(np.int64)
    if planar:
        cells[:, 2] = 0
    return cells


def neighbour_offsets(planar: bool) -> NDArray[np.int64]:
    """Packed-key offsets of a voxel and its neighbours: 9 in the plane, 27 in space."""
    reach = (-1, 0, 1)
    cells = np.array([(x, y, z) for x in reach for y in reach for z in ((0,) if planar else reach)], np.int64)
    return (cells[:, 0] << 42) + (cells[:, 1] << 21) + cells[:, 2]


class Sums(NamedTuple):
    """Additive statistics of occupied voxels, by packed ``keys`` (v,) sorted: ``own`` (v, 10) counts, first and
    second moments about ``origin`` (3,), the centroid of all points: within a local map, float64 then keeps second
    moments to a picometre.
    """

    size: float
    origin: NDArray[np.float64]
    keys: NDArray[np.int64]
    own: NDArray[np.float64]


def accumulate(points: NDArray[np.float64], size: float, *, planar: bool) -> Sums:
    """Sums of ``points`` (n, 3) in voxels of edge ``size`` [m]."""
    origin = points.mean(axis=0) if len(points) else np.zeros(3)
    local = points - origin
    keys, inverse = np.unique(pack(cells_of(points, size, planar=planar)), return_inverse=True)
    columns = [np.ones(len(points)), *local.T, *(local[:, a] * local[:, b] for a, b in _PAIRS)]
    own = np.stack([np.bincount(inverse, column, len(keys)).astype(np.float64) for column in columns], axis=1)
    return Sums(size, origin, keys, own)


def statistics(sums: Sums, *, planar: bool, merge: bool) -> VoxelStatistics:
    """Means and covariances; with ``merge`` of each voxel together with its neighbours."""
    total = _merge_neighbours(sums.own, sums.keys, planar) if merge else sums.own
    counts = total[:, 0]
    offset = total[:, 1:4] / counts[:, None]
    second = total[:, 4:][:, _FULL].reshape(-1, 3, 3) / counts[:, None, None]
    covariances = second - offset[:, :, None] * offset[:, None, :]
    anchors = sums.origin + sums.own[:, 1:4] / sums.own[:, :1]
    return VoxelStatistics(sums.size, sums.keys, anchors, counts, sums.origin + offset, covariances)


_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
_FULL = np.array([0, 1, 2, 1, 3, 4, 2, 4, 5])


def _merge_neighbours(own: NDArray[np.float64], keys: NDArray[np.int64], planar: bool) -> NDArray[np.float64]:
    """Sums (v, 10) of each voxel and its occupied neighbours; ``keys`` (v,) sorted."""
    merged = own.copy()
    for offset in neighbour_offsets(planar):
        if offset <= 0:  # each pair of neighbours once, both ways
            continue
        wanted = keys + offset
        found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        here = np.nonzero(keys[found] == wanted)[0]
        there = found[here]
        merged[here] += own[there]
        merged[there] += own[here]
    return merged


class Surfaces(NamedTuple):
    """Shape of voxels: ``axes`` (v, 3, 3) principal axes as rows, that of least variance first, whether the voxel is a
    ``flat`` (v,) surface, and ``whitening`` (v, 3, 3), whose rows are the axes over their deviations, zero where
    unconstrained.
    """

    axes: NDArray[np.float64]
    flat: NDArray[np.bool_]
    whitening: NDArray[np.float64]

    @property
    def normals(self) -> NDArray[np.float64]:
        """(v, 3); meaningful where flat."""
        return self.axes[:, 0]


def surfaces(statistics: VoxelStatistics, planar: bool, flatness: float, noise: float) -> Surfaces:
    """Shapes of the merged neighbourhoods of ``statistics``.

    A voxel is a surface when its smallest variance is below ``flatness`` times the next one; ``noise`` [m] is the
    standard deviation added to every variance (range noise, and what the voxel model does not explain).
    """
    values, vectors = _eigen_planar(statistics.covariances) if planar else np.linalg.eigh(statistics.covariances)
    enough = statistics.counts >= (3 if planar else 5)
    flat = enough & (values[:, 0] < flatness * values[:, 1]) & (values[:, 1] > noise**2)
    # Of one or two points the spread is unknown: a quarter of the voxel stands for it.
    unknown = np.where(enough, 0.0, (0.25 * statistics.size) ** 2)
    weights = 1.0 / np.sqrt(np.maximum(values, 0.0) + noise**2 + unknown[:, None])
    weights[flat, 1:] = 0.0
    if planar:
        weights[:, 2] = 0.0  # the third axis is the height, which a planar scan does not measure
    axes = np.swapaxes(vectors, 1, 2)
    return Surfaces(axes, flat, weights[:, :, None] * axes)


def _eigen_planar(covariances: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues (v, 3) and vectors (v, 3, 3) of the x-y block in closed form, ascending; the third axis is z."""
    a, b, c = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    angle = 0.5 * np.arctan2(2 * b, a - c)  # of the larger axis
    root = np.hypot(0.5 * (a - c), b)
    values = np.stack([0.5 * (a + c) - root, 0.5 * (a + c) + root, np.full_like(a, np.inf)], axis=-1)
    cos, sin, zero = np.cos(angle), np.sin(angle), np.zeros_like(a)
    vectors = np.stack([-sin, cos, zero, cos, sin, zero, zero, zero, zero + 1], axis=-1).reshape(-1, 3, 3)
    return values, np.swapaxes(vectors, 1, 2)


def hash_slots(keys: NDArray[np.int64], slots: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Open-addressing table of ``keys`` (unique): slot keys (S,), -1 where empty, and slot rows (S,).

    ``slots`` is a power of two; keys that find no place within `PROBES` probes are left out (at a load of a quarter
    that is about one key in a thousand): a voxel less in a map of thousands, never a wrong one.
    """
    slot_keys = np.full(slots, _EMPTY)
    slot_rows = np.zeros(slots, np.int32)
    waiting = np.arange(len(keys))
    start = hash_of(keys) & (slots - 1)
    for probe in range(PROBES):
        slot = (start[waiting] + probe) & (slots - 1)
        free = slot_keys[slot] == _EMPTY
        slot_keys[slot[free]] = keys[waiting[free]]
        slot_rows[slot[free]] = waiting[free]
        waiting = waiting[slot_keys[slot] != keys[waiting]]
        if not len(waiting):
            break
    return slot_keys, slot_rows


def hash_of(keys: Any) -> Any:
    """Non-negative hash of packed keys (...): multiplicative, on NumPy and JAX arrays alike."""
    mixed = keys ^ (keys >> 21) ^ (keys >> 39)
    return (mixed * np.int64(0x9E3779B97F4A7C1)) >> 20 & np.int64(0x7FFFFFFF)


def table(statistics: VoxelStatistics, planar: bool, capacity: int, flatness: float, noise: float) -> VoxelTable:
    """The device form of ``statistics``, padded to ``capacity`` voxels; of more, the ones with most points are kept."""
    shape = surfaces(statistics, planar, flatness, noise)
    along = shape.normals[:, :, None] * shape.normals[:, None, :]
    projector = np.where(shape.flat[:, None, None], along, np.eye(3))
    if planar:
        projector[:, 2, :] = 0.0
    keep: Any = slice(None)
    if len(statistics.keys) > capacity - 1:
        keep = np.sort(np.argpartition(-statistics.counts, capacity - 1)[: capacity - 1])
    keys = statistics.keys[keep]
    slot_keys, slot_rows = hash_slots(keys, 4 * capacity)
    filled = len(keys)

    # Single precision: a hundredth of a millimetre at a hundred metres, and half the bytes to move at every keyframe.
    anchors, shapes = np.zeros((capacity, 3), np.float32), np.zeros((capacity, 21), np.float32)
    anchors[:filled] = statistics.anchors[keep]
    shapes[:filled, :3] = statistics.means[keep]
    shapes[:filled, 3:12] = shape.whitening[keep].reshape(-1, 9)
    shapes[:filled, 12:] = projector[keep].reshape(-1, 9)
    columns: tuple[Any, ...] = (slot_keys, slot_rows, anchors, shapes, np.float64(statistics.size))
    return jax.device_put(VoxelTable(*columns))

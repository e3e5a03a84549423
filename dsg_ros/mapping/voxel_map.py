"""Voxels with distributions (NDT), built from the points of a few keyframes, and their hash table for lookups in JAX.

A local map is a pure function of keyframe poses and points: when the graph moves, it is simply built again (about a
millisecond for thirty planar keyframes), so nothing can go stale.  Each voxel keeps the additive statistics (n, sum x,
sum x x^T); the mean and the normal come from the statistics of the voxel and its neighbours merged, which keeps a wall
that straddles a voxel border one wall (Biber and Strasser, "The normal distributions transform", 2003; Magnusson, 2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

PROBES = 8
_OFFSET = 1 << 20
_EMPTY = np.int64(-1)


class VoxelTable(NamedTuple):
    """A local map on the device, of fixed shape: ``S`` hash slots, ``V`` voxel rows.

    A point belongs to the voxel whose own mean, ``anchors`` (V, 3), is nearest; its residual is taken against the mean of
    the merged neighbourhood, ``means`` (V, 3).
    ``whitening`` (V, 3, 3) maps ``point - mean`` to a residual of unit variance: one row (normal / sigma) where the voxel is
    planar, the inverse square root of its covariance elsewhere.  ``projector`` (V, 3, 3) keeps the part of ``point - mean``
    that counts as metric error: along the normal where planar, everything elsewhere.
    """

    slot_keys: Int[Array, " S"]
    slot_rows: Int[Array, " S"]
    anchors: Float[Array, "V 3"]
    means: Float[Array, "V 3"]
    whitening: Float[Array, "V 3 3"]
    projector: Float[Array, "V 3 3"]
    size: Float[Array, ""]


@dataclass(frozen=True)
class VoxelStatistics:
    """Host-side statistics of occupied voxels, sorted by packed ``keys`` (v,).

    ``anchors`` (v, 3) are the voxels' own means; ``counts`` (v,), ``means`` (v, 3) and ``covariances`` (v, 3, 3) those of
    the merged neighbourhoods.
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


def cells_of(points: NDArray[np.float64], size: float) -> NDArray[np.int64]:
    """Integer cells ``(n, 3)`` of points ``(n, 3)`` for a voxel edge ``size`` [m]."""
    return np.floor(points / size).astype(np.int64)


def neighbour_offsets(planar: bool) -> NDArray[np.int64]:
    """Packed-key offsets of a voxel and its neighbours: 9 in the plane, 27 in space."""
    reach = (-1, 0, 1)
    cells = np.array([(x, y, z) for x in reach for y in reach for z in ((0,) if planar else reach)], np.int64)
    return (cells[:, 0] << 42) + (cells[:, 1] << 21) + cells[:, 2]


def accumulate(points: NDArray[np.float64], size: float, planar: bool) -> VoxelStatistics:
    """Statistics of ``points`` (n, 3) in voxels of edge ``size``, each merged with its neighbours'.

    Sums are taken about the centre of each voxel, so that nothing cancels far from the origin.
    """
    cells = cells_of(points, size)
    keys, inverse = np.unique(pack(cells), return_inverse=True)
    count = len(keys)
    first = np.zeros(count, np.int64)
    first[inverse] = np.arange(len(points))
    centres = (cells[first] + 0.5) * size
    local = points - centres[inverse]
    own = np.empty((count, 10))
    own[:, 0] = np.bincount(inverse, minlength=count)
    for axis in range(3):
        own[:, 1 + axis] = np.bincount(inverse, local[:, axis], count)
    for column, (a, b) in enumerate(_PAIRS, start=4):
        own[:, column] = np.bincount(inverse, local[:, a] * local[:, b], count)
    merged = _merge_neighbours(own, keys, centres, planar)
    counts = merged[:, 0]
    offset = merged[:, 1:4] / counts[:, None]
    second = merged[:, 4:][:, _FULL].reshape(count, 3, 3) / counts[:, None, None]
    covariances = second - offset[:, :, None] * offset[:, None, :]
    anchors = centres + own[:, 1:4] / own[:, :1]
    return VoxelStatistics(size, keys, anchors, counts, centres + offset, covariances)


_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
_FULL = np.array([0, 1, 2, 1, 3, 4, 2, 4, 5])


def _merge_neighbours(own: NDArray[np.float64], keys: NDArray[np.int64], centres: NDArray[np.float64], planar: bool) -> NDArray[np.float64]:
    merged = np.zeros_like(own)
    for offset in neighbour_offsets(planar):
        wanted = keys + offset
        found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        here = np.nonzero(keys[found] == wanted)[0]
        there = found[here]
        n, s, q = own[there, :1], own[there, 1:4], own[there, 4:]
        d = centres[there] - centres[here]
        merged[here, :1] += n
        merged[here, 1:4] += s + n * d
        for column, (a, b) in enumerate(_PAIRS):
            shift = s[:, a] * d[:, b] + d[:, a] * s[:, b] + n[:, 0] * d[:, a] * d[:, b]
            merged[here, 4 + column] += q[:, column] + shift
    return merged


def surfaces(statistics: VoxelStatistics, planar: bool, flatness: float, noise: float) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Normals (v, 3), whether each voxel is a surface (v,), and the whitening matrices (v, 3, 3).

    A voxel is a surface when its smallest variance is below ``flatness`` times the next one; ``noise`` [m] is the standard
    deviation added to every variance (range noise, and what the voxel model does not explain).
    """
    covariances = statistics.covariances
    if planar:
        values, vectors = _eigen_planar(covariances)
    else:
        values, vectors = np.linalg.eigh(covariances)
    enough = statistics.counts >= (3 if planar else 5)
    is_surface = enough & (values[:, 0] < flatness * values[:, 1]) & (values[:, 1] > noise**2)
    normals = vectors[:, :, 0]
    sparse = np.where(enough, 0.0, (0.25 * statistics.size) ** 2)
    sigmas = np.sqrt(np.maximum(values, 0.0) + noise**2 + sparse[:, None])
    weights = 1.0 / sigmas
    weights[is_surface, 1:] = 0.0
    if planar:
        weights[:, 2] = 0.0  # the third axis is the height, which a planar scan does not measure
    whitening = weights[:, :, None] * np.swapaxes(vectors, 1, 2)
    return normals, is_surface, whitening


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

    ``slots`` is a power of two; keys that find no place within `PROBES` probes are left out (at a load below one half that
    is about one key in ten thousand): a voxel less in a map of thousands, never a wrong one.
    """
    slot_keys = np.full(slots, _EMPTY)
    slot_rows = np.zeros(slots, np.int32)
    waiting = np.arange(len(keys))
    start = _hash(keys) & (slots - 1)
    for probe in range(PROBES):
        slot = (start[waiting] + probe) & (slots - 1)
        free = slot_keys[slot] == _EMPTY
        slot_keys[slot[free]] = keys[waiting[free]]
        slot_rows[slot[free]] = waiting[free]
        waiting = waiting[slot_keys[slot] != keys[waiting]]
        if not len(waiting):
            break
    return slot_keys, slot_rows


def _hash(keys):  # NumPy and JAX arrays alike
    mixed = keys ^ (keys >> 21) ^ (keys >> 39)
    return (mixed * np.int64(0x9E3779B97F4A7C1)) >> 20 & np.int64(0x7FFFFFFF)


def table(statistics: VoxelStatistics, planar: bool, capacity: int, flatness: float, noise: float) -> VoxelTable:
    """The device form of ``statistics``, padded to ``capacity`` voxels; of more, the ones with most points are kept."""
    normals, is_surface, whitening = surfaces(statistics, planar, flatness, noise)
    projector = np.where(is_surface[:, None, None], normals[:, :, None] * normals[:, None, :], np.eye(3))
    if planar:
        projector[:, 2, :] = 0.0
    keep = slice(None)
    if len(statistics.keys) > capacity - 1:
        keep = np.sort(np.argpartition(-statistics.counts, capacity - 1)[: capacity - 1])
    keys = statistics.keys[keep]
    slot_keys, slot_rows = hash_slots(keys, 4 * capacity)
    filled = len(keys)

    def pad(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.zeros((capacity, *rows.shape[1:]))
        out[:filled] = rows[keep]
        return out

    columns = (pad(statistics.anchors), pad(statistics.means), pad(whitening), pad(projector))
    return jax.device_put(VoxelTable(slot_keys, slot_rows, *columns, np.float64(statistics.size)))

"""The finished map as a normal distributions transform: count, mean and covariance of the points in each voxel.

While the map grows nothing keeps these: a pure function of the keyframes' poses and points cannot go stale when the
graph moves, and is asked for only when the map is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.native import plain
from dsg_ros.interface import VoxelMap, VoxelUpdate
from dsg_ros.mapping import voxel_kernels

AT_ONCE = 1000
"""Keyframes whose points are in memory in map at one time."""

_PAIRS = np.array([(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 3)])
"""Which of a voxel's moments are the sums whose products its second moments are compared to."""


class Distributions(NamedTuple):
    """Of the points in voxels (v,), by the ``keys`` of their cells (`voxel_map.pack`), in increasing order: ``counts``
    (v,), ``means`` (v, 3) [m] and ``covariances`` (v, 6) [m^2], xx, xy, xz, yy, yz, zz.
    """

    keys: NDArray[np.int64]
    counts: NDArray[np.int64]
    means: NDArray[np.float64]
    covariances: NDArray[np.float64]


def distributions(
    clouds: Sequence[NDArray[np.floating]], trajectory: NDArray[np.float64], size: float, *, planar: bool
) -> Distributions:
    """Of ``clouds``, points (n, 3) in the frames of bases at ``trajectory`` (k, 7), in voxels of edge ``size`` [m], of
    one layer if ``planar``.

    Sums over all points of a voxel (Biber and Strasser, "The normal distributions transform", 2003), divided by how
    many there are.
    """
    keys, moments = np.zeros(0, np.int64), np.zeros((0, voxel_kernels.MOMENTS))
    middle = trajectory[:, :3].mean(axis=0) if len(trajectory) else np.zeros(3)
    for begin in range(0, len(clouds), AT_ONCE):
        some = clouds[begin : begin + AT_ONCE]
        points = plain(np.concatenate(some).astype(np.float64))
        lengths = np.array([len(cloud) for cloud in some])
        placed = voxel_kernels.placed(points, lengths, plain(trajectory[begin : begin + AT_ONCE]))
        _, _, cells, found = voxel_kernels.fill(placed, middle, size, planar)
        keys, which = np.unique(np.concatenate([keys, cells]), return_inverse=True)
        both, moments = np.concatenate([moments, found]), np.zeros((len(keys), voxel_kernels.MOMENTS))
        np.add.at(moments, which, both)
    scaled = moments / np.maximum(moments[:, :1], 1.0)
    covariances = scaled[:, 4:] - scaled[:, _PAIRS].prod(axis=2)
    diagonal = _PAIRS[:, 0] == _PAIRS[:, 1]
    covariances[:, diagonal] = np.maximum(covariances[:, diagonal], 0.0)  # of one point it is zero up to rounding
    return Distributions(keys, moments[:, 0].astype(np.int64), middle + scaled[:, 1:4], covariances)


def voxel_map(
    voxels: VoxelUpdate, cells: NDArray[np.int64], first_seen: NDArray[np.int64], there: Distributions
) -> VoxelMap:
    """All ``voxels`` of a map, whose ``cells`` are these keys (n,), ``first_seen`` (n,) [ns], and what is ``there``."""
    place = np.minimum(np.searchsorted(there.keys, cells), max(len(there.keys) - 1, 0))
    covariances = np.zeros((len(cells), 6), np.float32)
    if len(there.keys):
        known = there.keys[place] == cells
        covariances[known] = there.covariances[place[known]]
    return VoxelMap(**vars(voxels), first_seen=first_seen, covariances=covariances)

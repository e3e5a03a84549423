"""Quantities of a finished run that more than one figure or table needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.interface import RunResult, VoxelUpdate

Array = NDArray[np.float64]


def metres_driven(trajectory: Array) -> Array:
    """Path length [m] up to each pose of ``trajectory`` (n, 7), shape (n,), zero at the first."""
    if len(trajectory) == 0:
        return np.zeros(0)
    steps = np.linalg.norm(np.diff(trajectory[:, :3], axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def odometry_in_map(result: RunResult) -> Array:
    """The raw odometry (n, 7), moved rigidly so that its first pose is the first pose of the final trajectory."""
    if len(result.odometry) == 0:
        return result.odometry
    start = poses.compose(result.trajectory[0], poses.inverse(result.odometry[0]))
    return poses.compose(start, result.odometry)


def nearest(stamps: NDArray[np.int64], query: NDArray[np.int64]) -> NDArray[np.intp]:
    """Indices into ``stamps`` (n,), n >= 1, in any order, of the one closest to each ``query`` (m,)."""
    order = np.argsort(stamps, kind="stable")
    ordered = stamps[order]
    after = np.clip(np.searchsorted(ordered, query), 1, max(len(stamps) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(stamps) - 1)
    closer = np.abs(query - ordered[before]) <= np.abs(ordered[after] - query)
    return order[np.where(closer, before, after)]


def voxels_by_odometry(result: RunResult) -> tuple[Array, Array]:
    """Means (n, 3) and normals (n, 3) of the map as raw odometry would have drawn it.

    Each voxel is rigidly carried with the scan that saw it last: ``odometry * trajectory^-1`` at that stamp.
    """
    voxels, carrier = result.voxels, odometry_in_map(result)
    if len(voxels.ids) == 0 or len(carrier) == 0:
        return np.zeros((0, 3)), np.zeros((0, 3))
    seen = nearest(result.stamps, voxels.last_seen)
    motion = poses.compose(carrier, poses.inverse(result.trajectory))[seen]
    means = poses.transform(motion, voxels.means)
    normals = poses.rotate(motion[:, 3:], np.asarray(voxels.normals, float))
    return means, normals


def weight(voxels: VoxelUpdate) -> Array:
    """How well supported each voxel is, (n,) in [0, 1]: logarithm of its point count, 1 from the 90th percentile up."""
    if len(voxels.counts) == 0:
        return np.zeros(0)
    logarithm = np.log1p(np.asarray(voxels.counts, float))
    return np.clip(logarithm / max(float(np.quantile(logarithm, 0.9)), 1e-9), 0.0, 1.0)

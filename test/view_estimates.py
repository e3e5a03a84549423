"""Estimates of a small drive, for tests of what shows them."""

from __future__ import annotations

import numpy as np

from dsg_ros import poses
from dsg_ros.interface import Estimate, Parameter, Path, VoxelUpdate


def voxels(points: np.ndarray, removed: tuple[int, ...] = (), first: int = 0) -> VoxelUpdate:
    n = len(points)
    ids, flat = np.arange(first, first + n), np.zeros((n, 3), np.float32)
    counts = np.full(n, 5, np.int32)
    known = np.ones(len(ids), np.float32)
    return VoxelUpdate(0.2, ids, points.astype(np.float32), flat, counts, known, ids, np.array(removed, np.int64))


def estimate(keyframes: int, change: VoxelUpdate | None = None, scale: float = 1.0) -> Estimate:
    """After so many keyframes along x, of which the last one sees the first; the odometry tells 5 % more."""
    x = np.arange(keyframes, dtype=float)
    path = Path(
        (x * 1e9).astype(np.int64), poses.from_planar(x, 0 * x, 0 * x), np.array([[0, keyframes - 1]], np.int32)
    )
    told = (Parameter("odometry.scale", scale, 0.01, "ratio", "learned"),)
    losses = {"learning.loss_before": 2.0 / keyframes, "learning.loss_after": 1.0 / keyframes}
    odometry = poses.from_planar(1.05 * x[-1] + 7.0, 2.0, 0.0)
    counts = {"scans": 3 * keyframes, "keyframes": keyframes, "loops": 1}
    stamp = int(path.stamps[-1])
    return Estimate(stamp, path.poses[-1], odometry, np.eye(6), True, path, change, told, losses, counts)

"""What a pose and a voxel centre must be to be let into a graph: said once, for every structure that holds them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def pose_rows(values: ArrayLike) -> Floats:
    """Poses (n, 7) with unit quaternions.  ValueError unless they are finite, with quaternions of norm 1 to 1e-3."""
    poses = np.asarray(values, float)
    if poses.ndim != 2 or poses.shape[1] != 7 or not np.isfinite(poses).all():
        raise not_finite(poses)
    norm = np.linalg.norm(poses[:, 3:], axis=1, keepdims=True)
    if (np.abs(norm - 1) > 1e-3).any():
        raise no_rotations(poses)
    return np.concatenate([poses[:, :3], poses[:, 3:] / norm], axis=1)


def not_finite(poses: Floats) -> ValueError:
    """What to raise for ``poses`` of which one is not seven finite numbers."""
    return ValueError(f"a pose is seven finite numbers x y z qx qy qz qw, got {poses.tolist()}")


def no_rotations(poses: Floats) -> ValueError:
    """What to raise for ``poses`` (n, 7) of which a quaternion is off norm 1."""
    return ValueError(f"a pose's quaternion has norm 1, got {np.linalg.norm(poses[:, 3:], axis=1).tolist()}")


def pose_row(value: ArrayLike) -> Floats:
    """One pose (7,), likewise: an incremental update of one pose is too short for general arrays."""
    pose = np.asarray(value, float)
    if pose.shape == (7,):
        x, y, z, a, b, c, w = pose.tolist()
        norm = math.sqrt(a * a + b * b + c * c + w * w)
        if abs(norm - 1) <= 1e-3 and math.isfinite(x + y + z):
            return np.array([x, y, z, a / norm, b / norm, c / norm, w / norm])
    return np.asarray(pose_rows(pose[None])[0])


def voxel_rows(values: ArrayLike) -> Floats:
    """Voxel centres (n, 3) [m].  ValueError unless they are finite."""
    centres = np.asarray(values, float)
    if centres.ndim != 2 or centres.shape[1] != 3 or not np.isfinite(centres).all():
        raise ValueError(f"a voxel centre is three finite numbers, got {centres.tolist()}")
    return centres

"""The whole run's keyframes and the surfaces that they saw as one least-squares problem.

Registrations tie a keyframe to the one before and closures to a few others; what both were made of, the sightings of
voxels, ties it to all that saw the same surface, however long before or after.  A scan enters in both forms, each with
its share of the information, as in a run's windows (`dsg_ros.mapping.back_end`).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.core.factors import VoxelSensorObs
from dsg_ros.core.factors.base import Factor
from dsg_ros.core.problem import Problem
from dsg_ros.core.variables import State


class Surfaces(NamedTuple):
    """Sightings as rows whose ``voxel`` is a row of ``means`` (s, 3) in map [m]."""

    rows: Factor
    means: NDArray[np.float64]


def sides(
    voxel: NDArray[np.int64], normals: NDArray[np.float64], quaternions: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Which surface each of n sightings is of: a number from 0 on, and -1 where that is none that two have seen.

    A voxel can hold both sides of a thin wall, seen from two rooms: taken for one they would draw the rooms together by
    its thickness.  So a surface is what of a ``voxel`` (n,) faces those who saw it from the same side as the first one.
    ``normals`` (n, 3), zero where it is no surface, face the sensor and are in the frames of the bases that saw them,
    which have ``quaternions`` (n, 4) in map.
    """
    facing = poses.rotate(quaternions, normals)
    flat = np.flatnonzero(normals.any(axis=1))
    surface = np.full(len(voxel), -1)
    _, first, which = np.unique(voxel[flat], return_index=True, return_inverse=True)
    away = (facing[flat] * facing[flat[first]][which]).sum(axis=1) < 0.0
    _, number, seen = np.unique(2 * which + away, return_inverse=True, return_counts=True)
    shared = seen[number] > 1
    _, surface[flat[shared]] = np.unique(number[shared], return_inverse=True)
    return surface


def with_surfaces(problem: Problem, surfaces: Surfaces) -> Problem:
    """The ``problem`` of a run's keyframes, all of them in their order, with surfaces for its voxels."""
    count = len(surfaces.means)
    free: Any = np.ones(count, bool)
    means: Any = surfaces.means
    keys: Any = np.arange(count, dtype=np.int32)
    factors = tuple(surfaces.rows if isinstance(stack, VoxelSensorObs) else stack for stack in problem.factors)
    return dataclasses.replace(
        problem,
        state=State(problem.state.poses, means),
        free_voxels=free,
        voxel_keys=keys,
        factors=factors,
    )

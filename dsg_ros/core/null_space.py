"""Which variables the rows of a graph do not determine: those that move in the null space of the normal equations."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dsg_ros.core.variables import Kind

if TYPE_CHECKING:
    from dsg_ros.core.solution import Solution

VECTORS, PRODUCTS = 8, 4
"""Random vectors, and how often each is multiplied by the inverse."""
MOVES = 1e-3
"""Numbers of a null vector that are this share of its largest move; smaller ones are left over of the random start."""


class Free(NamedTuple):
    """A variable that could move without changing the cost, under the world's ``key``; of a pose, whether its
    ``position`` or its ``rotation``.  A voxel has a position alone.
    """

    kind: Kind
    key: int
    position: bool
    rotation: bool


def free_variables(solution: Solution) -> list[Free]:
    """Poses, then voxels, that move in the null space of the normal equations H, in the order of the solution; found by
    inverse iteration.

    The factorisation of a SINGULAR solution is of H with a little damping: its inverse magnifies what H does not
    resist by far the most, so that a few products leave nothing else of random vectors.  Damping follows the diagonal
    of H: where some null directions are damped less than others by orders of magnitude, those alone are named.  Costs
    `VECTORS` times `PRODUCTS` back-substitutions.  Empty where even the damped H could not be factorised.
    """
    if solution.factorisation is None:
        return []
    vectors = np.random.default_rng(0).normal(size=(solution.state.dof, VECTORS))
    for _ in range(PRODUCTS):
        vectors = np.array(solution.factorisation.solve(vectors))
        vectors /= np.maximum(np.abs(vectors).max(axis=0), 1e-300)
    moves = np.abs(vectors).max(axis=1) > MOVES
    border = 6 * len(np.asarray(solution.state.poses))
    poses = moves[:border].reshape(-1, 2, 3).any(axis=2)
    voxels = moves[border:].reshape(-1, 3).any(axis=1)
    pose_keys, voxel_keys = np.asarray(solution.pose_keys), np.asarray(solution.voxel_keys)
    out = [Free(Kind.POSE, int(pose_keys[i]), *map(bool, poses[i])) for i in np.flatnonzero(poses.any(axis=1))]
    return out + [Free(Kind.VOXEL, int(voxel_keys[i]), True, False) for i in np.flatnonzero(voxels)]

"""Which variables the rows of a graph do not determine: those that move in the null space of the normal equations."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    resist by far the most, so that a few products leave nothing else of random vectors.  Damping is a multiple of the
    diagonal, so some null directions may be damped less than others by orders of magnitude, and hide those: the same is
    done with H scaled to a unit diagonal, where all are damped alike, and what only that finds is named too.  Costs
    twice `VECTORS` times `PRODUCTS` back-substitutions.  Empty where even the damped H could not be factorised.
    """
    if solution.factorisation is None:
        return []
    scale = np.asarray(solution.factorisation.scale)
    back = np.where(scale > 0, 1.0 / np.where(scale > 0, scale, 1.0), 0.0)
    moves, scaled = _moves(solution, np.ones(len(scale))), _moves(solution, back)
    border = 6 * len(np.asarray(solution.state.poses))
    poses, more = (np.any(each[:border].reshape(-1, 2, 3), axis=2) for each in (moves, scaled))
    named = np.any(poses, axis=1)
    poses = np.where(named[:, None], poses, more)
    voxels = (moves | scaled)[border:].reshape(-1, 3).any(axis=1)
    pose_keys, voxel_keys = np.asarray(solution.pose_keys), np.asarray(solution.voxel_keys)
    out = [Free(Kind.POSE, int(pose_keys[i]), *map(bool, poses[i])) for i in np.flatnonzero(np.any(poses, axis=1))]
    return out + [Free(Kind.VOXEL, int(voxel_keys[i]), True, False) for i in np.flatnonzero(voxels)]


def _moves(solution: Solution, back: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(D,) which numbers move in the null space of H scaled from both sides by one over ``back`` (D,)."""
    vectors = np.random.default_rng(0).normal(size=(len(back), VECTORS))
    for _ in range(PRODUCTS):
        vectors = back[:, None] * np.array(solution.factorisation.solve(back[:, None] * vectors))
        vectors /= np.maximum(np.abs(vectors).max(axis=0), 1e-300)
    moved: NDArray[np.bool_] = np.abs(vectors).max(axis=1) > MOVES
    return moved

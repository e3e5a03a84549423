"""Which variables the rows of a graph do not determine: those that move in the null space of the normal equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array, diags_array
from scipy.sparse.linalg import SuperLU, splu

from dsg_ros.core.variables import Kind

if TYPE_CHECKING:
    from dsg_ros.core.solution import Solution

Floats = NDArray[np.float64] | Any

VECTORS, PRODUCTS = 8, 4
"""Random vectors, and how often each is multiplied by the inverse."""
MOVES = 1e-3
"""Numbers of a null vector that are this share of its largest move; smaller ones are left over of the random start."""

ROUNDING = 1e-9
"""Share of a null vector's largest number [m, rad] that is no motion of its own."""
DAMPING, RESISTED = 1e-12, 1e-11
"""Of normal equations that are factorised for this alone: damping as a share of their diagonal, and what is left of a
vector of the null space multiplied by them, their diagonal scaled to one.  The softest mode of a chain of 100,000
poses has 2e-10.
"""


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
    done with H scaled to a unit diagonal, where all are damped alike, and what only that finds is named too.  There a
    number whose diagonal is rounding drags others along, by less than rounding in their own units: of a pose that is
    named already, those are left out.  Costs twice `VECTORS` times `PRODUCTS` back-substitutions.  Empty where even the
    damped H could not be factorised.
    """
    if solution.factorisation is None:
        return []
    scale = np.asarray(solution.factorisation.scale)
    back = np.where(scale > 0, 1.0 / np.where(scale > 0, scale, 1.0), 0.0)
    solver = solution.factorisation.solve
    moves, scaled = _moves(_soft(solver, np.ones(len(back)))), _soft(solver, back)
    more = _moves(scaled)
    apart = np.abs(np.divide(scaled, back[:, None], out=np.zeros(scaled.shape), where=back[:, None] > 0))
    sure = more & (apart > ROUNDING * apart.max(axis=0)).any(axis=1)
    border = 6 * len(np.asarray(solution.state.poses))
    poses, others, surely = (np.any(each[:border].reshape(-1, 2, 3), axis=2) for each in (moves, more, sure))
    poses |= np.where(np.any(poses, axis=1)[:, None], surely, others)
    voxels = (moves | more)[border:].reshape(-1, 3).any(axis=1)
    pose_keys, voxel_keys = np.asarray(solution.pose_keys), np.asarray(solution.voxel_keys)
    out = [Free(Kind.POSE, int(pose_keys[i]), *map(bool, poses[i])) for i in np.flatnonzero(np.any(poses, axis=1))]
    return out + [Free(Kind.VOXEL, int(voxel_keys[i]), True, False) for i in np.flatnonzero(voxels)]


def free_numbers(hessian: csc_array) -> NDArray[np.bool_]:
    """(D,) which numbers move in the null space of ``hessian`` (D, D).  `free_variables`, where there is none but this:
    at the price of a factorisation, damped.
    """
    diagonal = hessian.diagonal()
    diagonal[diagonal <= 0.0] = 1.0
    damped = csc_array(hessian + DAMPING * diags_array(diagonal, format="csc"))
    solver, back = symmetric(damped).solve, np.sqrt(diagonal)
    scaled = _soft(solver, back)
    if np.abs(hessian @ (scaled / back[:, None]) / back[:, None]).max() > RESISTED:
        return np.zeros(len(back), bool)
    return _moves(scaled) | _moves(_soft(solver, np.ones(len(back))))


def symmetric(matrix: csc_array) -> SuperLU:
    """A positive definite matrix factorised, in an order for symmetric ones and without pivoting: COLAMD's and partial
    pivoting, SuperLU's defaults, make seven times as many numbers of a window.  RuntimeError where a pivot is zero.
    """
    return splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})


def assembled(blocks: NDArray[np.float64], rows: NDArray[np.int64], columns: NDArray[np.int64], size: int) -> csc_array:
    """The sum (size, size) of ``blocks`` (n, a, b) at ``rows`` (n, a) and ``columns`` (n, b), of which those below
    zero, of what is held, are left out.
    """
    kept = (rows >= 0)[:, :, None] & (columns >= 0)[:, None, :]
    at = tuple(np.broadcast_to(each, kept.shape)[kept] for each in (rows[:, :, None], columns[:, None, :]))
    return csc_array(coo_array((blocks[kept], at), shape=(size, size)))


def _soft(solve: Callable[[Floats], Floats], back: NDArray[np.float64]) -> NDArray[np.float64]:
    """(D, `VECTORS`) vectors, their largest number one, of the softest modes of the H that ``solve`` divides by, scaled
    from both sides by one over ``back`` (D,).
    """
    vectors = np.random.default_rng(0).normal(size=(len(back), VECTORS))
    for _ in range(PRODUCTS):
        vectors = back[:, None] * np.array(solve(back[:, None] * vectors))
        vectors /= np.maximum(np.abs(vectors).max(axis=0), 1e-300)
    return vectors


def _moves(vectors: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(D,) which numbers move."""
    moved: NDArray[np.bool_] = np.abs(vectors).max(axis=1) > MOVES
    return moved

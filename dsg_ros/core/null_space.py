"""Which variables the rows of a graph do not determine: those that move in the null space of the normal equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, diags_array

from dsg_ros.core.sparse_matrices import symmetric

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


def moving_parts(
    solve: Callable[[Floats], Floats], scale: NDArray[np.float64], border: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each pose whether its position and its rotation (p, 2), of each voxel whether it (v,) moves in the null space
    of the normal equations H; found by inverse iteration with ``solve``, which divides by H with a little damping.

    ``scale`` (D,) gives H a unit diagonal from both sides, the numbers of poses end at ``border``.  The inverse of the
    damped H magnifies what H does not resist by far the most, so that a few products leave nothing else of random
    vectors.  Damping is a multiple of the diagonal, so some null directions may be damped less than others by orders of
    magnitude, and hide those: the same is done with H scaled to a unit diagonal, where all are damped alike, and what
    only that finds is named too.  There a number whose diagonal is rounding drags others along, by less than rounding
    in their own units: of a pose that is named already, those are left out.  Costs twice `VECTORS` times `PRODUCTS`
    back-substitutions.
    """
    back = np.where(scale > 0, 1.0 / np.where(scale > 0, scale, 1.0), 0.0)
    moves, scaled = _moves(_soft(solve, np.ones(len(back)))), _soft(solve, back)
    more = _moves(scaled)
    apart = np.abs(np.divide(scaled, back[:, None], out=np.zeros(scaled.shape), where=back[:, None] > 0))
    sure = more & (apart > ROUNDING * apart.max(axis=0)).any(axis=1)
    poses, others, surely = (np.any(each[:border].reshape(-1, 2, 3), axis=2) for each in (moves, more, sure))
    poses |= np.where(np.any(poses, axis=1)[:, None], surely, others)
    voxels: NDArray[np.bool_] = np.any((moves | more)[border:].reshape(-1, 3), axis=1)
    return poses, voxels


def free_numbers(hessian: csc_array) -> NDArray[np.bool_]:
    """(D,) which numbers move in the null space of ``hessian`` (D, D).  As `moving_parts`, without a factorisation at
    hand: at the price of one, damped.
    """
    diagonal = hessian.diagonal()
    diagonal[diagonal <= 0.0] = 1.0
    damped = csc_array(hessian + DAMPING * diags_array(diagonal, format="csc"))
    solver, back = symmetric(damped).solve, np.sqrt(diagonal)
    scaled = _soft(solver, back)
    if np.abs(hessian @ (scaled / back[:, None]) / back[:, None]).max() > RESISTED:
        return np.zeros(len(back), bool)
    return _moves(scaled) | _moves(_soft(solver, np.ones(len(back))))


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

"""Derivatives in theta of what a fixed-lag smoother estimates, through rows that have left it too.

The optimum of a window moves by ``dx / dtheta = -H^-1 dg / dtheta`` (implicit function theorem), with H and g as the
window is solved: Gauss-Newton's, with first-estimate Jacobians.  Rows that are used up are in the prior, whose
information and gradient depend on theta: how they change is carried along as poses leave, since nothing else of these
rows is kept.  What the points of linearisation change with theta is left out: a prior is about where poses are, not
about where they were linearised, up to what `window.marginalise` itself leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_array, diags_array
from scipy.sparse.linalg import SuperLU

from dsg_ros.core.solvers import window
from dsg_ros.core.solvers.linear import SMALLEST_PIVOT
from dsg_ros.core.solvers.window import Prior, Slopes, System
from dsg_ros.core.sparse_matrices import symmetric
from dsg_ros.core.theta import Mask, Theta, directions

Array = NDArray[np.float64]

STEP = 1e-4
"""In every number of theta, to either side.  What differences leave out is of the order of its square; rounding is far
below that.
"""


class Dependence(NamedTuple):
    """What depends on theta: in itself, in the K numbers that are ``learned``, and through a ``prior``."""

    theta: Theta
    learned: Mask
    prior: Prior | None

    def slope(self, of: Callable[[Theta, Prior | None], Array]) -> Array:
        """(K, ...) derivatives of an array, by central differences: what makes it is compiled, and no JAX."""
        ways, slopes = directions(self.theta, self.learned), []
        for k in range(len(ways.scale)):
            up, down = (of(self._theta(ways, k, h), self.prior and self.prior.along(k, h)) for h in (STEP, -STEP))
            slopes.append((up - down) / (2 * STEP))
        return np.stack(slopes) if slopes else np.zeros((0, *of(self.theta, self.prior).shape))

    def _theta(self, ways: Theta, k: int, step: float) -> Theta:
        moved: Theta = jax.tree.map(lambda leaf, way: np.asarray(leaf) + step * way[k], self.theta, ways)
        return moved


def prior_slopes(dependence: Dependence, anew: Callable[[Theta, Prior | None], System], axes: Sequence[int]) -> Slopes:
    """Those of the prior that is left (`window.marginalise`) of the system that ``anew`` makes of a theta and of an
    older prior.
    """

    def numbers(theta: Theta, older: Prior | None) -> Array:
        prior, _ = window.marginalise(anew(theta, older), axes)
        return np.column_stack([prior.information, prior.gradient])

    slopes = dependence.slope(numbers)
    return Slopes(slopes[:, :, :-1], slopes[:, :, -1])


class LagDerivative:
    """Derivatives of a window's optimum in the K numbers of theta that are learned, in the order of `theta.names`: one
    factorisation here, one substitution a product.

    ``system`` is the window at its optimum, ``anew`` makes it of another theta and prior, with the same values.
    Tangents (D,) are those of the poses (p, 6), then of the voxels (v, 3), zero where the window holds them.

    ValueError where the rows do not determine the window.
    """

    def __init__(
        self, dependence: Dependence, system: System, axes: Sequence[int],
        anew: Callable[[Theta, Prior | None], System],
    ) -> None:  # fmt: skip
        hessian, numbers = window.hessian(system, axes)
        diagonal = hessian.diagonal()
        self._scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        scaled = diags_array(self._scale) @ hessian @ diags_array(self._scale)
        self._factor = _factorised(scaled.tocsc())
        count = len(system.poses)
        places = [6 * np.arange(count)[:, None] + np.asarray(axes), 6 * count + np.arange(system.voxels.size)]
        moving = [of.ravel() >= 0 for of in (numbers.of_poses, numbers.of_voxels)]
        self._numbers = np.concatenate([place.ravel()[which] for place, which in zip(places, moving, strict=True)])
        self._dof = 6 * count + system.voxels.size
        self._change = dependence.slope(lambda theta, prior: window.gradient(anew(theta, prior), axes)).T

    def jacobian(self) -> Array:
        """``d tangent / d theta`` (D, K)."""
        out = np.zeros((self._dof, self._change.shape[1]))
        out[self._numbers] = -self._scale[:, None] * self._factor.solve(self._scale[:, None] * self._change)
        return out

    def vjp(self, cotangent: ArrayLike) -> Array:
        """Gradient (K,) of a function of the estimates whose gradient in their tangents is ``cotangent`` (D,).

        ValueError for another shape.
        """
        right = np.asarray(cotangent, float)
        if right.shape != (self._dof,):
            raise ValueError(f"cotangent: shape {right.shape}, expected {(self._dof,)}")
        product: Array = -(self._scale * self._factor.solve(self._scale * right[self._numbers])) @ self._change
        return product


def _factorised(scaled: csc_array) -> SuperLU:
    """ValueError where a pivot is rounding, of a matrix with unit diagonal."""
    try:
        factor = symmetric(scaled)
    except RuntimeError:  # a pivot is zero
        factor = None
    if factor is None or np.abs(factor.U.diagonal()).min(initial=1.0) < SMALLEST_PIVOT:
        raise ValueError("no derivative: the rows do not determine the window")
    return factor

"""Derivatives in theta of what a fixed-lag smoother estimates, through rows that have left it too.

The optimum of a window moves by ``dx / dtheta = -H^-1 dg / dtheta`` (implicit function theorem; H as the window is
solved, Gauss-Newton's with first-estimate Jacobians).  Of ``dg / dtheta``, what rows in the window add is exact.  Rows
that are used up are in the prior, whose information and gradient depend on theta: how they change is carried along as
poses leave (`condensed_slopes`), since nothing else of these rows is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import diags_array
from scipy.sparse.linalg import splu

from dsg_ros.core.chunks import Chunks
from dsg_ros.core.factors import Factor
from dsg_ros.core.problem import Problem
from dsg_ros.core.solvers import window
from dsg_ros.core.solvers.linear import SMALLEST_PIVOT
from dsg_ros.core.solvers.window import Prior, System
from dsg_ros.core.theta import Mask, Theta, directions
from dsg_ros.core.variables import State

Array = NDArray[np.float64]

STEP = 1e-4
"""In every number of theta, to either side: what is left out is of the order of its square, rounding far below that."""


class PriorSlopes(NamedTuple):
    """How a prior about n numbers changes with K numbers of theta: ``information`` (K, n, n), ``gradient`` (K, n)."""

    information: Array
    gradient: Array

    @staticmethod
    def zeros(count: int, numbers: int) -> PriorSlopes:
        """Those of a prior that does not depend on theta."""
        return PriorSlopes(np.zeros((count, numbers, numbers)), np.zeros((count, numbers)))


def condensed_slopes(
    condense: Callable[[Theta, Prior | None], Prior],
    theta: Theta,
    learned: Mask,
    prior: Prior | None,
    slopes: PriorSlopes | None,
) -> PriorSlopes:
    """The slopes at ``theta`` of the prior that ``condense`` makes of the rows at a theta and of an older prior, which
    changes by ``slopes``; by central differences, as the condensation is one compiled program that is no JAX.

    What the points of linearisation change with theta is left out: the prior is about where poses are, not about where
    they were linearised, up to what `window.marginalise` itself leaves out.
    """
    found = []
    for k, way in enumerate(_each(directions(theta, learned))):
        ends = []
        for step in (STEP, -STEP):
            moved: Theta = jax.tree.map(lambda leaf, along, h=step: np.asarray(leaf) + h * along, theta, way)
            ends.append(condense(moved, _moved(prior, slopes, k, step)))
        up, down = ends
        found.append(((up.information - down.information) / (2 * STEP), (up.gradient - down.gradient) / (2 * STEP)))
    return PriorSlopes(*(np.stack(parts) for parts in zip(*found, strict=True)))


def _each(ways: Theta) -> list[Theta]:
    return [jax.tree.map(lambda leaf, k=k: leaf[k], ways) for k in range(len(ways.scale))]


def _moved(prior: Prior | None, slopes: PriorSlopes | None, k: int, step: float) -> Prior | None:
    if prior is None or slopes is None:
        return prior
    information, gradient = slopes.information[k], slopes.gradient[k]
    return prior.changed(prior.information + step * information, prior.gradient + step * gradient)


class LagDerivative:
    """Derivatives of a window's optimum in the K numbers of theta that ``learned`` selects, in the order of
    `theta.names`: one factorisation here, one substitution a product.

    ``system`` is the window at its optimum, all of it free, ``factors`` its rows under the keys of the system,
    ``slopes`` those of its prior (None: it does not depend on theta).  Tangents (D,) are those of the poses (p, 6),
    then of the voxels (v, 3), zero where the window holds them.

    ValueError where the rows do not determine the window.
    """

    def __init__(
        self, system: System, axes: Sequence[int], theta: Theta, learned: Mask, factors: Sequence[Factor],
        slopes: PriorSlopes | None,
    ) -> None:  # fmt: skip
        problem = _problem(system, axes, factors)
        hessian, of_pose, of_voxel = window.hessian(system, axes)
        self._numbers = np.concatenate(
            [
                (6 * np.arange(len(system.poses))[:, None] + np.asarray(axes))[of_pose >= 0],
                (6 * len(system.poses) + np.arange(of_voxel.size).reshape(-1, 3))[of_voxel >= 0],
            ]
        )
        diagonal = hessian.diagonal()
        scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        scaled = diags_array(scale) @ hessian @ diags_array(scale)
        try:
            self._factor = splu(scaled.tocsc(), options={"SymmetricMode": True})
        except RuntimeError as error:
            raise ValueError("no derivative: the rows do not determine the window") from error
        if np.abs(self._factor.U.diagonal()).min(initial=1.0) < SMALLEST_PIVOT:
            raise ValueError("no derivative: the rows do not determine the window")
        self._scale = scale
        # Few numbers are learned: a column for each once, and a product is a substitution.
        self._change = Chunks(problem).theta_jacobian(theta, problem.state, directions(theta, learned))
        if system.prior is not None and slopes is not None:
            self._change += _prior_change(system, axes, slopes, problem.state.dof)

    def jacobian(self) -> Array:
        """``d tangent / d theta`` (D, K)."""
        return -self._solved(self._change)

    def vjp(self, cotangent: ArrayLike) -> Array:
        """Gradient (K,) of a function of the estimates whose gradient in their tangents is ``cotangent`` (D,).

        ValueError for another shape.
        """
        right = np.asarray(cotangent, float)
        if right.shape != (len(self._change),):
            raise ValueError(f"cotangent: shape {right.shape}, expected {(len(self._change),)}")
        return -self._solved(right) @ self._change

    def _solved(self, right: Array) -> Array:
        """``H^-1 right`` (D, ...)."""
        out = np.zeros_like(right)
        scale = self._scale.reshape(-1, *[1] * (right.ndim - 1))
        out[self._numbers] = scale * self._factor.solve(scale * right[self._numbers])
        return out


def _problem(system: System, axes: Sequence[int], factors: Sequence[Factor]) -> Problem:
    arrays: tuple[Any, ...] = (system.poses, system.voxels, system.free_voxels, system.pose_keys, system.voxel_keys)
    poses, voxels, free_voxels, pose_keys, voxel_keys = arrays
    free: Any = np.isin(np.arange(6), axes) & system.free_poses[:, None]
    return Problem(State(poses, voxels), free, free_voxels, tuple(factors), pose_keys, voxel_keys)


def _prior_change(system: System, axes: Sequence[int], slopes: PriorSlopes, dof: int) -> Array:
    """(D, K) how the prior's share of the gradient changes with theta."""
    place, away = window.away_from_prior(system, axes)
    out = np.zeros((dof, len(slopes.gradient)))
    out[(6 * place[:, None] + np.asarray(axes)).ravel()] = (slopes.information @ away + slopes.gradient).T
    return out

"""Held-out prediction: how well odometry, calibrated by theta, foretells what the scan matcher saw in a block.

The inner solve has the block's odometry only.  Every registration of the block is left out of it and scored at its
solution with the covariance that the prediction really has, ``S = R + J P J^T``: R the registration's own, P that of
the solved poses, from the factorisation of the inner solve.

A registration may observe some directions only (a corridor), so R^-1 = A^T A may be singular and R not exist.  With
``M = 1 + A J P J^T A^T = L L^T`` the whitened innovation is ``u = L^-1 A e``, and ``|u|^2 = e^T S^-1 e`` whenever R
exists; unobserved directions have zero rows in A and add nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from dsg_ros.core.implicit import implicit_jacobian
from dsg_ros.core.problem import Problem, gather
from dsg_ros.core.solution import Solution
from dsg_ros.core.solve import solve
from dsg_ros.core.solvers import DenseCholesky, LevenbergMarquardt
from dsg_ros.core.theta import Mask, Theta
from dsg_ros.learning.block import Block

FREEDOM = 8.0
"""Degrees of freedom of the Student t that innovations are taken to follow: a slipping wheel widens nothing."""

DILUTED = ("odometry.scale", "odometry.rotation_gain")
"""The gains, in the order of `dilution`."""

INNER = LevenbergMarquardt(max_iterations=20)
"""The inner solver: a chain of odometry has a minimum of zero, which it finds in a few steps."""


class Prediction(NamedTuple):
    """Held-out rows at the inner solution.

    ``innovation`` (m, 6) errors of the rows, ``root`` (m, 6, 6) their square-root information A, ``jacobian`` (m, 6,
    D) the errors' derivatives in the state's tangent.
    """

    innovation: Float[Array, "m 6"]
    root: Float[Array, "m 6 6"]
    jacobian: Float[Array, "m 6 D"]


class Score(NamedTuple):
    """A block under one theta.

    ``loss`` is the mean robust normalised innovation squared per observed direction: about 1 where the model of
    motion and noise is right.  ``cost`` is half its sum, with ``gradient`` (K,) and Gauss-Newton ``hessian`` (K, K)
    in theta at fixed S.  ``nis`` is the mean without the kernel: exactly 1 on average where S is right.
    """

    loss: Float[Array, ""]
    cost: Float[Array, ""]
    gradient: Float[Array, " K"]
    hessian: Float[Array, "K K"]
    nis: Float[Array, ""]


def predict(block: Block, theta: Theta, solution: Solution) -> Prediction:
    """The held-out rows of ``block`` at the solution of its inner problem."""
    state, rows = solution.state, block.held_out
    values = gather(rows, state)
    innovation, (first, second) = jax.vmap(lambda row, *v: row.jacobians(theta, *v))(rows, *values)
    root = jax.vmap(lambda row: row.sqrt_information(theta))(rows)
    index = jnp.arange(rows.weight.shape[0])
    poses = state.poses.shape[0]
    jacobian = jnp.zeros((len(index), 6, poses, 6))
    jacobian = jacobian.at[index, :, rows.first].add(first).at[index, :, rows.second].add(second)
    jacobian = jnp.pad(jacobian.reshape(len(index), 6, poses * 6), ((0, 0), (0, 0), (0, state.dof - poses * 6)))
    return Prediction(innovation, root, jacobian)


class _Foretold(NamedTuple):
    """The inner ``problem``, the block solved from its odometry, its held-out rows there, the covariance (D, D) of the
    poses, and the module's L (m, 6, 6) and u (m, 6).
    """

    problem: Problem
    solution: Solution
    held: Prediction
    covariance: Float[Array, "D D"]
    lower: Float[Array, "m 6 6"]
    u: Float[Array, "m 6"]


def _foretold(block: Block, theta: Theta) -> _Foretold:
    problem = block.problem(theta)
    solution = solve(problem, theta, INNER)
    held = predict(block, theta, solution)
    covariance = solution.factorisation.solve(jnp.eye(solution.state.dof))
    return _Foretold(problem, solution, held, covariance, *whitened_spread(held, covariance))


def _squared_width(block: Block, width: float) -> Array:
    """Of the Cauchy kernel (m,), for rows that observe several directions."""
    return width**2 * jnp.maximum(block.directions, 1.0)


def score(block: Block, theta: Theta, mask: Mask, width: float) -> Score:
    """Solve ``block`` from odometry, score its held-out rows, and differentiate the score through the solution.

    The derivative of the innovations in theta is ``J dx*/dtheta`` with the solution's implicit Jacobian: one
    back-substitution with the inner solve's own factor.  ``width`` is the Cauchy kernel's, in standard deviations a
    direction.
    """
    return _score(block, theta, mask, width, _foretold(block, theta))


def _score(block: Block, theta: Theta, mask: Mask, width: float, foretold: _Foretold) -> Score:
    problem, solution, held, _, lower, u = foretold
    sensitivity = implicit_jacobian(problem, theta, solution, mask)
    du = _forward(lower, held.root @ held.jacobian @ sensitivity)
    squared, width2 = jnp.sum(u**2, axis=1), _squared_width(block, width)
    cost = 0.5 * jnp.sum(width2 * jnp.log1p(squared / width2))
    # Some processors' triangular solve makes zeros of numbers beyond 1e200 instead of letting the square overflow.
    told = jnp.einsum("mij,mj->mi", held.root, held.innovation)
    cost = jnp.where(jnp.isfinite(jnp.sum(told**2)), cost, jnp.inf)
    weight = width2 / (width2 + squared)
    observed = jnp.maximum(jnp.sum(block.directions), 1.0)
    return Score(
        2 * cost / observed,
        cost,
        jnp.einsum("m,mik,mi->k", weight, du, u),
        jnp.einsum("m,mik,mil->kl", weight, du, du),
        jnp.sum(squared) / observed,
    )


def dilution(block: Block, theta: Theta, width: float) -> Float[Array, " 2"]:
    """What noise in the measured increments adds to the gradient of `score` in the gains of translation and rotation.

    A gain multiplies a measurement, noise and all, so the gradient correlates with the innovation even where theta is
    right, by what noise in translation or rotation explains of the innovations: ``w e^T S^-1 J P_k J^T S^-1 e / gain``
    summed over rows, for a gain of ``1 + theta.scale`` or ``1 + theta.rotation_gain``.  Without turns to outweigh it a
    rotation gain seems to fall (regression dilution).  The gradient less this is that of Deming's regression (Fuller,
    "Measurement error models", 1987, section 1.3); its mean is zero where noise does not grow with what is measured,
    as it does in turns.
    """
    return _dilution(block, theta, width, _foretold(block, theta))


def score_and_dilution(block: Block, theta: Theta, mask: Mask, width: float) -> tuple[Score, Float[Array, " 2"]]:
    """`score` and `dilution` of one inner solve."""
    foretold = _foretold(block, theta)
    return _score(block, theta, mask, width, foretold), _dilution(block, theta, width, foretold)


def _dilution(block: Block, theta: Theta, width: float, foretold: _Foretold) -> Float[Array, " 2"]:
    _, solution, held, covariance, lower, u = foretold
    width2 = _squared_width(block, width)
    weight = width2 / (width2 + jnp.sum(u**2, axis=1))
    told = jax.vmap(lambda a, b: solve_triangular(a, b, lower=True, trans=1))(lower, u)
    pulled = jnp.einsum("mid,mi->md", held.root @ held.jacobian, told)
    moved = (pulled @ covariance)[:, : 6 * solution.state.poses.shape[0]].reshape(len(u), -1, 6)
    rows = block.odometry
    _, (previous, current) = jax.vmap(lambda row, *v: row.jacobians(theta, *v))(rows, *gather(rows, solution.state))
    noise = jax.vmap(lambda row: row.sqrt_information(theta))(rows)
    along = jnp.einsum("nij,mnj->mni", previous, moved[:, rows.previous])
    along = (along + jnp.einsum("nij,mnj->mni", current, moved[:, rows.current])) * noise
    share = jnp.einsum("m,mni->i", weight, along**2)
    gains = 1 + jnp.stack([jnp.asarray(theta.scale), jnp.asarray(theta.rotation_gain)])
    return jnp.stack([jnp.sum(share[:3]), jnp.sum(share[3:])]) / gains


def negative_log_likelihood(block: Block, theta: Theta, width: float) -> Float[Array, ""]:
    """Of the held-out rows under S, up to a constant; differentiable in theta.odometry_noise at a fixed solution.

    Innovations follow a Student t, whose tails take the place of a kernel of some ``width``.

    (The minimum of a chain does not move with its sigmas, so nothing is lost by fixing it.)
    """
    problem = block.problem(theta)
    solution = jax.lax.stop_gradient(solve(problem, jax.lax.stop_gradient(theta), INNER))
    held = predict(block, theta, solution)
    _, normal = problem.linearise(theta, solution.state)
    covariance = DenseCholesky().factorise(problem, normal, jnp.zeros(())).solve(jnp.eye(solution.state.dof))
    lower, u = whitened_spread(held, covariance)
    squared = jnp.sum(u**2, axis=1)
    tails = 0.5 * (FREEDOM + block.directions) * jnp.log1p(squared / FREEDOM)
    return jnp.sum(tails) + jnp.sum(jnp.log(jnp.diagonal(lower, axis1=1, axis2=2)))


def whitened_spread(held: Prediction, covariance: Float[Array, "D D"]) -> tuple[Array, Array]:
    """The factors L (m, 6, 6) and whitened innovations u (m, 6) of the module's text."""
    spread = held.root @ held.jacobian
    lower = jnp.linalg.cholesky(jnp.eye(6) + jnp.einsum("mid,de,mje->mij", spread, covariance, spread))
    return lower, _forward(lower, jnp.einsum("mij,mj->mi", held.root, held.innovation)[..., None])[..., 0]


def _forward(lower: Array, right: Array) -> Array:
    return jax.vmap(lambda a, b: solve_triangular(a, b, lower=True))(lower, right)

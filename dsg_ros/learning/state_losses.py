"""The classical alternatives to held-out prediction: the block solved with its registrations in it.

`score`: the calibration as if it were a variable of the state beside the poses, which eliminating the poses leaves: the
minimum over the poses of the cost of *all* rows, as a function of theta.  Its gradient is the cost's own partial
derivative there (the envelope theorem), its Hessian Gauss-Newton's along the way the minimum goes.  Where
the errors of odometry are those of single links and rows compare neighbours, this is ``e^T S^-1 e / 2`` of the
held-out loss, to first order: the Schur complement of one is the matrix inversion lemma of the other.

`negative_log_likelihood`: Laplace's approximation of the marginal likelihood, which also counts how far the poses are
free (``log det H / 2``) and what narrower deviations cost (``log det W``), so that noise can be learned from it
(MacKay, "Information Theory, Inference, and Learning Algorithms", 2003, ch. 27).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsg_ros.core.factors.base import Kernel, robust_weight
from dsg_ros.core.implicit import implicit_jacobian
from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Result
from dsg_ros.core.solve import solve, solve_differentiable
from dsg_ros.core.solvers import DenseCholesky, LevenbergMarquardt
from dsg_ros.core.theta import Mask, Theta, directions
from dsg_ros.learning.block import Block
from dsg_ros.learning.losses import Score

INNER = LevenbergMarquardt(max_iterations=50, tolerance=1e-14)


def whole(block: Block, theta: Theta, width: float) -> Problem:
    """The inner problem with the registrations in it, under a Cauchy kernel ``width`` deviations a direction wide."""
    rows, problem = block.held_out, block.problem(theta)
    robust = dataclasses.replace(
        rows,
        kernel=jnp.full(rows.weight.shape, int(Kernel.CAUCHY), jnp.int32),
        kernel_width=width * jnp.sqrt(jnp.maximum(block.directions, 1.0)),
    )
    return dataclasses.replace(problem, factors=(*problem.factors, robust))


def score(block: Block, theta: Theta, mask: Mask, width: float) -> Score:
    """As `dsg_ros.learning.losses.score`, of the minimum of all rows."""
    problem = whole(block, theta, width)
    solution = solve(problem, theta, INNER)
    state, ways = solution.state, directions(theta, mask)

    def along(way: Theta) -> Array:
        return jax.jvp(lambda t: problem.cost(t, state), (theta,), (way,))[1]

    def moved(way: Theta, step: Array) -> Array:
        zero = jnp.zeros(state.dof)
        return jax.jvp(lambda t, d: problem.residuals(t, state.retract(d)), (theta, zero), (way, step))[1]

    cost, residuals = problem.cost(theta, state), problem.residuals(theta, state)
    sensitivity = implicit_jacobian(problem, theta, solution, mask)
    change = jnp.sqrt(_weights(problem, residuals))[:, None] * jax.vmap(moved, (0, 1), 1)(ways, sensitivity)
    observed = jnp.maximum(jnp.sum(block.directions), 1.0)
    # Where it is no minimum the gradient would be wrong, too: such a block is refused.
    cost = jnp.where(solution.result == Result.CONVERGED, cost, jnp.inf)
    nis = jnp.sum(residuals**2) / observed
    return Score(2 * cost / observed, cost, jax.vmap(along)(ways), change.T @ change, nis)


def negative_log_likelihood(block: Block, theta: Theta, width: float) -> Float[Array, ""]:
    """Laplace's, up to a constant; differentiable in theta.odometry_noise.

    At the minimum the cost does not change with the poses to first order.  The determinant does, by the weights that
    a kernel gives: the derivative goes through the solve.
    """
    problem = whole(block, theta, width)
    state = solve_differentiable(problem, theta, INNER)
    _, normal = problem.linearise(theta, state)
    poses = problem.free_poses.shape[0]
    factor = DenseCholesky().factorise(problem, normal, jnp.zeros(()))
    covariance = factor.solve(jnp.eye(state.dof))[6 : 6 * poses, 6 : 6 * poses]
    root = jax.vmap(lambda row: row.sqrt_information(theta))(block.odometry)
    spread = jnp.linalg.slogdet(covariance)[1]
    return problem.cost(theta, state) - 0.5 * spread - jnp.sum(jnp.log(root))


def _weights(problem: Problem, residuals: Float[Array, " R"]) -> Float[Array, " R"]:
    """``rho'`` of each residual's row."""
    out, start = [], 0
    for factor in problem.factors:
        rows = factor.weight.shape[0]
        part = residuals[start : start + 6 * rows].reshape(rows, 6)
        weight = jax.vmap(robust_weight)(factor.kernel, factor.kernel_width, jnp.sum(part**2, axis=1))
        out.append(jnp.repeat(weight, 6))
        start += 6 * rows
    return jnp.concatenate(out)

"""Derivatives of a solution in theta by the implicit function theorem, whatever the solver.

At a minimum the gradient ``g(theta, x)`` of the cost vanishes, so ``dx / dtheta = -H^-1 dg / dtheta`` with H the
Hessian at x. ``dg / dtheta`` is always exact.  H is Gauss-Newton's, as factorised by the solver, or with ``exact``
the true one: conjugate gradients on exact Hessian-vector products, preconditioned by that factorisation.  The
difference grows with the residuals: about 1e-3 at a chi-square of 1 a degree of freedom, 0.3 at 160.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dsg_ros import poses
from dsg_ros.core.chunks import Chunks
from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Solution
from dsg_ros.core.solvers.sparse import SparseFactor
from dsg_ros.core.theta import Mask, Theta, directions
from dsg_ros.core.variables import State

_TOLERANCE = 1e-12
_ITERATIONS = 100
_Conjugate = tuple[Array, Array, Array, Array, Array]


def implicit_vjp(problem: Problem, theta: Theta, solution: Solution, cotangent: State, exact: bool = False) -> Theta:
    """Gradient in theta of a function of the solved state, given its gradient ``cotangent`` in the state's numbers.

    One back-substitution and one vector-Jacobian product a factor type.
    """
    if isinstance(solution.factorisation, SparseFactor):
        return _host_vjp(problem, theta, solution, cotangent, exact)
    return _vjp(problem, theta, solution, cotangent, exact)


def implicit_jacobian(
    problem: Problem, theta: Theta, solution: Solution, mask: Mask, exact: bool = False
) -> Float[Array, "D K"]:
    """``d tangent of the state / d theta`` for the numbers that ``mask`` selects, in the order of `theta.names`."""
    ways = directions(theta, mask)
    if isinstance(solution.factorisation, SparseFactor):
        return _host_jacobian(problem, theta, solution, ways, exact)
    return _jacobian(problem, theta, solution, ways, exact)


@partial(jax.jit, static_argnames="exact")
def _vjp(problem: Problem, theta: Theta, solution: Solution, cotangent: State, exact: bool) -> Theta:
    right = solution.state.pull_back(cotangent) * problem.free
    inner = _inverse_hessian(problem, theta, solution, right, exact)
    return jax.tree.map(jnp.negative, problem.theta_vjp(theta, solution.state, inner))


@partial(jax.jit, static_argnames="exact")
def _jacobian(problem: Problem, theta: Theta, solution: Solution, ways: Theta, exact: bool) -> Float[Array, "D K"]:
    right = problem.theta_jacobian(theta, solution.state, ways)
    if not exact:
        return -solution.factorisation.solve(right)
    return -jax.lax.map(lambda r: _inverse_hessian(problem, theta, solution, r, True), right.T).T


def _inverse_hessian(problem: Problem, theta: Theta, solution: Solution, right: Array, exact: bool) -> Array:
    if not exact:
        return solution.factorisation.solve(right)

    def product(vector: Array) -> Array:
        return problem.hessian_product(theta, solution.state, vector)

    return _conjugate_gradients(product, solution.factorisation.solve, right)


def _host_vjp(problem: Problem, theta: Theta, solution: Solution, cotangent: State, exact: bool) -> Theta:
    chunks = Chunks(problem)
    # In NumPy: JAX would compile each of these steps for each size of a growing graph.
    turned = poses.pull_back(np.asarray(solution.state.poses), np.asarray(cotangent.poses))
    right = np.concatenate([turned.ravel(), np.ravel(cotangent.voxels)]) * chunks.free
    inner = _host_inverse_hessian(chunks, theta, solution, right, exact)
    return jax.tree.map(np.negative, chunks.theta_vjp(theta, solution.state, inner))


def _host_jacobian(problem: Problem, theta: Theta, solution: Solution, ways: Theta, exact: bool) -> Any:
    chunks = Chunks(problem)
    right = chunks.theta_jacobian(theta, solution.state, ways)
    if not exact:
        return -solution.factorisation.solve(right)
    columns = [_host_inverse_hessian(chunks, theta, solution, column, True) for column in right.T]
    return -np.stack(columns, axis=1)


def _host_inverse_hessian(
    chunks: Chunks, theta: Theta, solution: Solution, right: np.ndarray, exact: bool
) -> np.ndarray:
    if not exact:
        return np.asarray(solution.factorisation.solve(right))
    return conjugate_gradients(
        lambda v: chunks.hessian_product(theta, solution.state, v), solution.factorisation.solve, right
    )


def _conjugate_gradients(
    product: Callable[[Array], Array], precondition: Callable[[Array], Array], right: Array
) -> Array:
    """`conjugate_gradients` inside jit."""
    goal = _TOLERANCE * jnp.linalg.norm(right)

    def goes_on(carry: _Conjugate) -> Array:
        _, residual, _, _, count = carry
        return (jnp.linalg.norm(residual) > goal) & (count < _ITERATIONS)

    def iterate(carry: _Conjugate) -> _Conjugate:
        answer, residual, direction, rho, count = carry
        image = product(direction)
        curvature = direction @ image
        step = jnp.where(curvature > 0, rho / jnp.where(curvature > 0, curvature, 1.0), 0.0)
        answer, residual = answer + step * direction, residual - step * image
        z = precondition(residual)
        turned = residual @ z
        direction = z + turned / jnp.where(rho > 0, rho, 1.0) * direction
        return answer, residual, direction, turned, jnp.where(curvature > 0, count + 1, _ITERATIONS)

    z = precondition(right)
    return jax.lax.while_loop(goes_on, iterate, (jnp.zeros_like(right), right, z, right @ z, jnp.zeros((), int)))[0]


def conjugate_gradients(
    product: Callable[[np.ndarray], np.ndarray], precondition: Callable[[np.ndarray], np.ndarray], right: np.ndarray
) -> np.ndarray:
    """``A^-1 right`` for a positive definite A given as a product (Hestenes & Stiefel 1952), on the host.

    The first step is along the preconditioner's own answer.  It stops where A turns out not to be positive definite
    along a direction: the answer so far is then the better one.
    """
    answer, residual = np.zeros_like(right), right
    z = np.asarray(precondition(right))
    direction, rho = z, residual @ z
    goal = _TOLERANCE * np.linalg.norm(right)
    for _ in range(_ITERATIONS):
        if np.linalg.norm(residual) <= goal:
            break
        image = product(direction)
        curvature = direction @ image
        if curvature <= 0:
            break
        step = rho / curvature
        answer, residual = answer + step * direction, residual - step * image
        z = np.asarray(precondition(residual))
        previous, rho = rho, residual @ z
        direction = z + (rho / previous) * direction
    return answer

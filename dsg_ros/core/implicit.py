"""Derivatives of a solution in theta by the implicit function theorem, whatever the solver.

At a minimum the gradient ``g(theta, x)`` of the cost vanishes, so ``dx / dtheta = -H^-1 dg / dtheta`` with H the
Hessian at x. ``dg / dtheta`` is always exact.  H is Gauss-Newton's, as factorised by the solver, or with ``exact``
the true one: conjugate gradients on exact Hessian-vector products, preconditioned by that factorisation.  The
difference grows with the residuals: about 1e-3 at a chi-square of 1 a degree of freedom, 0.3 at 160.

Conjugate gradients that end early, after `_ITERATIONS` or at a direction of negative curvature (the solution is no
minimum then), give the answer so far and a warning in the log, one a call, with the residual it has.  Inside jit
nothing can be logged: a callback would keep the program from being kept on disk (`dsg_ros.core.programs`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dsg_ros.core.chunks import Chunks
from dsg_ros.core.native import manifold, plain
from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Solution
from dsg_ros.core.solvers.sparse import SparseFactor
from dsg_ros.core.theta import Mask, Theta, directions
from dsg_ros.core.theta_products import theta_vjp
from dsg_ros.core.variables import State

_log = logging.getLogger(__name__)

_TOLERANCE = 1e-12
_ITERATIONS = 100
_ENOUGH = 1e-9
"""Share of the right-hand side that may be left without a warning: rounding keeps systems of bad condition, which
weights in m and in rad easily make, from `_TOLERANCE` itself."""
_Conjugate = tuple[Array, Array, Array, Array, Array]


def implicit_vjp(problem: Problem, theta: Theta, solution: Solution, cotangent: State, exact: bool = False) -> Theta:
    """Gradient in theta of a function of the solved state, given its gradient ``cotangent`` in the state's numbers.

    One back-substitution and one vector-Jacobian product a factor type.  ValueError if the solution has no
    factorisation.
    """
    solution.check_factorised("derivative of the solution")
    on_host = isinstance(solution.factorisation, SparseFactor)
    gradient, left = (_host_vjp if on_host else _vjp)(problem, theta, solution, cotangent, exact)
    warn_of_rest(left)
    return gradient


def implicit_jacobian(
    problem: Problem, theta: Theta, solution: Solution, mask: Mask, exact: bool = False
) -> Float[Array, "D K"]:
    """``d tangent of the state / d theta`` for the numbers that ``mask`` selects, in the order of `theta.names`.

    ValueError if the solution has no factorisation.
    """
    solution.check_factorised("derivative of the solution")
    ways = directions(theta, mask)
    on_host = isinstance(solution.factorisation, SparseFactor)
    jacobian, left = (_host_jacobian if on_host else _jacobian)(problem, theta, solution, ways, exact)
    warn_of_rest(left)
    return jacobian


def warn_of_rest(left: Any, enough: float = _ENOUGH) -> None:
    """Warn of conjugate gradients that ended with more than ``enough`` of the right-hand side ``left``; not inside
    jit.
    """
    if isinstance(left, jax.core.Tracer) or left is None:
        return
    worst = float(np.max(left, initial=0.0))
    if not worst <= enough:
        _log.warning(
            "the exact derivative of a solution is not: conjugate gradients ended at a residual of %.1e of the "
            "right-hand side, after %d iterations or because the solution is no minimum",
            worst,
            _ITERATIONS,
        )


# Below: each returns also what is left of its right-hand sides, as a share; None where these are solved exactly.


@partial(jax.jit, static_argnames="exact")
def _vjp(
    problem: Problem, theta: Theta, solution: Solution, cotangent: State, exact: bool
) -> tuple[Theta, Array | None]:
    right = solution.state.pull_back(cotangent) * problem.free
    inner, left = _inverse_hessian(problem, theta, solution, right, exact)
    return jax.tree.map(jnp.negative, problem.theta_vjp(theta, solution.state, inner)), left


@partial(jax.jit, static_argnames="exact")
def _jacobian(
    problem: Problem, theta: Theta, solution: Solution, ways: Theta, exact: bool
) -> tuple[Float[Array, "D K"], Array | None]:
    right = problem.theta_jacobian(theta, solution.state, ways)
    if not exact:
        return -solution.factorisation.solve(right), None
    columns, left = jax.lax.map(lambda r: _inverse_hessian(problem, theta, solution, r, True), right.T)
    return -columns.T, left


def _inverse_hessian(
    problem: Problem, theta: Theta, solution: Solution, right: Array, exact: bool
) -> tuple[Array, Array | None]:
    if not exact:
        return solution.factorisation.solve(right), None

    def product(vector: Array) -> Array:
        return problem.hessian_product(theta, solution.state, vector)

    return _conjugate_gradients(product, solution.factorisation.solve, right)


def _host_vjp(
    problem: Problem, theta: Theta, solution: Solution, cotangent: State, exact: bool
) -> tuple[Theta, float | None]:
    # In NumPy: JAX would compile each of these steps for each size of a growing graph.
    state = solution.state
    turned = np.empty((len(state.poses), 6))
    manifold.pull_back(plain(np.asarray(state.poses)), plain(np.asarray(cotangent.poses, float)), turned)
    right = np.concatenate([turned.ravel(), np.ravel(cotangent.voxels)])
    inner, left = _host_inverse_hessian(Chunks(problem) if exact else None, theta, solution, right)
    # The solve made the rows ready.
    groups = solution.factorisation.rows.groups_for(problem, theta)
    return theta_vjp(problem, theta, state, -inner, groups), left


def _host_jacobian(
    problem: Problem, theta: Theta, solution: Solution, ways: Theta, exact: bool
) -> tuple[Any, list[float] | None]:
    chunks = Chunks(problem)
    right = chunks.theta_jacobian(theta, solution.state, ways)
    if not exact:
        return -solution.factorisation.solve(right), None
    found = [_host_inverse_hessian(chunks, theta, solution, column) for column in right.T]
    return -np.stack([column for column, _ in found], axis=1), [left or 0.0 for _, left in found]


def _host_inverse_hessian(
    chunks: Chunks | None, theta: Theta, solution: Solution, right: np.ndarray
) -> tuple[np.ndarray, float | None]:
    """With the exact Hessian of the rows in ``chunks``, or without."""
    if chunks is None:
        return np.asarray(solution.factorisation.solve(right)), None
    return conjugate_gradients(
        lambda v: chunks.hessian_product(theta, solution.state, v),
        solution.factorisation.precondition,
        right * chunks.free,
    )


def _conjugate_gradients(
    product: Callable[[Array], Array], precondition: Callable[[Array], Array], right: Array
) -> tuple[Array, Array]:
    """`conjugate_gradients` inside jit."""
    size = jnp.linalg.norm(right)
    goal = _TOLERANCE * size

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
    begin = (jnp.zeros_like(right), right, z, right @ z, jnp.zeros((), int))
    answer, residual, *_ = jax.lax.while_loop(goes_on, iterate, begin)
    return answer, jnp.linalg.norm(residual) / jnp.where(size > 0, size, 1.0)


def conjugate_gradients(
    product: Callable[[np.ndarray], np.ndarray],
    precondition: Callable[[np.ndarray], np.ndarray],
    right: np.ndarray,
    tolerance: float = _TOLERANCE,
) -> tuple[np.ndarray, float]:
    """``A^-1 right`` for a positive definite A given as a product (Hestenes & Stiefel 1952), on the host; and the norm
    of what is left of ``right``, as a share of its own: ``tolerance``, or more where it ends early.

    The first step is along the preconditioner's own answer.  It stops where A turns out not to be positive definite
    along a direction: the answer so far is then the better one.
    """
    answer, residual = np.zeros_like(right), right
    z = np.asarray(precondition(right))
    direction, rho = z, residual @ z
    size = float(np.linalg.norm(right))
    goal = tolerance * size
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
    return answer, float(np.linalg.norm(residual)) / (size or 1.0)

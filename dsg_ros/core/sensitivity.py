"""Where a solution goes when theta changes: its implicit derivative along one direction of theta, on the host.

The same derivative as `dsg_ros.core.implicit` with the exact Hessian, without JAX: the compiled rows give the gradient
``g(theta, x)`` of a graph of thousands of poses in milliseconds, and central differences of it give ``dg / dtheta``
along the direction and ``H v`` in the state to six digits.  JAX's programs for the same graph take half a
minute to compile, which a question asked of a running robot cannot wait for.
"""

from __future__ import annotations

import jax
import numpy as np
from numpy.typing import NDArray

from dsg_ros.core.implicit import conjugate_gradients, warn_of_rest
from dsg_ros.core.linearisation import HostRows, Values
from dsg_ros.core.native import row_sums
from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Solution
from dsg_ros.core.solvers.sparse import SparseFactor
from dsg_ros.core.theta import SPECS, Theta, to_float64
from dsg_ros.core.variables import State

Array = NDArray[np.float64]

IN_THETA = 1e-3
"""Step of differences in theta, in the prior's deviations."""

IN_STATE = 1e-6
"""Step of differences in the state [m, rad], of the variable that moves most."""

REST = 1e-8
"""Share of the right-hand side that conjugate gradients may leave: differences promise no more."""


def first_order(problem: Problem, theta: Theta, solution: Solution, changed: Theta) -> Array:
    """Displacement (D,) of the ``solution`` of ``problem`` at ``theta``, in its tangent, when theta is ``changed``.

    A few tens of linearisations and back-substitutions with the solution's own factor.  ValueError unless that is from
    a solver on the host.
    """
    solution.check_factorised("derivative of the solution")
    if not isinstance(solution.factorisation, SparseFactor):
        raise ValueError("a derivative on the host needs a solution from there: solve with SparseCholesky")
    inverse, rows = solution.factorisation.precondition, HostRows(problem, theta)
    right = _by_theta(problem, theta, changed, solution.state)

    def product(vector: Array) -> Array:
        free = vector[rows.free]
        step = IN_STATE / max(float(np.abs(free).max(initial=0.0)), np.finfo(float).tiny)
        ahead, behind = (_gradient(rows, rows.moved(solution.state, s * step * free)) for s in (1.0, -1.0))
        return (ahead - behind) / (2.0 * step)

    answer, rest = conjugate_gradients(product, inverse, right, REST)
    warn_of_rest(rest, 10 * REST)
    return -answer


def _by_theta(problem: Problem, theta: Theta, changed: Theta, state: State) -> Array:
    """``(dg / dtheta) (changed - theta)`` (D,)."""
    away = max(
        float(np.max(np.abs(np.asarray(getattr(changed, name)) - getattr(theta, name)), initial=0.0))
        / min(spec.prior_sigma for spec in specs)
        for name, specs in SPECS.items()
    )
    if not away:
        return np.zeros(state.dof)
    step = IN_THETA / away
    ahead, behind = (_gradient(HostRows(problem, _between(theta, changed, s * step)), state) for s in (1.0, -1.0))
    return (ahead - behind) / (2.0 * step)


def _between(theta: Theta, changed: Theta, share: float) -> Theta:
    def part(a: object, b: object) -> Array:
        start = np.asarray(a, float)
        return np.asarray(start + share * (np.asarray(b, float) - start))

    return to_float64(jax.tree.map(part, theta, changed))


def _gradient(rows: HostRows, state: State | Values) -> Array:
    """Gradient of the cost in the whole tangent (D,); zero where held."""
    _, linearised = rows.linearise(state)
    free, out = np.empty(len(rows.free)), np.zeros(rows.dof)
    row_sums.gradient_of(linearised, np.cumsum(rows.dims) - rows.dims, rows.dims, free)
    out[rows.free] = free
    return out

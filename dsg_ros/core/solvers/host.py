"""Gauss-Newton, and Levenberg-Marquardt where it fails, on the host: compiled linearisation, sparse factorisation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsg_ros.core import initialise
from dsg_ros.core.linearisation import HostRows, Values
from dsg_ros.core.native import damping as d
from dsg_ros.core.native import row_sums
from dsg_ros.core.native.tree import RowHessians
from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Result, Solution
from dsg_ros.core.solvers.sparse import SingularError, SparseCholesky, SparseFactor, diagonal_of
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import State

Array = NDArray[np.float64]

UNDAMPED = 1e-9
"""Damping below this is none at all: a plain Gauss-Newton step, whose factorisation serves covariances too."""


def solve_on_host(
    problem: Problem,
    theta: Theta,
    linear: SparseCholesky,
    max_iterations: int,
    tolerance: float,
    damping: float,
    relaxed: bool,
) -> Solution:
    """Minimise the cost of a whole graph, from steps damped by ``damping`` on; if ``relaxed``, from the chordal
    relaxation where that costs less than the problem's own state.
    """
    rows, start = HostRows(problem, theta), on_host(problem.state)
    begun = None
    if relaxed:
        start, begun = initialise.better_values(rows, start)
    found = descend(rows, start, linear, max_iterations, tolerance, damping, begun)
    return solution_of(problem, rows, found, linear)


def on_host(state: State) -> Values:
    """A copy in NumPy."""
    return Values(np.array(state.poses, float), np.array(state.voxels, float))


class Descent(NamedTuple):
    """Where a descent ended: a state with its cost and its rows; ``undamped`` is whether its last step was."""

    state: Values
    cost: float
    linearised: RowHessians
    iterations: int
    result: Result
    undamped: bool
    damping: float


def descend(
    rows: HostRows,
    state: Values,
    linear: SparseCholesky,
    max_iterations: int,
    tolerance: float,
    damping: float,
    begun: tuple[float, RowHessians] | None = None,
) -> Descent:
    """Minimise the cost of ``rows`` from ``state`` without asking what the end determines; ``begun`` is what the rows
    are there, where that is known.
    """
    cost, linearised = rows.linearise(state) if begun is None else begun
    iterations, growth, undamped = 0, d.GROWTH, False
    result = Result.MAX_ITERATIONS if np.isfinite(cost) else Result.DIVERGED
    if not rows.count:
        result = Result.CONVERGED
    while result is Result.MAX_ITERATIONS and iterations < max_iterations:
        iterations += 1
        undamped = damping <= UNDAMPED
        step, predicted = _step(linear, rows, linearised, damping)
        trial, trial_cost = state, np.inf
        if np.isfinite(predicted):
            trial = rows.moved(state, step)
            trial_cost, linearised = rows.linearise(trial)
        verdict = d.judge(cost, trial_cost, predicted, damping, growth, tolerance)
        # What the quadratic model missed of this step is about what the next one has to find, and, Gauss-Newton being
        # of second order near the minimum, more than it will: a tenth of the tolerance leaves room for "about".
        sure = undamped and abs(cost - trial_cost - predicted) <= 0.1 * tolerance * cost
        damping, growth = verdict.damping if verdict.accept else max(verdict.damping, d.LEAST_REFUSED), verdict.growth
        # A quadratic model that told the decrease so well has next to nothing left to tell.  After a step that lowered
        # the cost by more than a hundredth that may be chance: terms of third and fourth order can cancel.
        sure = verdict.accept and sure and cost - trial_cost <= 0.01 * cost
        if verdict.accept:
            state, cost = trial, trial_cost
        elif np.isfinite(predicted):
            _, linearised = rows.linearise(state)
        if verdict.converged or sure:
            result = Result.CONVERGED
        elif verdict.stuck:
            result = Result.DIVERGED
    return Descent(state, cost, linearised, iterations, result, undamped, damping)


def solution_of(problem: Problem, rows: HostRows, found: Descent, linear: SparseCholesky) -> Solution:
    """The end of a descent, factorised."""
    result = found.result
    if result is Result.CONVERGED and found.undamped:
        # It could be factorised a step ago: done again at the answer only if that one does not serve.
        last, undamped = linear.current, np.zeros(len(rows.free))
        factor: SparseFactor | None = SparseFactor(linear, rows, found.linearised, undamped, last)
    else:
        factor, healthy = _final(linear, rows, found.linearised)
        if not healthy and result is not Result.DIVERGED:
            result = Result.SINGULAR
    code: Any = np.int64(result)
    final: Any = np.float64(found.cost)
    count: Any = np.int64(found.iterations)
    values: Any = found.state
    return Solution(State(*values), code, final, count, factor, problem.pose_keys, problem.voxel_keys)


def _step(linear: SparseCholesky, rows: HostRows, linearised: RowHessians, damping: float) -> tuple[Array, float]:
    """The damped step and the decrease of cost it promises; NaN where the system cannot be solved."""
    tree = linear.tree(rows)
    scale = diagonal_of(rows, linearised, tree.offset)  # damping is a multiple of it (Marquardt 1963)
    added = np.zeros(len(scale)) if damping <= UNDAMPED else damping * scale
    try:
        factor = linear.factorise(rows, linearised, added)
    except SingularError:
        return added, np.nan
    step = factor.step()
    gradient = np.empty(len(step))
    row_sums.gradient_of(linearised, tree.offset, tree.dims, gradient)
    return step, float(0.5 * (added @ step**2 - gradient @ step))


def _final(linear: SparseCholesky, rows: HostRows, linearised: RowHessians) -> tuple[SparseFactor | None, bool]:
    """The undamped factorisation at the answer, or a damped one where that is singular; None where even that fails."""
    offset = np.cumsum(rows.dims) - rows.dims
    scale = diagonal_of(rows, linearised, offset)
    for damping in (0.0, d.REGULAR, 1.0):
        try:
            return linear.factorise(rows, linearised, damping * scale), damping == 0.0
        except SingularError:
            continue
    return None, False

"""Levenberg-Marquardt on the host: chunked linearisation, sparse factorisation, the step logic of the jitted loop."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from dsg_ros import poses
from dsg_ros.core.chunks import Chunks
from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Result, Solution
from dsg_ros.core.solvers import damping as d
from dsg_ros.core.solvers.pattern import Pattern
from dsg_ros.core.solvers.sparse import SingularError, SparseCholesky, SparseFactor
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import State


def solve_on_host(
    problem: Problem, theta: Theta, linear: SparseCholesky, max_iterations: int, tolerance: float, damping: float
) -> Solution:
    """Minimise the cost of a whole graph; compiles only what `dsg_ros.core.chunks.warm_up` compiles."""
    chunks = Chunks(problem)
    pattern = linear.pattern(chunks)
    state = jax.tree.map(lambda values: np.asarray(values, float), problem.state)
    cost, hessians, gradient = chunks.linearise(theta, state)
    values = pattern.assemble(hessians)
    growth, iterations = d.GROWTH, 0
    result = Result.MAX_ITERATIONS if np.isfinite(cost) else Result.DIVERGED
    if not pattern.size:
        result = Result.CONVERGED
    while result is Result.MAX_ITERATIONS and iterations < max_iterations:
        iterations += 1
        trial, predicted = _trial(linear, pattern, values, gradient, damping, state)
        linearised = chunks.linearise(theta, trial) if np.isfinite(predicted) else (np.inf, hessians, gradient)
        verdict = d.judge(np, cost, linearised[0], predicted, damping, growth, tolerance)
        damping, growth = float(verdict.damping), float(verdict.growth)
        if verdict.accept:
            state, (cost, hessians, gradient) = trial, linearised
            values = pattern.assemble(hessians)
        if verdict.converged:
            result = Result.CONVERGED
        elif verdict.stuck:
            result = Result.DIVERGED
    factor, healthy = _final(linear, pattern, values)
    if not healthy and result is not Result.DIVERGED:
        result = Result.SINGULAR
    code: Any = np.int64(result)
    final: Any = np.float64(cost)
    count: Any = np.int64(iterations)
    return Solution(state, code, final, count, factor, problem.pose_keys, problem.voxel_keys)


def _trial(
    linear: SparseCholesky, pattern: Pattern, values: np.ndarray, gradient: np.ndarray, damping: float, state: State
) -> tuple[State, float]:
    """The damped step's state and the decrease of cost it promises; NaN where the system cannot be solved."""
    try:
        factor = linear.factorise(pattern, values, damping)
    except SingularError:
        return state, np.nan
    step = factor.solve(-gradient)
    scaled = step[pattern.free] / factor.scale
    predicted = 0.5 * (damping * scaled @ scaled - gradient @ step)
    border = len(state.poses) * 6
    moved: Any = poses.compose(state.poses, poses.exp(step[:border].reshape(-1, 6)))
    return State(moved, state.voxels + step[border:].reshape(-1, 3)), float(predicted)


def _final(linear: SparseCholesky, pattern: Pattern, values: np.ndarray) -> tuple[SparseFactor | None, bool]:
    """The undamped factorisation at the answer, or a damped one where that is singular; None where even that fails."""
    for damping in (0.0, d.REGULAR, 1.0):
        try:
            factor = linear.factorise(pattern, values, damping) if pattern.size else None
        except SingularError:
            continue
        if factor is None:
            return SparseFactor(linear, pattern, values, np.zeros(0)), True
        if factor.healthy:
            return factor, damping == 0.0
    return None, False

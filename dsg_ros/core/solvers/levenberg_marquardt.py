"""Levenberg-Marquardt (Marquardt 1963; Nielsen 1999): a jitted loop for problems of fixed shape and on a GPU, a loop on
the host for graphs of any size.  A run's windows have a compiled loop of their own (`dsg_ros.core.solvers.window`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dsg_ros.core.native.damping import GROWTH
from dsg_ros.core.problem import Normal, Problem
from dsg_ros.core.solution import Result, Solution
from dsg_ros.core.solvers.conjugate_gradient import ConjugateGradient
from dsg_ros.core.solvers.damping import judge
from dsg_ros.core.solvers.host import solve_on_host
from dsg_ros.core.solvers.linear import DenseCholesky, SchurVoxels
from dsg_ros.core.solvers.row_blocks import Rows
from dsg_ros.core.solvers.sparse import SparseCholesky
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import State


@dataclass(frozen=True)
class LevenbergMarquardt:
    """``linear`` decides where it runs: `DenseCholesky`, `SchurVoxels` and `ConjugateGradient` (for large graphs, on a
    GPU too) inside one jitted program, `SparseCholesky` on the host, for graphs of any size.  ``damping`` is that of
    the first step, of systems with unit diagonal.  ``relaxed`` starts from the chordal relaxation of the relative poses
    (`dsg_ros.core.initialise`) where that costs less than the problem's own state; on the host only (ValueError).
    ``tolerance`` is the decrease, as a share of the cost or of 1e-6 where that is more, below which a promise ends it.
    """

    linear: DenseCholesky | SchurVoxels | ConjugateGradient | SparseCholesky = field(default_factory=DenseCholesky)
    max_iterations: int = 50
    tolerance: float = 1e-10
    damping: float = 1e-6
    relaxed: bool = False

    def __post_init__(self) -> None:
        if self.relaxed and not self.on_host:
            raise ValueError("relaxed: only with SparseCholesky, which runs on the host")

    @property
    def on_host(self) -> bool:
        """Whether it runs outside jit."""
        return isinstance(self.linear, SparseCholesky)

    def solve(self, problem: Problem, theta: Theta) -> Solution:
        """Minimise the problem's cost from its own state."""
        if isinstance(self.linear, SparseCholesky):
            return solve_on_host(
                problem, theta, self.linear, self.max_iterations, self.tolerance, self.damping, self.relaxed
            )
        return _solve(self, problem, theta)


class _Carry(NamedTuple):
    """The best state with its normal equations, and the trial step from it that the next pass judges."""

    state: State
    cost: Float[Array, ""]
    normal: Normal | Rows
    trial: State
    predicted: Float[Array, ""]
    solved: Bool[Array, ""]
    damping: Float[Array, ""]
    growth: Float[Array, ""]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]
    stuck: Bool[Array, ""]


@partial(jax.jit, static_argnums=0)
def _solve(solver: LevenbergMarquardt, problem: Problem, theta: Theta) -> Solution:
    # Each linear solver takes the normal equations that it makes itself.
    linear: Any = solver.linear
    start = jax.tree.map(jnp.asarray, problem.state)
    tolerance = jnp.asarray(solver.tolerance)

    def goes_on(c: _Carry) -> Array:
        return ~c.converged & ~c.stuck & (c.iterations < solver.max_iterations)

    def iterate(c: _Carry) -> _Carry:
        # Linearising at the trial judges the step and prepares the next one.  It is by far the largest part of the
        # compiled program, so it stands here once: the first pass takes the start for a trial step from an infinite
        # cost.
        trial_cost, trial_normal = linear.linearise(problem, theta, c.trial)
        verdict = judge(c.cost, trial_cost, c.predicted, c.damping, c.growth, tolerance)
        first = c.iterations < 0
        accept = jnp.where(first, jnp.isfinite(trial_cost), verdict.accept)
        keep = (c.state, c.cost, c.normal)
        state, cost, normal = jax.tree.map(
            lambda new, old: jnp.where(accept, new, old), (c.trial, trial_cost, trial_normal), keep
        )
        damping = jnp.where(first, c.damping, verdict.damping)
        factor = linear.factorise(problem, normal, damping)
        converged = jnp.where(first, ~jnp.any(problem.free), verdict.converged & c.solved)
        mismatch = _mismatch(c.cost - trial_cost, c.predicted, c.cost)
        step, solved = linear.step(factor, normal.gradient, jnp.where(converged, jnp.inf, mismatch))
        # |S^-1 step|^2 is the step's length in the scaled system; held variables have no scale and do not move.
        scaled = step / jnp.where(factor.scale > 0, factor.scale, 1.0)
        return _Carry(
            state,
            cost,
            normal,
            state.retract(step),
            0.5 * (damping * scaled @ scaled - normal.gradient @ step),
            solved,
            damping,
            jnp.where(first, c.growth, verdict.growth),
            c.iterations + 1,
            converged,
            jnp.where(first, ~accept, verdict.stuck),
        )

    infinite, no = jnp.asarray(jnp.inf), jnp.zeros((), bool)
    growth, before = jnp.asarray(GROWTH), jnp.asarray(-1)
    begin = _Carry(
        start, infinite, linear.zeros(problem, theta), start, infinite, no, jnp.asarray(solver.damping), growth,
        before, no, no,
    )  # fmt: skip
    end = jax.lax.while_loop(goes_on, iterate, begin)
    factor, healthy = linear.final(problem, end.normal)
    result = jnp.where(end.converged, Result.CONVERGED, Result.MAX_ITERATIONS)
    result = jnp.where(healthy, result, Result.SINGULAR)
    result = jnp.where(end.stuck, Result.DIVERGED, result)
    return Solution(end.state, result, end.cost, end.iterations, factor, problem.pose_keys, problem.voxel_keys)


def _mismatch(gain: Array, promised: Array, cost: Array) -> Float[Array, ""]:
    """By how much of it a step missed what was promised; 1 where that says nothing, 0 where rounding hides it."""
    told = jnp.isfinite(gain) & jnp.isfinite(promised) & (promised > 0)
    missed = jnp.abs(jnp.where(told, gain, 0.0) / jnp.where(told, promised, 1.0) - 1)
    return jnp.where(told & (promised <= 1e-11 * cost), 0.0, missed)

"""Levenberg-Marquardt (Marquardt 1963; Nielsen 1999): one jitted loop for windows, one host loop for the whole graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Result, Solution
from dsg_ros.core.solvers import damping as d
from dsg_ros.core.solvers.host import solve_on_host
from dsg_ros.core.solvers.linear import DenseCholesky, SchurVoxels
from dsg_ros.core.solvers.sparse import SparseCholesky
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import State


@dataclass(frozen=True)
class LevenbergMarquardt:
    """``linear`` decides where it runs: `DenseCholesky` and `SchurVoxels` inside one jitted program, `SparseCholesky` on
    the host, in chunks, for graphs of any size.  ``damping`` is that of the first step, of systems with unit diagonal.
    """

    linear: DenseCholesky | SchurVoxels | SparseCholesky = field(default_factory=DenseCholesky)
    max_iterations: int = 50
    tolerance: float = 1e-10
    damping: float = 1e-6

    @property
    def on_host(self) -> bool:
        """Whether it runs outside jit."""
        return isinstance(self.linear, SparseCholesky)

    def solve(self, problem: Problem, theta: Theta) -> Solution:
        """Minimise the problem's cost from its own state."""
        if isinstance(self.linear, SparseCholesky):
            return solve_on_host(problem, theta, self.linear, self.max_iterations, self.tolerance, self.damping)
        return _solve(self, problem, theta)


class _Carry(NamedTuple):
    state: State
    cost: Float[Array, ""]
    damping: Float[Array, ""]
    growth: Float[Array, ""]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]
    stuck: Bool[Array, ""]


@partial(jax.jit, static_argnums=0)
def _solve(solver: LevenbergMarquardt, problem: Problem, theta: Theta) -> Solution:
    linear = solver.linear
    assert not isinstance(linear, SparseCholesky)
    start = jax.tree.map(jnp.asarray, problem.state)
    first = problem.cost(theta, start)
    no, yes = jnp.zeros((), bool), jnp.ones((), bool)
    idle = ~jnp.any(problem.free)
    carry = _Carry(
        start, first, jnp.asarray(solver.damping), jnp.asarray(10.0), jnp.zeros((), int),
        jnp.where(idle, yes, no), ~jnp.isfinite(first),
    )  # fmt: skip

    def goes_on(c: _Carry) -> Array:
        return ~c.converged & ~c.stuck & (c.iterations < solver.max_iterations)

    def iterate(c: _Carry) -> _Carry:
        _, normal = problem.linearise(theta, c.state)
        factor = linear.factorise(problem, normal, c.damping)
        step = factor.solve(-normal.gradient)
        # |S^-1 step|^2 is the step's length in the scaled system; held variables have no scale and do not move.
        scaled = step / jnp.where(factor.scale > 0, factor.scale, 1.0)
        predicted = 0.5 * (c.damping * scaled @ scaled - normal.gradient @ step)
        trial = c.state.retract(step)
        trial_cost = problem.cost(theta, trial)
        verdict = d.judge(c.cost, trial_cost, predicted, c.damping, c.growth, jnp.asarray(solver.tolerance))
        state = jax.tree.map(lambda new, old: jnp.where(verdict.accept, new, old), trial, c.state)
        cost = jnp.where(verdict.accept, trial_cost, c.cost)
        return _Carry(
            state, cost, verdict.damping, verdict.growth, c.iterations + 1, verdict.converged, verdict.stuck
        )

    end = jax.lax.while_loop(goes_on, iterate, carry)
    _, normal = problem.linearise(theta, end.state)
    factor = linear.factorise(problem, normal, jnp.zeros(()))
    healthy = factor.healthy
    factor = jax.lax.cond(
        healthy, lambda: factor, lambda: linear.factorise(problem, normal, jnp.asarray(d.REGULAR))
    )
    result = jnp.where(end.converged, Result.CONVERGED, Result.MAX_ITERATIONS)
    result = jnp.where(healthy, result, Result.SINGULAR)
    result = jnp.where(end.stuck, Result.DIVERGED, result)
    return Solution(end.state, result, end.cost, end.iterations, factor, problem.pose_keys, problem.voxel_keys)

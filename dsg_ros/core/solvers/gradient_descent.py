"""Gradient descent with a fixed number of steps, unrolled: the tutorial's inner loop, differentiable in reverse."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Result, Solution
from dsg_ros.core.solvers.linear import DenseCholesky
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import State


@dataclass(frozen=True)
class GradientDescent:
    """``steps`` steps of ``rate`` down the gradient in the tangent; converged if that is below ``tolerance``."""

    steps: int = 80
    rate: float = 0.05
    tolerance: float = 1e-9

    def descend(self, problem: Problem, theta: Theta) -> State:
        """The state after all steps, as a differentiable function of theta (jax.lax.scan keeps every step's state)."""

        def step(state: State, _: None) -> tuple[State, None]:
            return state.retract(-self.rate * problem.gradient(theta, state)), None

        start = jax.tree.map(jnp.asarray, problem.state)
        return jax.lax.scan(step, start, None, length=self.steps)[0]

    def solve(self, problem: Problem, theta: Theta) -> Solution:
        """As every solver; jitted, one program per shape."""
        return _solve(self, problem, theta)


@partial(jax.jit, static_argnums=0)
def _solve(solver: GradientDescent, problem: Problem, theta: Theta) -> Solution:
    state = solver.descend(problem, theta)
    finite = jnp.all(jnp.isfinite(state.retract(jnp.zeros(state.dof)).poses)) & jnp.all(jnp.isfinite(state.voxels))
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), state, problem.state)
    cost, normal = problem.linearise(theta, state)
    factor = DenseCholesky().factorise(problem, normal, jnp.zeros(()))
    small = jnp.max(jnp.abs(normal.gradient), initial=0.0) <= solver.tolerance
    result = jnp.where(small, Result.CONVERGED, Result.MAX_ITERATIONS)
    result = jnp.where(finite, jnp.where(factor.healthy, result, Result.SINGULAR), Result.DIVERGED)
    iterations = jnp.asarray(solver.steps)
    return Solution(state, result, cost, iterations, factor, problem.pose_keys, problem.voxel_keys)

"""The HERO tutorial: joint learning of odometry and voxel observations through a differentiable solver.

Six poses along x, one metre apart, and six voxels at the same places.  Odometry between the poses and one observed
point a voxel are learnable measurements, biased at the start.  An inner loop estimates poses and voxels from the
measurements; an outer loop changes the measurements until the estimate is as supervised: pose 5 at x = 5, voxel i at
x = i, y = 0.

The tutorial's functions keep their names: `build_hybrid_graph`, `build_param_residual`, `inner_solve` and
`supervised_loss`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dsg_ros import poses
from dsg_ros.core.compilation import quick_compilation
from dsg_ros.core.factors import Factor, OdomSE3, PosePrior, VoxelPointObs, VoxelPrior
from dsg_ros.core.problem import Problem
from dsg_ros.core.programs import kept
from dsg_ros.core.solve import Solver, solve_differentiable
from dsg_ros.core.solvers import DenseCholesky, GradientDescent, LevenbergMarquardt
from dsg_ros.core.theta import Theta, flatten, mask, to_float64, unflatten
from dsg_ros.core.variables import State
from dsg_ros.core.world import Capacity, WorldModel

COUNT = 6
"""Poses, and voxels."""

Inner = Literal["gradient_descent", "levenberg_marquardt"]
Outer = Literal["gradient_descent", "gauss_newton", "adam"]

INNER: dict[Inner, Solver] = {
    "gradient_descent": GradientDescent(steps=80, rate=0.05),
    "levenberg_marquardt": LevenbergMarquardt(DenseCholesky(), tolerance=1e-12),
}


@dataclass(frozen=True)
class HybridGraph:
    """The world, the keys of its poses and voxels, and the measurements to start from."""

    world: WorldModel
    poses: tuple[int, ...]
    voxels: tuple[int, ...]
    theta: Theta


# 1-3. What we build: poses, voxels, factors, and theta ---------------------------------------------------------------


def build_hybrid_graph() -> HybridGraph:
    """Six perturbed poses and voxels, priors on pose 0 (strong) and voxel 0 (weak), learnable measurements."""
    world = WorldModel()
    index = np.arange(COUNT)
    sign = (-1.0) ** index
    slope = 0.5 - index / (COUNT - 1)

    start = poses.from_planar(index + 0.1 * slope, 0.05 * sign, 0.0)
    pose_keys = tuple(world.add_pose(pose) for pose in start)
    centres = np.stack([index + 0.2 * slope, 0.1 * sign, np.zeros(COUNT)], axis=1)
    voxel_keys = tuple(world.add_voxel(centre) for centre in centres)

    world.add(PosePrior, pose=pose_keys[0], mean=poses.IDENTITY, weight=10.0)
    world.add(VoxelPrior, voxel=voxel_keys[0], mean=np.zeros(3), weight=0.1)
    for i, (previous, current) in enumerate(pairwise(pose_keys)):
        world.add(OdomSE3, previous=previous, current=current, learned=i)
    for i, voxel in enumerate(voxel_keys):
        world.add(VoxelPointObs, voxel=voxel, learned=i)

    odom = np.zeros((COUNT - 1, 6))
    odom[:, 0] = [0.9, 1.1, 1.05, 1.0, 0.95]
    obs = np.stack([index + 0.3 * slope, 0.15 * sign, np.zeros(COUNT)], axis=1)
    theta = Theta.neutral(odom=COUNT - 1, obs=COUNT).replace(odom=odom, obs=obs)
    return HybridGraph(world, pose_keys, voxel_keys, to_float64(theta))


def snapshot(graph: HybridGraph) -> Problem:
    """The graph as a problem of exactly its size."""
    rows: dict[type[Factor], int] = {PosePrior: 1, VoxelPrior: 1, OdomSE3: COUNT - 1, VoxelPointObs: COUNT}
    return graph.world.snapshot(capacity=Capacity(COUNT, COUNT, rows))


def build_param_residual(world: WorldModel) -> Callable[[State, Theta], Float[Array, " R"]]:
    """``residual(state, theta)``: all whitened residuals, with theta's measurements in the learnable factors."""
    problem = world.snapshot()
    return lambda state, theta: problem.residuals(theta, state)


# 4. The inner loop: poses and voxels from measurements ---------------------------------------------------------------


def inner_solve(problem: Problem, theta: Theta, solver: Solver) -> State:
    """The estimate, differentiable in theta: unrolled for gradient descent, implicit for the product's solver."""
    if isinstance(solver, GradientDescent):
        return solver.descend(problem, theta)
    return solve_differentiable(problem, theta, solver)


# 5. The outer loop: measurements from supervision --------------------------------------------------------------------


def supervision(state: State) -> Float[Array, " 13"]:
    """What should vanish: ``x5 - 5``, and each voxel's error in x and y; the loss is the sum of squares."""
    wanted = jnp.arange(COUNT)
    x = (state.voxels[:, 0] - wanted) / COUNT**0.5
    y = state.voxels[:, 1] * (0.1 / COUNT) ** 0.5
    return jnp.concatenate([state.poses[-1, :1] - (COUNT - 1), x, y])


def supervised_loss(theta: Theta, problem: Problem, solver: Solver) -> Float[Array, ""]:
    """``(x5 - 5)^2 + mean_i((vx_i - i)^2 + 0.1 vy_i^2)`` of the inner loop's estimate."""
    return _loss_and_estimate(theta, problem, solver)[0]


def _loss_and_estimate(theta: Theta, problem: Problem, solver: Solver) -> tuple[Float[Array, ""], State]:
    """`supervised_loss` with the estimate it judges, so that learning need not solve a second time to show it."""
    state = inner_solve(problem, theta, solver)
    return jnp.sum(supervision(state) ** 2), state


class Progress(NamedTuple):
    """One evaluation of the outer loop: the loss at ``theta`` and the state that gives it."""

    loss: float
    theta: Theta
    state: State


def learn(graph: HybridGraph, inner: Inner, outer: Outer, steps: int) -> Iterator[Progress]:
    """Yield before each of ``steps`` outer steps, and once after the last."""
    problem, solver = jax.device_put(snapshot(graph)), INNER[inner]
    step = partial(_STEPS[outer], solver=solver)
    theta = graph.theta
    memory = _adam().init(flatten(theta, mask(theta, "odom", "obs"))) if outer == "adam" else None
    for _ in range(steps + 1):
        # The last pass only evaluates; taking the step's program for that saves compiling another one.
        loss, state, following, memory = step(problem, theta, memory)
        yield Progress(float(loss), theta, state)
        theta = following


Outcome = tuple[Array, State, Theta, Any]
"""Loss, estimate, the next theta, and what the optimiser remembers (None where nothing)."""

# Six poses take no time to solve: what counts is how fast the program compiles.
_compiled = kept(quick_compilation)


def _loss_gradient(problem: Problem, theta: Theta, solver: Solver) -> tuple[Array, State, Float[Array, " K"]]:
    chosen = mask(theta, "odom", "obs")

    def loss(vector: Array) -> tuple[Array, State]:
        return _loss_and_estimate(unflatten(vector, theta, chosen), problem, solver)

    (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(flatten(theta, chosen))
    return value, state, gradient


@_compiled
def _gradient_step(problem: Problem, theta: Theta, memory: None, *, solver: Solver) -> Outcome:
    """The tutorial's: theta - 0.2 gradient."""
    value, state, gradient = _loss_gradient(problem, theta, solver)
    chosen = mask(theta, "odom", "obs")
    return value, state, unflatten(flatten(theta, chosen) - 0.2 * gradient, theta, chosen), None


def _adam() -> Any:
    import optax  # type: ignore[import-untyped]  # here: the other outer loops start quicker without it

    return optax.adam(0.02)


@_compiled
def _adam_step(problem: Problem, theta: Theta, memory: Any, *, solver: Solver) -> Outcome:
    """Adam (Kingma & Ba 2015) with the paper's constants and a rate of 0.02."""
    value, state, gradient = _loss_gradient(problem, theta, solver)
    chosen = mask(theta, "odom", "obs")
    step, memory = _adam().update(gradient, memory)
    return value, state, unflatten(flatten(theta, chosen) + step, theta, chosen), memory


@_compiled
def _gauss_newton_step(problem: Problem, theta: Theta, memory: None, *, solver: Solver) -> Outcome:
    """Gauss-Newton on the supervised residuals: of all steps that make them vanish to first order, the smallest.

    There are 13 residuals and 48 numbers, so the step solves in the residuals' space: J^T (J J^T + e)^-1 r.
    """
    chosen = mask(theta, "odom", "obs")

    def errors(vector: Array) -> tuple[Array, tuple[Array, State]]:
        state = inner_solve(problem, unflatten(vector, theta, chosen), solver)
        return supervision(state), (supervision(state), state)

    vector = flatten(theta, chosen)
    jacobian, (residual, state) = jax.jacrev(errors, has_aux=True)(vector)
    square = jacobian @ jacobian.T
    regular = 1e-12 * jnp.trace(square) * jnp.eye(len(residual))
    step = jacobian.T @ jnp.linalg.solve(square + regular, residual)
    return jnp.sum(residual**2), state, unflatten(vector - step, theta, chosen), None


_STEPS: dict[Outer, Callable[..., Outcome]] = {
    "gradient_descent": _gradient_step,
    "gauss_newton": _gauss_newton_step,
    "adam": _adam_step,
}

"""The gradient of every loss against central differences, in double precision, on simulated motion through space.

Noise is drawn as it is told, so chi-square is about one a degree of freedom.  Differences are Richardson's, of fourth
order in the step, of solves taken to the last digit.  A row's figure is the largest error over the largest number
of the gradient.  What a gradient holds fixed (the covariance S of the held-out loss) is fixed in the differences, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from benchmarks.table import Row
from dsg_ros import config, poses
from dsg_ros.core import geometry
from dsg_ros.core.compilation import quick_compilation
from dsg_ros.core.factors import Loop, OdomSE3
from dsg_ros.core.factors.base import Kernel
from dsg_ros.core.factors.odometry import noise
from dsg_ros.core.problem import Problem
from dsg_ros.core.solve import solve, solve_differentiable
from dsg_ros.core.solvers import DenseCholesky, LevenbergMarquardt
from dsg_ros.core.theta import Theta, flatten, mask, to_float64, unflatten
from dsg_ros.core.world import WorldModel
from dsg_ros.experiments import hero
from dsg_ros.learning import losses
from dsg_ros.learning.block import Block, Link, Teacher, make_block, pairs_of
from dsg_ros.learning.calibrators.fit import NU, information_of, scale_of
from dsg_ros.learning.parameters import LEARNABLE
from dsg_ros.learning.scoring import LIKELIHOODS, SCORES

Vector = NDArray[np.float64]
Cost = Callable[[Vector], float]

EXACT, PLAIN = 1e-5, 1e-2
"""Goals: with the true Hessian of what is solved inside, and with Gauss and Newton's."""
LINKS, POSES = 5, 12
SCATTER = np.array([0.02, 0.02, 0.02, 0.01, 0.01, 0.01])
"""Deviations of what is matched [m, rad]."""
ODOMETRY = config.Odometry()
WIDTHS = {"no kernel": 1e6, "Cauchy": 1.0}
"""Of the kernel in the losses of blocks: one that changes nothing, one that weighs most rows down."""
KERNELS = {"no kernel": Kernel.NONE, "Huber": Kernel.HUBER, "Cauchy": Kernel.CAUCHY,
           "Geman-McClure": Kernel.GEMAN_MCCLURE, "DCS": Kernel.DCS}  # fmt: skip
KERNEL_WIDTH = 2.0
"""Of closures with six directions: about every other one is beyond."""
THROUGH = mask(Theta.neutral(), *LEARNABLE, "odometry_noise", "loop_noise")
TIGHT = LevenbergMarquardt(DenseCholesky(), max_iterations=200, tolerance=1e-20)


def run() -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """Rows of each family of losses."""
    for family in (of_blocks, of_noise, supervised, tutorial, recorded):
        rows = list(family())
        yield rows, {row.key: row.ours for row in rows}


def of_blocks() -> Iterator[Row]:
    """The losses that live learning scores blocks with, taught by scans and by a reference as well."""
    teachers: tuple[Teacher, ...] = ("scans", "both")
    at, chosen = np.zeros(len(LEARNABLE)), mask(Theta.neutral(), *LEARNABLE)
    fixed = _compiled(at_fixed_covariance)
    for loss, scored in SCORES.items():
        score = _compiled(lambda theta, made, width, of=scored: of(made, theta, chosen, width))
        for teacher in teachers:
            made = block(teacher)
            for kernel, width in WIDTHS.items():

                def cost(v: Vector, of: Any = score, b: Block = made, w: float = width, name: str = loss) -> float:
                    if name == "held_out":
                        return float(fixed(theta_at(v), theta_at(at), b, w))
                    return float(of(theta_at(v), b, w).cost)

                found = np.asarray(score(theta_at(at), made, width).gradient)
                yield _row(f"{loss} ({teacher})", kernel, found, differences(cost, at), EXACT)


def of_noise() -> Iterator[Row]:
    """The likelihoods that the odometry's deviations are learned from, in their logarithms."""
    made, at = block("scans"), np.linspace(-0.3, 0.3, 6)
    for loss, likelihood in LIKELIHOODS.items():

        def cost(logs: Array, of: Block, width: float, likelihood: Any = likelihood) -> Array:
            return likelihood(of, Theta.neutral().replace(odometry_noise=logs), width)

        told = _compiled(jax.value_and_grad(cost))
        kernels = {"Student t": 1.0} if loss == "predictive" else WIDTHS
        for kernel, width in kernels.items():
            wanted = differences(partial(_value, told, made, width), at)
            yield _row(f"noise, {loss}", kernel, np.asarray(told(at, made, width)[1]), wanted, EXACT)


def supervised() -> Iterator[Row]:
    """Distance of a solved graph's poses from reference poses, through the solve, closures under each kernel."""
    neutral = to_float64(Theta.neutral())
    at = np.asarray(flatten(neutral, THROUGH))

    def loss(vector: Array, problem: Problem, reference: Array, exact: bool) -> Array:
        state = solve_differentiable(problem, unflatten(vector, neutral, THROUGH), TIGHT, exact)
        apart = jax.vmap(lambda one, other: geometry.log(geometry.between(one, other)))(reference, state.poses[:POSES])
        return jnp.sum(apart**2)

    told = {exact: _compiled(jax.value_and_grad(partial(loss, exact=exact))) for exact in (True, False)}
    for kernel, number in KERNELS.items():
        problem, reference = graph(number)
        wanted = differences(partial(_value, told[False], problem, reference), at, 1e-3)
        rows = np.asarray(problem.residuals(neutral, solve(problem, neutral, TIGHT).state))
        note = f"chi2/dof {float(rows @ rows) / (np.count_nonzero(rows) - 6 * (POSES - 1)):.2f}"
        for what, exact in (("exact curvature", True), ("Gauss-Newton", False)):
            found = np.asarray(told[exact](at, problem, reference)[1])
            # Gauss-Newton has a kernel's weight, not its curvature: with one that is active no goal can be set.
            goal = EXACT if exact else PLAIN if number is Kernel.NONE else None
            yield _row("supervised", f"{kernel}, {what}", found, wanted, goal, note)


def tutorial() -> Iterator[Row]:
    """The tutorial's supervised loss, of reference voxels and a reference pose."""
    made = hero.build_hybrid_graph()
    problem, chosen = hero.snapshot(made), mask(made.theta, "odom", "obs")
    rng = np.random.default_rng(2)
    at = np.asarray(flatten(made.theta, chosen))
    at = at + 0.05 * rng.normal(size=at.shape)  # the increments sum to 5, where pose 5 is as wanted: turned a little
    told = _compiled(jax.value_and_grad(lambda v, p: hero.supervised_loss(unflatten(v, made.theta, chosen), p, TIGHT)))
    wanted = differences(partial(_value, told, problem), at)
    yield _row("tutorial", "exact curvature", np.asarray(told(at, problem)[1]), wanted, EXACT)


def recorded() -> Iterator[Row]:
    """The Student t of `calibrate`, its scale found anew at every value: here of a line through points."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.1 * rng.standard_t(3, size=(300, 2))
    at = np.array([0.98, -1.97, 0.52])

    def cost(values: Vector) -> float:
        e = x @ values - y
        scale = scale_of(e)
        squared = np.einsum("mi,ij,mj->m", e, np.linalg.inv(scale), e)
        return float(0.5 * ((NU + 2) * np.log1p(squared / NU).sum() + len(e) * np.linalg.slogdet(scale)[1]))

    e = x @ at - y
    found = information_of(e, x, scale_of(e))[1].sum(axis=0)
    yield _row("calibrate", "Student t", found, differences(cost, at), EXACT)


def block(teacher: Teacher) -> Block:
    """Links that turn and shift in every direction."""
    rng = np.random.default_rng(5)
    root = np.diag(1 / SCATTER) @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    links = []
    for true in poses.exp(rng.normal(0, 0.2, (LINKS, 6))):
        seen, told = (poses.compose(true, poses.exp(np.linalg.solve(root, rng.normal(size=6)))) for _ in range(2))
        links.append(Link(measured(true, rng), 0.4, seen, root.T @ root, rng.normal(0, 0.1, 6), told, root.T @ root))
    return make_block(links, pairs_of(LINKS), ODOMETRY, teacher)


def measured(true: Vector, rng: np.random.Generator) -> Vector:
    """Increments (..., 7) as odometry tells them, with the deviations that it is told to have."""
    fields = noise(true, ODOMETRY.translation, ODOMETRY.rotation)
    sigmas = np.repeat(
        np.stack([fields["sigma_translation"].sum(-1), fields["sigma_rotation"].sum(-1)], axis=-1), 3, axis=-1
    )
    return poses.compose(true, poses.exp(sigmas * rng.normal(size=sigmas.shape)))


def graph(kernel: Kernel) -> tuple[Problem, Vector]:
    """Poses along odometry, tied by closures under the kernel, and where they truly are (`POSES`, 7)."""
    rng = np.random.default_rng(3)
    steps = poses.exp(np.array([0.4, 0, 0, 0, 0, 0.3]) + rng.normal(0, 0.1, (POSES - 1, 6)))
    true = [poses.IDENTITY]
    for step in steps:
        true.append(poses.compose(true[-1], step))
    truth, told = np.array(true), measured(steps, rng)
    world = WorldModel()
    world.add_poses(truth)
    index = np.arange(POSES - 1)
    world.add_rows(OdomSE3, previous=index, current=index + 1, duration=np.full(POSES - 1, 0.4),
                   **noise(told, ODOMETRY.translation, ODOMETRY.rotation))  # fmt: skip
    first, second = np.triu_indices(POSES, 3)
    closed = poses.compose(
        poses.between(truth[first], truth[second]), poses.exp(SCATTER * rng.normal(size=(len(first), 6)))
    )
    count = len(first)
    world.add_rows(
        Loop,
        first=first,
        second=second,
        measured=closed,
        sqrt_info=np.tile(np.diag(1 / SCATTER), (count, 1, 1)),
        kernel=np.full(count, int(kernel)),
        kernel_width=np.full(count, KERNEL_WIDTH),
    )
    return world.snapshot(fixed=[0]), truth


def at_fixed_covariance(theta: Theta, reference: Theta, made: Block, width: float) -> Float[Array, ""]:
    """The held-out cost with S as it is at ``reference``, as the gradient there has it."""
    problem = made.problem(reference)
    before = solve(problem, reference, losses.INNER)
    covariance = before.factorisation.solve(jnp.eye(before.state.dof))
    lower, _ = losses.whitened_spread(losses.predict(made, reference, before), covariance)
    now = losses.predict(made, theta, solve(problem, theta, losses.INNER))
    told = jnp.einsum("mij,mj->mi", now.root, now.innovation)
    squared = jnp.sum(jax.vmap(jnp.linalg.solve)(lower, told[..., None])[..., 0] ** 2, axis=1)
    width2 = width**2 * made.directions
    return 0.5 * jnp.sum(width2 * jnp.log1p(squared / width2))


def theta_at(vector: Vector) -> Theta:
    """Theta with the learnable numbers moved from neutral by ``vector`` (K,)."""
    neutral = to_float64(Theta.neutral())
    chosen = mask(neutral, *LEARNABLE)
    return to_float64(unflatten(flatten(neutral, chosen) + vector, neutral, chosen))


def differences(cost: Cost, at: Vector, step: float = 1e-4) -> Vector:
    """The gradient (K,) by Richardson's extrapolation of central differences."""

    def central(h: float) -> Vector:
        return np.array([(cost(at + h * unit) - cost(at - h * unit)) / (2 * h) for unit in np.eye(len(at))])

    return (4 * central(step / 2) - central(step)) / 3


def _value(function: Callable[..., Any], *rest_and_at: Any) -> float:
    """The value of one that gives its gradient, too, and takes first what comes last here."""
    *rest, at = rest_and_at
    return float(function(at, *rest)[0])


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function, compiler_options=quick_compilation())


def _row(loss: str, what: str, found: Vector, wanted: Vector, goal: float | None, note: str = "") -> Row:
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    return Row("gradients", loss, what, error, None, "", goal, note, alone=True)

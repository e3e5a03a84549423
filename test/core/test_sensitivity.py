"""A solution foretold at another theta, on the host: against JAX's implicit derivative, and against solving there."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from factor_rows import small_world

from dsg_ros import poses
from dsg_ros.core import theta as th
from dsg_ros.core.factors import Loop, OdomSE3, PosePrior, Registration
from dsg_ros.core.implicit import implicit_jacobian
from dsg_ros.core.sensitivity import first_order
from dsg_ros.core.solution import Result
from dsg_ros.core.solve import solve
from dsg_ros.core.solvers import DenseCholesky, LevenbergMarquardt, SparseCholesky
from dsg_ros.core.theta import Theta, to_float64

SPARSE = LevenbergMarquardt(SparseCholesky(), tolerance=1e-20)
LEAVES = (
    "scale",
    "lever",
    "lever_rotation",
    "time_offset",
    "bias",
    "turn_per_metre",
    "odometry_noise",
    "registration_noise",
    "loop_noise",
)


def graph(axes=range(6)):
    """A small graph with robust loops, its odometry in conflict with them: residuals are large."""
    world = small_world([PosePrior, OdomSE3, Registration, Loop], 6)
    rows = world.rows(OdomSE3)[0]
    world.set_rows(rows, rate=np.random.default_rng(4).normal(size=(len(rows), 6)))
    theta = jax.tree.map(lambda leaf: leaf + 0.02, Theta.neutral())
    return world.snapshot(axes=axes), to_float64(theta)


@pytest.mark.parametrize("axes", [range(6), (0, 1, 5)])
@pytest.mark.parametrize("leaf", LEAVES)
def test_it_is_the_implicit_derivative(leaf, axes):
    problem, theta = graph(axes)
    solution = solve(problem, theta, SPARSE)
    assert solution.code is Result.CONVERGED
    chosen = th.mask(theta, leaf)
    vector = np.asarray(th.flatten(theta, chosen))
    change = 0.03 * np.arange(1, len(vector) + 1)
    changed = to_float64(th.unflatten(vector + change, theta, chosen))
    expected = np.asarray(implicit_jacobian(problem, theta, solution, chosen, exact=True)) @ change
    found = first_order(problem, theta, solution, changed)
    assert np.abs(expected).max() > 1e-4
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()


def test_what_is_left_to_solving_again_is_of_second_order():
    problem, theta = graph()
    solution = solve(problem, theta, SPARSE)

    def left(amount):
        changed = to_float64(theta.replace(scale=theta.scale + amount, rotation_gain=theta.rotation_gain + amount))
        first = solution.state.retract(first_order(problem, theta, solution, changed)).poses
        truth = np.asarray(solve(problem, changed, SPARSE).state.poses)
        off, moved = (poses.log(poses.between(truth, np.asarray(p))) for p in (first, solution.state.poses))
        return np.linalg.norm(off), np.linalg.norm(moved)

    (large, moved), (small, _) = left(0.02), left(0.01)
    assert large < 0.1 * moved
    assert small == pytest.approx(large / 4, rel=0.1)


def test_a_theta_that_is_the_same_moves_nothing():
    problem, theta = graph()
    solution = solve(problem, theta, SPARSE)
    assert not first_order(problem, theta, solution, theta).any()


def test_a_solution_from_elsewhere_is_refused():
    problem, theta = graph()
    solution = solve(problem, theta, LevenbergMarquardt(DenseCholesky()))
    with pytest.raises(ValueError, match="SparseCholesky"):
        first_order(problem, theta, solution, theta)

"""The incremental solver against the batch solver, step by step, and what an update touches."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from growing_graphs import PLANAR, ROOT, SPATIAL, Walk, batch, begin, grow
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from dsg_ros import poses
from dsg_ros.core.factors import Registration
from dsg_ros.core.native.growing import FRONTS
from dsg_ros.core.solution import Result, marginal_covariance
from dsg_ros.core.solve import solve
from dsg_ros.core.solvers import LevenbergMarquardt, SparseCholesky
from dsg_ros.core.theta import Theta


@pytest.mark.parametrize("axes", [PLANAR, SPATIAL])
@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=15)
def test_with_tight_thresholds_it_is_the_batch_optimum(axes: tuple[int, ...], seed: int) -> None:
    solver, world = begin(axes, relinearise=1e-9, wildfire=0.0, every=1)
    grow(Walk(seed, axes), solver, world, 40)
    for _ in range(6):  # nothing new: only what is far from where it was linearised
        solver.update()
    best = batch(world, axes)
    found, count = solver.estimates(), len(solver)
    assert np.abs(poses.log(poses.between(found, np.asarray(best.state.poses)[:count]))).max() < 1e-6
    for key in (0, 1, count // 2, count - 1):
        assert_allclose(solver.estimate(key), found[key], atol=1e-12)
        assert_allclose(solver.covariance(key), marginal_covariance(best, key), atol=1e-6)


@pytest.mark.parametrize("axes", [PLANAR, SPATIAL])
def test_with_the_defaults_it_comes_close(axes: tuple[int, ...]) -> None:
    solver, world = begin(axes)
    grow(Walk(1, axes), solver, world, 300)
    best = batch(world, axes)
    world.set_poses(np.arange(len(solver)), solver.estimates())
    stopped = LevenbergMarquardt(SparseCholesky(), max_iterations=0)
    here = solve(world.snapshot(fixed=[0], axes=axes), Theta.neutral(), stopped)
    assert float(here.cost) <= float(best.cost) * (1 + 1e-3)


def test_it_is_deterministic() -> None:
    estimates = []
    for _ in range(2):
        solver, world = begin(PLANAR)
        grow(Walk(3, PLANAR), solver, world, 80)
        estimates.append(solver.estimates())
    assert np.array_equal(*estimates)


def test_an_update_without_loops_touches_few_fronts_however_long_the_chain() -> None:
    solver, _ = begin(PLANAR)
    step = poses.from_planar(0.5, 0.0, 0.01)
    fronts = []
    for key in range(1, 3000):
        solver.add_pose(poses.compose(solver.estimate(key - 1), step))
        solver.add_relative(key - 1, key, step, ROOT)
        update = solver.update()
        fronts.append((update.fronts, update.visited))
    assert np.max(fronts[1:]) <= 6


def test_what_a_loop_does_not_move_is_not_linearised_again() -> None:
    """A chain drifts slowly; a loop near its end bends the last poses, and only these come to another origin."""
    solver, _ = begin(PLANAR, every=1)
    step = poses.from_planar(0.5, 0.0, 0.0)
    for key in range(1, 1000):
        solver.add_pose(poses.compose(solver.estimate(key - 1), step))
        solver.add_relative(key - 1, key, step, ROOT)
        assert solver.update().relinearised == 0
    solver.add_relative(970, 999, poses.from_planar(14.5, 1.0, 0.0), ROOT)
    again, fronts = [], []
    for _ in range(8):
        update = solver.update()
        again.append(update.relinearised)
        fronts.append(update.fronts)
    assert 0 < max(again) <= 40
    assert again[-1] == 0
    assert max(fronts) <= 100


GROWTH = """
import numpy as np
from dsg_ros import poses
from dsg_ros.core.compilation import CompileCounter
from dsg_ros.core.solvers import incremental

incremental.warm_up()
rng, root = np.random.default_rng(0), np.diag([20.0, 20, 20, 60, 60, 60])
with CompileCounter() as counter:
    for axes in ((0, 1, 5), range(6)):
        solver, step = incremental.Incremental(axes), poses.from_planar(1.0, 0.0, 0.01)
        solver.add_pose(poses.IDENTITY, held=True)
        for key in range(1, 1500):
            solver.add_pose(poses.compose(solver.estimate(key - 1), step))
            measured = poses.compose(step, poses.exp(np.array([0.05, 0.05, 0, 0, 0, 0.01]) * rng.normal(size=6)))
            solver.add_relative(key - 1, key, measured, root)
            if key % 50 == 0:
                solver.add_relatives([key - 40, key], [key, key - 9], [poses.IDENTITY] * 2, 0.1 * root)
            solver.update()
        solver.settle()
        solver.covariance(7)
        solver.estimates()
raise SystemExit(counter.count)
"""


def test_after_the_warm_up_a_growing_graph_compiles_nothing() -> None:
    # In a process of its own: here other tests have called what it might have left out.
    assert subprocess.run([sys.executable, "-c", GROWTH], check=False, timeout=300).returncode == 0


def test_changes_too_small_to_carry_down_add_up() -> None:
    count, found = 60, []
    for wildfire in (0.01, 0.0):
        solver, _ = begin(PLANAR, relinearise=1e9, wildfire=wildfire)
        for key in range(1, count):
            solver.add_pose(poses.from_planar(key, 0.0, 0.0))
            solver.add_relative(key - 1, key, poses.from_planar(1.0, 0.0, 0.0), ROOT)
            solver.update()
        for k in range(1, 101):  # the end moves by 5 mm an update, and all between with it, by less
            solver.add_relative(0, count - 1, poses.from_planar(count - 1 + 0.01 * k, 0.0, 0.0), ROOT)
            solver.update()
        found.append(solver.estimates()[:, 0])
    assert found[1][count // 2] - count // 2 > 0.2
    assert_allclose(*found, atol=0.03)


def test_a_loop_to_where_all_was_given_back_long_ago() -> None:
    rng = np.random.default_rng(3)
    solver, world = begin(PLANAR, relinearise=1e-4, every=1, wildfire=0.0)
    moving = np.isin(np.arange(6), PLANAR)
    count = 2600
    truth = [poses.IDENTITY]
    for k in range(count):
        truth.append(poses.compose(truth[-1], poses.from_planar(1.0, 0.0, 0.3 * np.sin(0.05 * k))))

    def join(first: int, second: int) -> None:
        measured = poses.compose(
            poses.between(truth[first], truth[second]), poses.exp(1e-3 * rng.normal(size=6) * moving)
        )
        solver.add_relative(first, second, measured, ROOT)
        world.add(Registration, first=first, second=second, measured=measured, sqrt_info=ROOT)

    for k in range(1, count + 1):
        solver.add_pose(truth[k])
        world.add_pose(truth[k])
        join(k - 1, k)
        if k > 10:
            join(int(k - rng.integers(2, 9)), k)
        assert solver.update().result is Result.CONVERGED
    updates = solver._fronts.whole.update[: solver._store.ends[FRONTS]]
    assert (updates < 0).sum() > 0.3 * len(updates)
    for older in (700, 30, 31):
        join(older, count)
        assert solver.update().result is Result.CONVERGED
    update, _ = solver.settle()
    assert update.result is Result.CONVERGED
    reference = batch(world, PLANAR)
    assert_allclose(solver.estimates(), np.asarray(reference.state.poses)[: count + 1], atol=1e-6)


def test_room_that_must_grow_changes_nothing() -> None:
    found = []
    for little in (True, False):
        solver, world = begin(PLANAR)
        if little:
            solver._members, solver._pool = np.empty(8, np.int64), np.empty(8)
        grow(Walk(6, PLANAR), solver, world, 60)
        found.append(solver.estimates())
    np.testing.assert_array_equal(*found)

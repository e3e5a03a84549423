"""What a growing graph tells beside its estimates: derivatives, covariances, and where there are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from growing_graphs import PLANAR, ROOT, SPATIAL, Walk, begin, grow
from numpy.testing import assert_allclose

from dsg_ros import poses
from dsg_ros.core.factors.base import Kernel
from dsg_ros.core.solution import Result
from dsg_ros.core.solvers.incremental import Incremental


@pytest.mark.parametrize("axes", [PLANAR, SPATIAL])
@pytest.mark.parametrize("kernel", [Kernel.NONE, Kernel.CAUCHY])
def test_derivatives_in_the_measured_poses_are_those_of_differences(axes: tuple[int, ...], kernel: Kernel) -> None:
    rng = np.random.default_rng(5)
    steps = poses.exp((np.array([1.0, 0, 0, 0, 0, 0.3]) + 0.1 * rng.normal(size=(30, 6))) * np.isin(np.arange(6), axes))
    # Hardly any, for Gauss-Newton's curvature leaves out what grows with it: a hundredth at a millimetre here.
    noise = 1e-5 * rng.normal(size=(30, 6)) * np.isin(np.arange(6), axes)
    cotangent = rng.normal(size=(31, 6))

    def solved(moved: int = -1, by: Any = None) -> Incremental:
        solver = Incremental(axes, relinearise=1e-9, wildfire=0.0, every=1)
        solver.add_pose(poses.IDENTITY, held=True)
        for k in range(30):
            measured = poses.compose(steps[k], poses.exp(noise[k]))
            if k == moved:
                measured = poses.compose(measured, poses.exp(by))
            solver.add_pose(poses.compose(solver.estimate(k), measured))
            solver.add_relative(k, k + 1, measured, ROOT, kernel, 2.0)
            if k % 5 == 4:
                relative = poses.IDENTITY
                for step in steps[k - 4 : k + 1]:
                    relative = poses.compose(relative, step)
                solver.add_relative(k - 4, k + 1, relative, ROOT, kernel, 2.0)
            solver.update()
        for _ in range(5):
            solver.settle(1e-12)
        return solver

    here = solved()
    told = here.measurement_vjp(cotangent)
    row_of = [k + k // 5 for k in range(30)]
    for k in (0, 4, 17, 29):
        for axis in axes:
            by = 1e-5 * np.eye(6)[axis]
            ends = [solved(k, sign * by).estimates() for sign in (1, -1)]
            ahead, behind = (poses.log(poses.between(here.estimates(), end)) for end in ends)
            wanted = float(np.sum(cotangent * (ahead - behind))) / 2e-5
            assert told[row_of[k], axis] == pytest.approx(wanted, rel=1e-3, abs=1e-3)
    with pytest.raises(ValueError, match="expected"):
        here.measurement_vjp(cotangent[:4])
    here.add_pose(poses.IDENTITY)
    here.update()
    with pytest.raises(ValueError, match="found no solution"):
        here.measurement_vjp(np.zeros((32, 6)))


def test_what_is_not_determined_is_named_and_comes_right_later() -> None:
    solver, world = begin(PLANAR, every=1)
    grow(Walk(2, PLANAR), solver, world, 10)
    before = solver.estimates()
    assert solver.underconstrained() == ()
    lost = solver.add_pose(poses.from_planar(9.0, 9.0, 0.0))
    with_it = solver.add_pose(poses.from_planar(10.0, 9.0, 0.0))
    solver.add_relative(lost, with_it, poses.from_planar(1.0, 0.0, 0.0), ROOT)
    assert solver.update().result is Result.SINGULAR
    assert solver.underconstrained() == (lost, with_it)
    assert_allclose(solver.estimates()[:lost], before, atol=1e-12)
    measured = poses.from_planar(1.0, 0.0, 0.0)
    solver.add_relative(3, lost, measured, ROOT)
    for _ in range(5):  # it began far away: linearised again until it is there
        assert solver.update().result is Result.CONVERGED
    assert_allclose(solver.estimate(lost), poses.compose(solver.estimate(3), measured), atol=1e-3)


def test_settling_does_not_make_a_singular_update_good() -> None:
    solver, _ = begin(PLANAR)
    step = poses.from_planar(1.0, 0.0, 0.0)
    no_heading = np.diag([20.0, 20, 20, 60, 60, 0])
    for key, roots in enumerate([[ROOT], [np.zeros((6, 6))] * 2, [ROOT], [no_heading], [ROOT]]):
        solver.add_pose(poses.compose(solver.estimate(key), step))
        for root in roots:
            solver.add_relative(key, key + 1, step, root)
        before = solver.estimates()
        assert solver.update().result is (Result.CONVERGED if key == 0 else Result.SINGULAR)
        update, _ = solver.settle()
        assert update.result is (Result.CONVERGED if key == 0 else Result.SINGULAR)
        assert solver.update().result is update.result
        assert_allclose(solver.estimates(), before, atol=1e-12)
    with pytest.raises(ValueError, match="pose 2 has no covariance: the last update found no solution"):
        solver.covariance(2)
    solver.add_relative(1, 2, step, ROOT)
    solver.add_relative(3, 4, step, ROOT)
    assert solver.update().result is Result.CONVERGED
    assert solver.settle()[0].result is Result.CONVERGED
    assert solver.covariance(2)[0, 0] > 0


def test_settling_tells_of_a_step_that_raised_the_cost() -> None:
    rng, count = np.random.default_rng(2), 12
    step, root = poses.from_planar(1.0, 0.0, 2 * np.pi / count), np.diag([60.0, 60, 60, 0.1, 0.1, 0.1])
    solver, truth = Incremental(PLANAR), [poses.IDENTITY]
    for _ in range(count - 1):
        truth.append(poses.compose(truth[-1], step))
    for key, pose in enumerate(truth):
        away = poses.from_planar(*rng.normal(0, [3, 3, 2.5])) if key else poses.IDENTITY
        solver.add_pose(poses.compose(pose, away), held=key == 0)
    for key in range(count):
        for other in ((key + 1) % count, (key + 3) % count):
            solver.add_relative(key, other, poses.between(truth[key], truth[other]), root)
    start = solver.cost()
    update, steps = solver.settle()
    assert (update.result, steps) == (Result.DIVERGED, 2)
    # The first step is taken, the second not; and it is no better when it is asked for again.
    kept, found = solver.estimates(), solver.cost()
    assert 0 < found < start
    update, steps = solver.settle()
    assert (update.result, steps) == (Result.DIVERGED, 1)
    assert_allclose(solver.estimates(), kept, atol=1e-12)
    assert np.isfinite(solver.covariance(3)).all()


def test_errors_beyond_all_numbers_leave_the_estimate() -> None:
    solver, _ = begin(PLANAR)
    step = poses.from_planar(1.0, 0.0, 0.0)
    for key in range(2):
        solver.add_pose(poses.compose(solver.estimate(key), step))
        solver.add_relative(key, key + 1, step, ROOT)
        solver.update()
    before = solver.estimates()
    solver.add_relative(0, 2, poses.from_planar(1e200, 0.0, 0.0), 1e100 * ROOT)
    bad = (Result.SINGULAR, Result.DIVERGED)
    assert solver.update().result in bad
    assert solver.settle()[0].result in bad
    assert np.array_equal(solver.estimates(), before)


def test_covariances_that_there_are_not() -> None:
    solver, _ = begin(PLANAR)
    assert not solver.covariance(0).any()
    solver.add_pose(poses.IDENTITY)
    solver.add_relative(0, 1, poses.IDENTITY, ROOT)
    with pytest.raises(ValueError, match="pose 1 has no covariance yet"):
        solver.covariance(1)
    solver.update()
    assert solver.covariance(1)[0, 0] > 0
    for key in (-1, 2):
        with pytest.raises(KeyError, match=f"no pose has the number {key}"):
            solver.covariance(key)


def test_numbers_in_the_factor_are_those_of_its_fronts() -> None:
    solver, _ = begin(PLANAR)
    step, fills = poses.from_planar(1.0, 0.0, 0.0), [solver.fill()]
    for key in range(200):
        solver.add_pose(poses.compose(solver.estimate(key), step))
        solver.add_relative(key, key + 1, step, ROOT)
        if key in (3, 199):
            solver.update()
            fills.append(solver.fill())
    assert fills[:2] == [0, 12 * 13 // 2]  # four poses are one front
    # A chain has six numbers a pose and nine between neighbours; fronts of a few poses have some zeros too.
    assert 200 * 6 + 199 * 9 <= fills[2] < 3 * (200 * 6 + 199 * 9)

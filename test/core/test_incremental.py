"""The incremental solver against the batch solver, step by step."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.core.factors import Registration
from dsg_ros.core.factors.base import Kernel
from dsg_ros.core.native.growing import FRONTS
from dsg_ros.core.native.growing_rows import ROOTS
from dsg_ros.core.solution import Result, Solution, marginal_covariance
from dsg_ros.core.solve import solve
from dsg_ros.core.solvers import LevenbergMarquardt, SparseCholesky
from dsg_ros.core.solvers.incremental import Incremental
from dsg_ros.core.theta import Theta
from dsg_ros.core.world import WorldModel

Array = NDArray[np.float64]
PLANAR, SPATIAL = (0, 1, 5), tuple(range(6))
ROOT = np.diag([20.0, 20, 20, 60, 60, 60])


class Walk:
    """A random walk that sees earlier poses again, with noise; poses and rows one at a time."""

    def __init__(self, seed: int, axes: tuple[int, ...], noise: float = 0.02) -> None:
        self._rng, self._noise = np.random.default_rng(seed), noise
        self._moving = np.isin(np.arange(6), axes)
        self.truth = [poses.IDENTITY]

    def step(self) -> list[tuple[int, int, Array]]:
        """The next pose's rows: to the one before, and to some earlier ones."""
        tangent = np.array([0.5, 0, 0, 0, 0, 0]) + np.array([0, 0, 0, 0.1, 0.1, 0.4]) * self._rng.normal(size=6)
        self.truth.append(poses.compose(self.truth[-1], poses.exp(tangent * self._moving)))
        new = len(self.truth) - 1
        again = self._rng.integers(0, new, self._rng.integers(0, 3)) if new > 5 else []
        return [self._row(older, new) for older in {new - 1, *(int(i) for i in again)}]

    def _row(self, first: int, second: int) -> tuple[int, int, Array]:
        error = self._noise * self._rng.normal(size=6) * self._moving
        relative = poses.between(self.truth[first], self.truth[second])
        # Either direction may come.
        measured = poses.compose(relative, poses.exp(error))
        return (first, second, measured) if self._rng.random() < 0.7 else (second, first, poses.inverse(measured))


def grow(walk: Walk, solver: Incremental, world: WorldModel, steps: int) -> None:
    for _ in range(steps):
        rows = walk.step()
        new = len(solver)
        link = next(row for row in rows if {row[0], row[1]} == {new - 1, new})
        increment = link[2] if link[0] == new - 1 else poses.inverse(link[2])
        guess = poses.compose(solver.estimate(new - 1), increment)
        solver.add_pose(guess)
        world.add_pose(guess)
        for first, second, measured in rows:
            solver.add_relative(first, second, measured, ROOT)
            world.add(Registration, first=first, second=second, measured=measured, sqrt_info=ROOT)
        assert solver.update().result is Result.CONVERGED


def begin(axes: tuple[int, ...], **options: float) -> tuple[Incremental, WorldModel]:
    solver, world = Incremental(axes, **options), WorldModel()  # type: ignore[arg-type]
    solver.add_pose(poses.IDENTITY, held=True)
    world.add_pose(poses.IDENTITY)
    return solver, world


def batch(world: WorldModel, axes: tuple[int, ...]) -> Solution:
    options = LevenbergMarquardt(SparseCholesky(), tolerance=1e-14)
    return solve(world.snapshot(fixed=[0], axes=axes), Theta.neutral(), options)


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


def test_a_robust_kernel_votes_a_wrong_row_out() -> None:
    errors = []
    for kernel in (Kernel.NONE, Kernel.GEMAN_MCCLURE):
        solver, world = begin(PLANAR)
        walk = Walk(4, PLANAR)
        grow(walk, solver, world, 60)
        solver.add_relative(5, 60, poses.from_planar(30.0, 0.0, 1.0), ROOT, kernel, 3.0)
        solver.update()
        errors.append(np.abs(poses.log(poses.between(np.stack(walk.truth), solver.estimates()))).max())
    assert errors[1] < 0.5 < errors[0]


def test_a_pose_that_is_not_there() -> None:
    solver, _ = begin(PLANAR)
    for call in (lambda: solver.estimate(1), lambda: solver.add_relative(0, 1, poses.IDENTITY, ROOT)):
        with pytest.raises(KeyError, match="1"):
            call()
    with pytest.raises(ValueError, match="from pose 0 to itself"):
        solver.add_relative(0, 0, poses.IDENTITY, ROOT)
    assert solver.update().fronts == 0


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


def test_rows_together_are_as_rows_one_by_one() -> None:
    ends = np.array([[0, 1], [1, 2], [0, 2], [2, 2 + 1], [1, 3]])
    measured = np.array([poses.from_planar(0.3 * (b - a), 0.01 * a, 0.1) for a, b in ends])
    roots = np.array([(1 + k) * ROOT for k in range(len(ends))])
    answers = []
    for together in (True, False):
        solver = Incremental(PLANAR)
        for key in range(4):
            solver.add_pose(poses.from_planar(0.3 * key, 0, 0), held=key == 0)
        if together:
            assert solver.add_relatives(*ends.T, measured, roots, Kernel.HUBER, 2.0) == 0
        else:
            numbers = [
                solver.add_relative(*e, m, r, Kernel.HUBER, 2.0) for e, m, r in zip(ends, measured, roots, strict=True)
            ]
            assert numbers == list(range(5))
        assert solver.update().result is Result.CONVERGED
        answers.append((solver.estimates(), solver.covariance(3)))
    np.testing.assert_array_equal(answers[0][0], answers[1][0])
    np.testing.assert_array_equal(answers[0][1], answers[1][1])


def test_equal_square_roots_are_kept_once() -> None:
    solver, _ = begin(PLANAR)
    solver.add_pose(poses.from_planar(0.1, 0, 0))
    many = [np.diag([1.0 + k, 1, 1, 1, 1, 1]) for k in range(ROOTS + 10)]
    for root in (ROOT, ROOT.copy(), ROOT.tolist(), many, many[:ROOTS]):
        count = 1 if np.ndim(root) == 2 else len(root)
        solver.add_relatives([0] * count, [1] * count, [poses.IDENTITY] * count, root)
    # The first `ROOTS` are found again: all of many[:ROOTS] but the last, before which ROOT came.
    assert len(solver._rows.roots) == 1 + len(many) + 1
    expected = 0.5 * 0.01 * (3 * 400 + sum(root[0, 0] ** 2 for root in many + many[:ROOTS]))
    assert solver.cost() == pytest.approx(expected)


def test_room_that_must_grow_changes_nothing() -> None:
    found = []
    for little in (True, False):
        solver, world = begin(PLANAR)
        if little:
            solver._members, solver._pool = np.empty(8, np.int64), np.empty(8)
        grow(Walk(6, PLANAR), solver, world, 60)
        found.append(solver.estimates())
    np.testing.assert_array_equal(*found)


def test_of_rows_together_none_is_added_where_one_is_refused() -> None:
    solver, _ = begin(PLANAR)
    solver.add_pose(poses.IDENTITY)
    bad = np.array([poses.IDENTITY, poses.IDENTITY])
    bad[1, 6] = 2.0
    with pytest.raises(ValueError, match="norm 1"):
        solver.add_relatives([0, 0], [1, 1], bad, ROOT)
    with pytest.raises(KeyError, match="no pose has the number 7"):
        solver.add_relatives([0, 0], [1, 7], [poses.IDENTITY] * 2, ROOT)
    with pytest.raises(ValueError, match="measured: shape"):
        solver.add_relatives([0, 0], [1, 1], [poses.IDENTITY] * 3, ROOT)
    assert solver.add_relatives([], [], np.zeros((0, 7)), np.zeros((0, 6, 6))) == 0
    assert solver.add_relatives([0, 0], [1, 1], [poses.IDENTITY] * 2, ROOT) == 0
    assert solver.update().result is Result.CONVERGED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measured": [np.nan, 0, 0, 0, 0, 0, 1]}, "a pose is seven finite numbers"),
        ({"measured": [0, 0, 0, 0, 0, 0, 2]}, "a pose's quaternion has norm 1"),
        ({"sqrt_info": np.full((6, 6), np.nan)}, "sqrt_info: not finite"),
        ({"sqrt_info": np.eye(3)}, r"sqrt_info: shape \(3, 3\), expected \(6, 6\)"),
        ({"kernel_width": np.inf}, "kernel_width: not a positive number"),
        ({"kernel_width": 0.0}, "kernel_width: not a positive number"),
    ],
)
def test_rows_that_are_no_numbers_are_refused(change: dict, message: str) -> None:
    solver, _ = begin(PLANAR)
    solver.add_pose(poses.IDENTITY)
    row = {"measured": poses.IDENTITY, "sqrt_info": ROOT, "kernel_width": 1.0}
    for _ in range(2):  # nothing of it is kept
        with pytest.raises(ValueError, match=message):
            solver.add_relative(0, 1, **(row | change))
    solver.add_relative(0, 1, **row)
    assert solver.update().result is Result.CONVERGED


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        ([0, 0, np.inf, 0, 0, 0, 1], "a pose is seven finite numbers"),
        ([0, 0, 0, 0, np.nan, 0, 1], "a pose is seven finite numbers"),
        ([0, 0, 0, 1], "a pose is seven finite numbers"),
        ([0, 0, 0, 0, 0, 0, 0.9], "a pose's quaternion has norm 1"),
    ],
)
def test_poses_that_are_no_poses_are_refused_as_by_the_world(pose: list, message: str) -> None:
    solver, world = begin(PLANAR)
    for held in (False, True):
        with pytest.raises(ValueError, match=message) as ours:
            solver.add_pose(pose, held=held)
        with pytest.raises(ValueError, match=message) as theirs:
            world.add_pose(pose)
        assert str(ours.value) == str(theirs.value)
    assert len(solver) == 1


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

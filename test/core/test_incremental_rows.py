"""Rows of a growing graph: together and one by one, robust, and those that are refused."""

from __future__ import annotations

import numpy as np
import pytest
from growing_graphs import PLANAR, ROOT, Walk, begin, grow

from dsg_ros import poses
from dsg_ros.core.factors.base import Kernel
from dsg_ros.core.native.growing_rows import ROOTS
from dsg_ros.core.solution import Result
from dsg_ros.core.solvers.incremental import Incremental


def test_a_pose_that_is_not_there() -> None:
    solver, _ = begin(PLANAR)
    for call in (lambda: solver.estimate(1), lambda: solver.add_relative(0, 1, poses.IDENTITY, ROOT)):
        with pytest.raises(KeyError, match="1"):
            call()
    with pytest.raises(ValueError, match="from pose 0 to itself"):
        solver.add_relative(0, 0, poses.IDENTITY, ROOT)
    assert solver.update().fronts == 0


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

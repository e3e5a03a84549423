"""Compiled rows against JAX's, for every factor type; the chordal start."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from factor_rows import ANY_THETA, small_world
from numpy.testing import assert_allclose

from dsg_ros import poses
from dsg_ros.core import initialise
from dsg_ros.core.chunks import Chunks
from dsg_ros.core.factors import FACTOR_TYPES, Kernel, PosePrior, Registration, VoxelSensorObs
from dsg_ros.core.factors.base import Factor
from dsg_ros.core.linearisation import HostRows
from dsg_ros.core.native import robust, row_sums
from dsg_ros.core.problem import Problem
from dsg_ros.core.solution import Result
from dsg_ros.core.solve import solve
from dsg_ros.core.solvers import LevenbergMarquardt, SparseCholesky
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.core.variables import State
from dsg_ros.core.world import WorldModel


@pytest.mark.parametrize("axes", [range(6), (0, 1, 5)])
@pytest.mark.parametrize("kernel", list(Kernel))
@pytest.mark.parametrize("cls", FACTOR_TYPES)
def test_compiled_rows_are_those_of_jax(cls: type[Factor], kernel: Kernel, axes: tuple[int, ...]) -> None:
    world = small_world((cls,), noise=0.4)
    ids, _ = world.rows(cls)
    world.set_rows(ids, kernel=int(kernel), kernel_width=np.asarray(0.7))
    problem = world.snapshot(axes=axes)
    assert any(type(f) is cls and np.asarray(f.weight).any() for f in problem.factors)
    ours = HostRows(problem, ANY_THETA)
    assert len(ours.compiled_groups) == len({type(f) for f in problem.factors if np.asarray(f.weight).any()})
    cost, linearised = ours.linearise(problem.state)
    expected, _, gradient = Chunks(problem).linearise(ANY_THETA, problem.state)
    assert_allclose(cost, expected, rtol=1e-12)
    found = np.zeros(problem.state.dof)
    offset, out = np.cumsum(ours.dims) - ours.dims, np.empty(len(ours.free))
    row_sums.gradient_of(linearised, offset, ours.dims, out)
    found[ours.free] = out
    assert_allclose(found, gradient, atol=1e-9 * np.abs(gradient).max())
    hessians = Chunks(problem).linearise(ANY_THETA, problem.state)[1]
    row_sums.diagonal(linearised, offset, ours.dims, out)
    diagonal = np.zeros(problem.state.dof)
    for group, hessian in zip(Chunks(problem).rows, hessians, strict=True):
        np.add.at(diagonal, group.local, np.einsum("nii->ni", hessian))
    assert_allclose(out, diagonal[ours.free], rtol=1e-9, atol=1e-12)


def test_a_type_without_a_compiled_form_is_linearised_by_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = small_world((Registration, PosePrior), noise=0.3).snapshot(axes=(0, 1, 5))
    ours = HostRows(problem, ANY_THETA)
    cost, compiled = ours.linearise(problem.state)
    monkeypatch.setattr(Registration, "host_form", lambda self, theta: None)
    mixed = HostRows(problem, ANY_THETA)
    assert len(mixed.compiled_groups) == len(ours.compiled_groups) - 1
    again, chunked = mixed.linearise(problem.state)
    assert_allclose(again, cost, rtol=1e-12)
    assert_allclose(chunked.hessian, compiled.hessian, atol=1e-9)
    assert_allclose(chunked.gradient, compiled.gradient, atol=1e-9)


def test_groups_serve_their_own_stacks_theta_and_weights_alone() -> None:
    problem = small_world((Registration, PosePrior), noise=0.3).snapshot()
    ours = HostRows(problem, ANY_THETA)
    own = ours.groups_for(problem, ANY_THETA)
    assert own is ours.groups_for(dataclasses.replace(problem, state=problem.state), ANY_THETA)
    wider = to_float64(ANY_THETA.replace(registration_noise=ANY_THETA.registration_noise + 1))
    others = small_world((Registration, PosePrior), noise=0.3).snapshot()
    lighter = ours.weighted(np.full(len(ours.keys), 0.5))
    for groups in (ours.groups_for(problem, wider), ours.groups_for(others, ANY_THETA)):
        assert groups is not own
    assert all(a is not b for a, b in zip(lighter.groups_for(problem, ANY_THETA), lighter.compiled_groups, strict=True))


def test_moving_is_retraction() -> None:
    problem = small_world((Registration,)).snapshot(fixed=[1])
    ours, rng = HostRows(problem, ANY_THETA), np.random.default_rng(0)
    step = rng.normal(size=len(ours.free))
    whole = np.zeros(problem.state.dof)
    whole[ours.free] = step
    expected = problem.state.retract(whole)
    found = ours.moved(State(np.array(problem.state.poses), np.array(problem.state.voxels)), step)
    assert_allclose(poses.matrix(found.poses), poses.matrix(np.asarray(expected.poses)), atol=1e-12)
    assert_allclose(found.voxels, expected.voxels, atol=1e-12)


@pytest.mark.parametrize("kernel", list(Kernel))
def test_a_kernels_weight_is_the_slope_of_its_cost(kernel: Kernel) -> None:
    for s in (0.1, 0.9, 1.1, 5.0, 100.0):
        slope = (robust.robust(int(kernel), 1.0, s + 1e-6)[0] - robust.robust(int(kernel), 1.0, s - 1e-6)[0]) / 2e-6
        assert_allclose(robust.robust(int(kernel), 1.0, s)[1], slope, rtol=1e-6)


@pytest.mark.parametrize("kernel", list(Kernel))
@pytest.mark.parametrize("largest", [1e-12, 1.0, 1e12])
def test_a_sum_of_robust_errors_is_that_of_each(kernel: Kernel, largest: float) -> None:
    rng = np.random.default_rng(6)
    weights, squares = rng.choice([0.0, 0.5, 2.0], 3000), largest * rng.random(3000)
    pending, total = np.array([0.0, 1.0]), 0.0
    for weight, s in zip(np.sort(weights), squares, strict=True):
        share, slope = robust.robust_sum(int(kernel), 3.0, weight, s, pending)
        total += share
        assert_allclose(slope, robust.robust(int(kernel), 3.0, s)[1], rtol=1e-14)
    expected = sum(w * robust.robust(int(kernel), 3.0, s)[0] for w, s in zip(np.sort(weights), squares, strict=True))
    # A logarithm of a product knows what is added to 1 to the rounding of 1, times the square of the kernel's width.
    assert_allclose(total + robust.pending_sum(pending), expected, rtol=1e-12, atol=3000 * 9 * 2e-16)


def ring(planar: bool, noise: float) -> tuple[WorldModel, np.ndarray]:
    """A closed ring of forty poses that starts nowhere near; its true poses."""
    rng, count = np.random.default_rng(0), 40
    turn = 2 * np.pi / count
    step = np.array([1.0, 0, 0, 0, 0, turn]) if planar else np.array([1.0, 0, 0.05, 0.3, -0.2, turn])
    true = [poses.from_planar(3.0, -2.0, 0.5)]
    for _ in range(count - 1):
        true.append(poses.compose(true[-1], poses.exp(step)))
    truth, world = np.stack(true), WorldModel()
    axes = np.isin(np.arange(6), [0, 1, 5]) if planar else np.ones(6, bool)
    world.add_poses(poses.compose(truth, poses.exp(np.array(2.0 * rng.normal(size=(count, 6)) * axes))))
    world.set_poses([0], truth[:1])
    pairs = [(i, (i + k) % count) for i in range(count) for k in (1, 7)]
    for first, second in pairs:
        error = poses.exp(noise * rng.normal(size=6) * axes)
        world.add(
            Registration, first=first, second=second, sqrt_info=np.diag([3.0, 3, 3, 9, 9, 9]),
            measured=poses.compose(poses.between(truth[first], truth[second]), error),
        )  # fmt: skip
    return world, truth


PLAIN = to_float64(Theta.neutral())


def started(world: WorldModel, planar: bool) -> Problem:
    problem = world.snapshot(fixed=[0], axes=(0, 1, 5) if planar else range(6))
    return initialise.better_start(problem, PLAIN)


@pytest.mark.parametrize("planar", [True, False])
def test_chordal_start_is_exact_without_noise(planar: bool) -> None:
    world, truth = ring(planar, 0.0)
    found = np.asarray(started(world, planar).state.poses)[: len(truth)]
    assert np.abs(poses.log(poses.between(truth, found))).max() < 1e-8


@pytest.mark.parametrize("planar", [True, False])
def test_from_the_chordal_start_the_optimum_is_reached(planar: bool) -> None:
    world, truth = ring(planar, 0.05)
    solver = LevenbergMarquardt(SparseCholesky())
    found = solve(started(world, planar), PLAIN, solver)
    world.set_poses(np.arange(len(truth)), truth)
    best = solve(world.snapshot(fixed=[0], axes=(0, 1, 5) if planar else range(6)), PLAIN, solver)
    assert found.code is best.code is Result.CONVERGED
    assert_allclose(found.cost, best.cost, rtol=1e-8)


@pytest.mark.parametrize("planar", [True, False])
def test_poses_that_relative_poses_do_not_join_have_no_chordal_start(planar: bool) -> None:
    """The last two poses are tied by a voxel only: their rotations are no matter of relative poses."""
    world, truth = ring(planar, 0.0)
    world.add_poses(truth[:2])
    world.add_voxel([1.0, 2.0, 0.0])
    for pose in (0, 1, len(truth), len(truth) + 1):
        world.add(VoxelSensorObs, pose=pose, voxel=0, point=[0.5, 0.5, 0.0])
    problem = world.snapshot(fixed=[0], axes=(0, 1, 5) if planar else range(6))
    assert initialise.chordal(HostRows(problem, PLAIN), np.array(problem.state.poses)) is None
    assert initialise.better_start(problem, PLAIN) is problem


def test_a_good_start_is_kept_and_a_free_gauge_has_no_chordal_one() -> None:
    world, truth = ring(planar=False, noise=0.0)
    world.set_poses(np.arange(len(truth)), truth)
    held = world.snapshot(fixed=[0])
    assert initialise.better_start(held, Theta.neutral()) is held
    free = world.snapshot()
    assert initialise.better_start(free, Theta.neutral()) is free


def test_nearest_rotations_of_anything() -> None:
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(200, 3, 3))
    matrices[0], matrices[1] = -np.eye(3), np.diag([1.0, 1.0, 0.0])
    found = initialise.nearest_rotations(matrices)
    assert_allclose(found @ found.swapaxes(1, 2), np.broadcast_to(np.eye(3), found.shape), atol=1e-9)
    assert_allclose(np.linalg.det(found), 1.0)
    u, _, v = np.linalg.svd(matrices[2:])
    flip = np.ones((198, 3))
    flip[:, 2] = np.linalg.det(u @ v)
    assert_allclose(found[2:], (u * flip[:, None, :]) @ v, atol=1e-7)

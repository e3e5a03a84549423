"""The compiled window against the jitted solver on the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from drives import Window
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from dsg_ros import poses
from dsg_ros.core.factors import Kernel, OdomSE3, Registration, VoxelSensorObs
from dsg_ros.core.solution import Result
from dsg_ros.core.solve import solve
from dsg_ros.core.solvers import LevenbergMarquardt, SchurVoxels
from dsg_ros.core.solvers import window as windows
from dsg_ros.core.theta import Theta, to_float64
from dsg_ros.core.variables import Kind
from dsg_ros.core.world import Capacity, WorldModel

THETA = to_float64(Theta.neutral().replace(scale=np.asarray(0.02), voxel_noise=np.asarray(0.3)))
POSES, VOXELS = 6, 12
ROOM = Capacity(8, 16, {OdomSE3: 8, Registration: 8, VoxelSensorObs: 128})
PLANAR = (0, 1, 5)


def drive(seed: int, axes: tuple[int, ...], kernel: Kernel = Kernel.CAUCHY) -> tuple[WorldModel, dict[str, Any]]:
    """A short drive past voxels, with noise in the directions ``axes``."""
    rng, world = np.random.default_rng(seed), WorldModel()
    moving = np.isin(np.arange(6), axes)
    step = np.array([0.3, 0.05, 0.0, 0.0, 0.0, 0.1])
    truth = [poses.IDENTITY]
    for _ in range(POSES - 1):
        truth.append(poses.compose(truth[-1], poses.exp(step)))
    world.add_poses(poses.compose(np.stack(truth), poses.exp(0.05 * rng.normal(size=(POSES, 6)) * moving)))
    centres = np.column_stack([rng.uniform(-2, 3, (VOXELS, 2)), np.zeros(VOXELS)])
    world.add_voxels(centres + 0.1 * rng.normal(size=(VOXELS, 3)) * [1, 1, 5 in axes])
    ids: dict[str, list[int]] = {"odometry": [], "registration": [], "seen": []}
    for k in range(1, POSES):
        told = step + 0.01 * rng.normal(size=6) * moving
        sigma: Any = {"sigma_translation": [0.05, 0, 0], "sigma_rotation": [0.02, 0, 0]}
        ids["odometry"].append(world.add(OdomSE3, previous=k - 1, current=k, measured=told, duration=0.1, **sigma))
        measured = poses.exp(step + 0.01 * rng.normal(size=6) * moving)
        root = np.diag(np.where(moving, 40.0, 0.0))
        ids["registration"].append(world.add(Registration, first=k - 1, second=k, measured=measured, sqrt_info=root))
    for k in range(POSES):
        for v in rng.choice(VOXELS, 8, replace=False):
            point = poses.transform(poses.inverse(truth[k]), centres[v : v + 1])[0] + 0.02 * rng.normal(size=3)
            robust = {"kernel": np.asarray(int(kernel)), "kernel_width": np.asarray(2.0)}
            row = world.add(VoxelSensorObs, pose=k, voxel=int(v), point=point, sqrt_info=30 * np.eye(3), **robust)
            ids["seen"].append(row)
    return world, ids


def window_of(world: WorldModel, ids: dict[str, Any], held: np.ndarray) -> Window:
    keys, voxels = np.arange(POSES), np.arange(VOXELS)
    stack: Any = world.stack(VoxelSensorObs, ids["seen"])
    # Rows between held variables add the same cost whatever happens: snapshots leave them out.
    seen = np.array(ids["seen"])[(stack.pose > 0) | ~np.isin(stack.voxel, held)]
    return Window(
        keys, world.get_poses(keys), keys > 0, voxels, world.get_voxels(voxels), ~np.isin(voxels, held),
        (world.stack(OdomSE3, ids["odometry"]), world.stack(Registration, ids["registration"])),
        world.stack(VoxelSensorObs, seen),
    )  # fmt: skip


@pytest.mark.parametrize("axes", [PLANAR, tuple(range(6))])
@given(seed=st.integers(0, 2**32), held=st.integers(0, 4), kernel=st.sampled_from(Kernel))
@settings(deadline=None, max_examples=20)
def test_the_compiled_window_finds_the_jitted_solvers_minimum(
    axes: tuple[int, ...], seed: int, held: int, kernel: Kernel
) -> None:
    world, ids = drive(seed, axes, kernel)
    known = np.arange(held)
    # Kernels that redescend have more than one minimum: both take the same steps for a while.
    ours = windows.solve(window_of(world, ids, known).at(THETA), axes, 3, 1e-13)
    problem = world.snapshot(
        np.arange(1, POSES), np.arange(held, VOXELS), fixed=[0], fixed_voxels=known, axes=axes, capacity=ROOM
    )
    theirs = solve(problem, THETA, LevenbergMarquardt(SchurVoxels(), max_iterations=3, tolerance=1e-13))
    assert ours.iterations == int(theirs.iterations)
    assert ours.result == theirs.code
    assert_allclose(ours.cost, float(theirs.cost), rtol=1e-7)
    assert_allclose(ours.poses, np.asarray(theirs.state.poses)[:POSES], atol=1e-6)
    assert_allclose(ours.voxels, np.asarray(theirs.state.voxels)[:VOXELS], atol=1e-6)


def test_it_converges_and_holds_what_is_held() -> None:
    world, ids = drive(0, PLANAR, Kernel.NONE)
    held = np.array([2, 5])
    window = window_of(world, ids, held)
    found = windows.solve(window.at(THETA), PLANAR, 50, 1e-12)
    assert found.result is Result.CONVERGED
    assert_allclose(found.poses[0], window.poses[0], atol=0)
    assert_allclose(found.voxels[held], window.voxels[held], atol=0)
    assert np.abs(found.poses[1:] - window.poses[1:]).max() > 1e-3
    assert_allclose(found.poses[:, 2:5], 0.0, atol=1e-15)  # a planar robot stays in the plane


def test_numbers_that_are_not_finite_change_nothing() -> None:
    world, ids = drive(0, PLANAR)
    window = window_of(world, ids, np.zeros(0, int))
    found = windows.solve(window.at(to_float64(THETA.replace(scale=np.asarray(np.nan)))), PLANAR, 5, 1e-9)
    assert found.result is Result.DIVERGED
    assert_allclose(found.poses, window.poses, atol=0)


def test_a_voxel_that_its_rows_do_not_determine_is_told() -> None:
    world, ids = drive(0, PLANAR)
    flat = np.zeros((3, 3))
    flat[0, 0] = 10.0
    world.set_rows(ids["seen"], sqrt_info=np.broadcast_to(flat, (len(ids["seen"]), 3, 3)))
    window = window_of(world, ids, np.zeros(0, int))
    found = windows.solve(window.at(THETA), PLANAR, 5, 1e-9)
    assert found.result is Result.SINGULAR
    assert found.underconstrained == tuple((Kind.VOXEL, int(key)) for key in window.voxel_keys)
    assert np.isfinite(found.poses).all()
    assert np.isfinite(found.voxels).all()

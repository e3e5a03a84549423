"""Derivatives of a fixed-lag smoother's estimates: against the whole drive smoothed again at another theta."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from drives import PLANAR, POSES, SPATIAL, THETA, Drive
from numpy.testing import assert_allclose

from dsg_ros import poses
from dsg_ros.core.compilation import CompileCounter
from dsg_ros.core.factors import OdomSE3, Registration, VoxelSensorObs
from dsg_ros.core.factors.base import Kernel
from dsg_ros.core.factors.odometry import noise
from dsg_ros.core.solution import Result
from dsg_ros.core.solvers.fixed_lag import FixedLag
from dsg_ros.core.solvers.window import Prior
from dsg_ros.core.theta import Mask, Theta, directions, flatten, mask

WINDOW, STEP = 5, 1e-4
LEARNED = mask(
    THETA, "odometry.scale", "odometry.rotation_gain", "odometry.lever.x", "extrinsic.x", "extrinsic.y",
    "extrinsic.rz", "odometry_noise", "registration_noise", "voxel_noise",
)  # fmt: skip


def smoothed(axes: tuple[int, ...], spread: float, theta: Theta, learned: Mask | None = None, **rows: Any) -> FixedLag:
    """A drive with errors of ``spread``, smoothed to its end; what has left has been seen by `WINDOW` poses at most.

    What is used up stays as it was linearised, so every solve goes to its optimum.  ``rows`` are fields of sightings.
    """
    drive = Drive(axes, spread)
    world, lag, variable = drive.world, FixedLag(axes, drive.anchor(), learned), {}
    rng = np.random.default_rng(1)
    for key in range(POSES):
        lag.add_poses(key, world.get_poses([key]))
        if key:
            error = spread * rng.normal(size=6) * np.isin(np.arange(6), axes)
            told = poses.compose(poses.between(*drive.truth[key - 1 : key + 1]), poses.exp(error))
            row = world.add(OdomSE3, previous=key - 1, current=key, **noise(told))
            lag.add(world.stack(OdomSE3, [row]))
            lag.add(world.stack(Registration, drive.links[key - 1]))
        seen = [(row, side) for row, (k, side) in zip(drive.seen, drive.keys, strict=True) if k == key]
        for row, side in seen:
            if side not in variable:
                variable[side] = world.add_voxel(world.get_voxels([side])[0])
                lag.add_voxels(variable[side], world.get_voxels([variable[side]]))
            world.set_rows([row], voxel=variable[side], **rows)
        lag.add(world.stack(VoxelSensorObs, [row for row, _ in seen]))
        assert lag.solve(theta, 30, 1e-9).result in (Result.CONVERGED, Result.MAX_ITERATIONS)
        if WINDOW <= key + 1 < POSES:
            gone = lag.drop_oldest(theta)
            variable = {side: voxel for side, voxel in variable.items() if voxel not in gone}
    return lag


def moved(lag: FixedLag, other: FixedLag) -> np.ndarray:
    """(D,) tangents from the estimates of one to those of the other."""
    away = poses.log(poses.between(lag.poses, other.poses))
    return np.concatenate([away.ravel(), (other.voxels - lag.voxels).ravel()])


def differences(axes: tuple[int, ...], spread: float, **rows: Any) -> np.ndarray:
    """(D, K) by the whole drive smoothed at theta a step up and down."""
    ways, here = directions(THETA, LEARNED), smoothed(axes, spread, THETA, **rows)
    columns = []
    for k in range(len(ways.scale)):
        up, down = (
            smoothed(axes, spread, jax.tree.map(lambda leaf, way, h=h, k=k: leaf + h * way[k], THETA, ways), **rows)
            for h in (STEP, -STEP)
        )
        columns.append((moved(here, up) - moved(here, down)) / (2 * STEP))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("axes", [PLANAR, SPATIAL])
@pytest.mark.parametrize(("spread", "share"), [(1e-4, 0.004), (1e-2, 0.05)])
def test_estimates_move_with_theta_as_the_whole_drive_does(axes, spread, share):
    # What is left out grows with the errors: Gauss-Newton's curvature, and where used up rows were linearised.
    lag, measured = smoothed(axes, spread, THETA, LEARNED), differences(axes, spread)
    told, sizes = lag.derivative(THETA).jacobian(), np.abs(measured).max(axis=0)
    assert (np.abs(told - measured).max(axis=0) < share * sizes).all()
    # Most of it comes from rows that are used up.
    lag.prior = dataclasses.replace(lag.prior, slopes=None)
    alone = lag.derivative(THETA).jacobian()
    assert (np.abs(alone - measured).max(axis=0) > 0.5 * sizes).all()


def test_robust_kernels_have_their_part():
    # At a third of their width; nearer to it, Gauss-Newton's curvature is further from the kernel's, as everywhere.
    rows = {"kernel": int(Kernel.CAUCHY), "kernel_width": 3.0}
    told, measured = smoothed(PLANAR, 0.01, THETA, LEARNED, **rows).derivative(THETA), differences(PLANAR, 0.01, **rows)
    sizes = np.abs(measured).max(axis=0)
    assert (np.abs(told.jacobian() - measured).max(axis=0) < 0.1 * sizes).all()


def test_with_nothing_learned_there_are_no_columns():
    lag = smoothed(PLANAR, 0.01, THETA, mask(THETA))
    assert lag.derivative(THETA).jacobian().shape == (6 * len(lag.poses) + 3 * len(lag.voxels), 0)


def test_a_prior_of_ones_own_does_not_depend_on_theta():
    lag = smoothed(PLANAR, 0.01, THETA, LEARNED)
    with_past = lag.derivative(THETA).jacobian()
    lag.prior = Prior.of_pose(int(lag.pose_keys[0]), lag.poses[0], 0.01, PLANAR)
    assert not np.allclose(lag.derivative(THETA).jacobian(), with_past, rtol=0.1)


def test_nothing_is_compiled_once_the_window_is_solved():
    smoothed(PLANAR, 0.01, THETA)
    with CompileCounter() as counter:
        smoothed(PLANAR, 0.01, THETA, LEARNED).derivative(THETA).jacobian()
    assert counter.count == 0


def test_a_product_with_a_cotangent_is_one_with_the_jacobian():
    derivative = smoothed(PLANAR, 0.01, THETA, LEARNED).derivative(THETA)
    jacobian = derivative.jacobian()
    cotangent = np.random.default_rng(2).normal(size=len(jacobian))
    assert jacobian.shape[1] == len(flatten(THETA, LEARNED))
    assert_allclose(derivative.vjp(cotangent), jacobian.T @ cotangent, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match=r"cotangent: shape \(3,\), expected"):
        derivative.vjp(np.zeros(3))


def test_what_is_held_does_not_move():
    lag = smoothed(PLANAR, 0.01, THETA, LEARNED)
    by_pose = lag.derivative(THETA).jacobian()[: 6 * len(lag.poses)].reshape(-1, 6, 14)
    held = [axis for axis in range(6) if axis not in PLANAR]
    assert not by_pose[:, held].any()
    assert by_pose[:, list(PLANAR)].any()


def test_estimates_are_the_same_with_and_without():
    lag, plain = smoothed(PLANAR, 0.01, THETA, LEARNED), smoothed(PLANAR, 0.01, THETA)
    assert np.array_equal(lag.poses, plain.poses)
    with pytest.raises(ValueError, match="made without numbers of theta that are learned"):
        plain.derivative(THETA)


def test_a_window_that_may_move_as_a_whole_has_none():
    lag = smoothed(PLANAR, 0.01, THETA, LEARNED)
    lag.prior = None
    with pytest.raises(ValueError, match="the rows do not determine the window"):
        lag.derivative(THETA)

"""Windows one after the other: what a prior keeps of what has left, and that it knows nothing that no row has seen."""

from __future__ import annotations

import numpy as np
import pytest
from drives import PLANAR, POSES, SEEN, SIDE, SPATIAL, THETA, Drive, Window
from numpy.testing import assert_allclose

from dsg_ros import poses
from dsg_ros.core.solution import Result
from dsg_ros.core.solvers import window as windows

WINDOW = 5


def solve(drive: Drive, window: Window, most: int = 60) -> windows.WindowSolution:
    return windows.solve(window.at(THETA), drive.axes, most, 1e-16)


@pytest.mark.parametrize("axes", [PLANAR, SPATIAL])
def test_at_the_optimum_nothing_is_lost(axes):
    drive = Drive(axes, 0.02)
    whole = drive.window(0, 6, set(), prior=drive.anchor())
    best = solve(drive, whole)
    assert best.result is Result.CONVERGED
    drive.adopt(whole, best)
    prior, gone = windows.marginalise(drive.window(0, 6, set(), prior=drive.anchor()).at(THETA), axes)
    assert prior.pose_keys.tolist() == sorted({1, *(k for k, v in drive.keys if v in gone and 0 < k <= 6)})
    assert len(gone) == SEEN
    rest = drive.window(1, 6, drive.spent(gone, 0, 6), prior=prior)
    again = solve(drive, rest)
    assert again.result is Result.CONVERGED
    assert_allclose(again.cost, best.cost, rtol=1e-9)
    assert_allclose(again.poses, best.poses[1:], atol=1e-7)
    # Moved away, the rest comes back to the same place.
    rng = np.random.default_rng(1)
    away = poses.compose(rest.poses, poses.exp(1e-3 * rng.normal(size=(6, 6)) * np.isin(np.arange(6), axes)))
    drive.world.set_poses(rest.pose_keys, away)
    back = solve(drive, drive.window(1, 6, drive.spent(gone, 0, 6), prior=prior))
    assert_allclose(back.poses, best.poses[1:], atol=1e-4)


def newest(drive: Drive) -> float:
    """How far the newest pose [m] is from the truth after a drive in windows."""
    prior, used = drive.anchor(), set()
    for last in range(WINDOW - 1, POSES):
        first = last - WINDOW + 1
        found = solve(drive, window := drive.window(first, last, used, prior=prior), 4)
        assert found.result in (Result.CONVERGED, Result.MAX_ITERATIONS)
        drive.adopt(window, found)
        if last < POSES - 1:
            prior, gone = windows.marginalise(drive.window(first, last, used, prior=prior).at(THETA), drive.axes)
            used |= drive.spent(gone, first, last)
    return off(drive, found.poses[-1])


def off(drive: Drive, pose: np.ndarray) -> float:
    return float(np.linalg.norm(pose[:3] - drive.truth[-1][:3]))


@pytest.mark.parametrize("axes", [PLANAR, SPATIAL])
def test_a_fixed_lag_smoother_is_nearly_as_good_as_batch(axes):
    errors = []
    for seed in range(10):
        drive = Drive(axes, 0.01, seed)
        anchored = drive.world.get_poses(np.arange(1))[0]
        truth = poses.compose(anchored, poses.inverse(drive.truth[0]))
        drive.truth = [poses.compose(truth, pose) for pose in drive.truth]
        batch = off(drive, solve(drive, drive.window(0, POSES - 1, set(), prior=drive.anchor())).poses[-1])
        alone = off(drive, solve(drive, drive.window(0, POSES - 1, set(range(999)), prior=drive.anchor())).poses[-1])
        errors.append([newest(drive), batch, alone])
    lag, batch, alone = np.sqrt(np.mean(np.square(errors), axis=0))
    print(
        f"newest pose, rms of 10 drives: {lag:.4f} m in windows, {batch:.4f} m in batch, {alone:.4f} m by links alone"
    )
    # A voxel that was marginalised is another variable when it is seen again: a little is lost.
    assert lag < 1.5 * batch
    assert lag < 0.8 * alone


def motions(at: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """How poses (n, 7) move, in their tangents (n d, d), when the map as a whole moves along the axes."""
    stacked = np.stack([poses.adjoint(poses.inverse(pose)) for pose in at])
    return stacked[:, list(axes)][:, :, list(axes)].reshape(-1, len(axes))


def learned_of_the_gauge(drive: Drive, first_estimates: bool) -> float:
    """What the prior's information resists, of its largest, when the map moves as a whole, after a drive."""
    nothing = np.zeros(len(drive.axes))
    prior, used = windows.Prior(np.array([0]), drive.world.get_poses(np.array([0])), np.diag(nothing), nothing), set()
    for last in range(WINDOW - 1, POSES - 1):
        first = last - WINDOW + 1
        window = drive.window(first, last, used, prior=prior)
        found = solve(drive, window, 3)
        drive.adopt(window, found)
        if not first_estimates:
            prior = windows.replace(prior, at=drive.world.get_poses(prior.pose_keys))
        prior, gone = windows.marginalise(drive.window(first, last, used, prior=prior).at(THETA), drive.axes)
        used |= drive.spent(gone, first, last)
    along = motions(prior.at, drive.axes)
    resisted = np.abs(along.T @ prior.information @ along).max()
    return float(resisted / np.abs(prior.information).max())


@pytest.mark.parametrize("axes", [PLANAR, SPATIAL])
def test_first_estimates_keep_the_gauge_unobservable(axes):
    kept = learned_of_the_gauge(Drive(axes, 0.03), first_estimates=True)
    lost = learned_of_the_gauge(Drive(axes, 0.03), first_estimates=False)
    print(f"share of the information that resists a motion of the whole map: {kept:.1e}, newest estimates {lost:.1e}")
    assert kept < 1e-9
    assert lost > 1e3 * kept


def test_a_prior_moves_with_the_map():
    drive = Drive(PLANAR, 0.01)
    window = drive.window(0, 6, set(), prior=drive.anchor())
    drive.adopt(window, solve(drive, window))
    prior, gone = windows.marginalise(drive.window(0, 6, set(), prior=drive.anchor()).at(THETA), PLANAR)
    used = drive.spent(gone, 0, 6)
    before = solve(drive, drive.window(1, 6, used, prior=prior))
    motion = poses.from_planar(3.0, -2.0, 0.7)
    drive.world.set_poses(np.arange(7), poses.compose(motion, drive.world.get_poses(np.arange(7))))
    drive.world.set_voxels(np.arange(SIDE), poses.transform(motion, drive.world.get_voxels(np.arange(SIDE))))
    after = solve(drive, drive.window(1, 6, used, prior=prior.carried(motion)))
    assert_allclose(after.cost, before.cost, rtol=1e-9)
    assert_allclose(after.poses, poses.compose(motion, before.poses), atol=1e-7)


def test_a_voxel_that_is_seen_along_one_line_ties_no_pose_down():
    drive = Drive(SPATIAL, 0.01)
    rng = np.random.default_rng(0)
    for row in drive.seen:
        root = np.zeros((3, 3))
        root[0] = 20 * rng.normal(size=3)  # along a line that is no axis: a single one of three directions
        drive.world.set_rows([row], sqrt_info=root[None])
    # Each voxel is seen once: three unknowns against one number, which says nothing of the pose.
    first = [r for r, (k, _) in enumerate(drive.keys) if k == 0]
    others = set(range(len(drive.keys))) - set(first)
    with_voxels, _ = windows.marginalise(drive.window(0, 3, others, prior=drive.anchor()).at(THETA), SPATIAL)
    without, _ = windows.marginalise(drive.window(0, 3, set(range(999)), prior=drive.anchor()).at(THETA), SPATIAL)
    assert with_voxels.pose_keys.tolist() == without.pose_keys.tolist() == [1]
    largest = np.abs(without.information).max()
    assert_allclose(with_voxels.information, without.information, atol=1e-5 * largest)

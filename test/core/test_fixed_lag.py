"""The fixed-lag smoother: the same as windows made anew each time, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from drives import PLANAR, POSES, SPATIAL, THETA, Drive, Window
from numpy.testing import assert_allclose

from dsg_ros.core.factors import PosePrior, Registration, VoxelSensorObs
from dsg_ros.core.solution import Result
from dsg_ros.core.solvers import window as windows
from dsg_ros.core.solvers import window_stacks
from dsg_ros.core.solvers.fixed_lag import FixedLag
from dsg_ros.core.theta import to_float64
from dsg_ros.core.variables import Kind

WINDOW = 5
OTHER = to_float64(THETA.replace(registration_noise=np.asarray(0.4), voxel_noise=np.asarray(-0.3)))


class Along:
    """A drive, one keyframe after the other: through a `FixedLag`, and as windows made anew from the world."""

    def __init__(self, drive: Drive) -> None:
        self.drive, self.lag, self.first = drive, FixedLag(drive.axes, drive.anchor()), 0
        self._variable: dict[int, int] = {}
        self._rows: list[tuple[int, int, int]] = []

    def add(self, key: int) -> None:
        """The next keyframe.  A voxel that has left is a new variable when it is seen again."""
        world, lag = self.drive.world, self.lag
        lag.add_poses(key, world.get_poses([key]))
        if key:
            lag.add(world.stack(Registration, self.drive.links[key - 1]))
        seen = [(row, side) for row, (k, side) in zip(self.drive.seen, self.drive.keys, strict=True) if k == key]
        for _, side in seen:
            if side not in self._variable:
                self._variable[side] = world.add_voxel(world.get_voxels([side])[0])
                lag.add_voxels(self._variable[side], world.get_voxels([self._variable[side]]))
        for row, side in seen:
            world.set_rows([row], voxel=self._variable[side])
            self._rows.append((row, key, self._variable[side]))
        lag.add(world.stack(VoxelSensorObs, [row for row, _ in seen]))

    def window(self) -> Window:
        """The same from the world."""
        world, keys = self.drive.world, np.arange(self.first, self.lag.pose_keys[-1] + 1)
        voxels = np.unique([voxel for _, _, voxel in self._rows])
        return Window(
            keys, world.get_poses(keys), np.ones(len(keys), bool), voxels, world.get_voxels(voxels),
            np.ones(len(voxels), bool), (world.stack(Registration, self.drive.links[self.first : keys[-1]]),),
            world.stack(VoxelSensorObs, [row for row, _, _ in self._rows]), self.lag.prior,
        )  # fmt: skip

    def drop_oldest(self, theta) -> np.ndarray:
        gone = self.lag.drop_oldest(theta)
        self._rows = [row for row in self._rows if row[2] not in gone]
        self._variable = {side: voxel for side, voxel in self._variable.items() if voxel not in gone}
        self.first += 1
        return gone


@pytest.mark.parametrize("axes", [PLANAR, SPATIAL])
def test_it_does_what_windows_made_anew_do(axes):
    drive = Drive(axes, 0.02)
    along = Along(drive)
    for key in range(POSES):
        theta = THETA if key < POSES // 2 else OTHER
        along.add(key)
        window = along.window()
        assert np.array_equal(window.voxel_keys, along.lag.voxel_keys)
        anew = windows.solve(window.at(theta), axes, 4, 1e-9, damping=1e-9)
        found = along.lag.solve(theta, 4, 1e-9)
        assert found.result is anew.result
        assert_allclose(found.cost, anew.cost, rtol=1e-9, atol=1e-12)
        assert_allclose(along.lag.poses, anew.poses, atol=1e-9)
        drive.adopt(window, anew)
        if key + 1 >= WINDOW:
            prior, gone = windows.marginalise(along.window().at(theta), axes)
            assert np.array_equal(along.drop_oldest(theta), gone)
            assert np.array_equal(along.lag.prior.pose_keys, prior.pose_keys)
            largest = np.abs(prior.information).max()
            assert_allclose(along.lag.prior.information, prior.information, atol=1e-6 * largest)
    assert len(along.lag.pose_keys) == WINDOW - 1


def test_rows_are_made_once_unless_theta_changes(monkeypatch):
    along, made = Along(Drive(PLANAR, 0.02)), []
    convert = window_stacks.rows_of

    def counted(stack, theta):
        made.append(len(stack.weight))
        return convert(stack, theta)

    monkeypatch.setattr(window_stacks, "rows_of", counted)
    for key in range(3):
        along.add(key)
        along.lag.solve(THETA, 2, 1e-9)
    rows = sum(made)
    along.lag.solve(THETA, 2, 1e-9)
    assert sum(made) == rows
    along.lag.solve(OTHER, 2, 1e-9)
    assert sum(made) == 2 * rows


def test_a_map_that_is_free_to_move_is_told():
    along = Along(Drive(PLANAR, 0.02))
    along.lag.prior = None
    for key in range(3):
        along.add(key)
    before = along.lag.poses.copy()
    found = along.lag.solve(THETA, 5, 1e-9)
    assert found.result is Result.SINGULAR
    assert set(found.underconstrained) >= {(Kind.POSE, key) for key in range(3)}  # and the voxels with them
    assert np.array_equal(along.lag.poses, before)


def test_first_estimates_that_lead_nowhere_keep_the_best():
    # Far first estimates: their Jacobians are no descent near the optimum, which is no divergence.
    along, results = Along(Drive(SPATIAL, 0.01)), []
    for key in range(POSES):
        along.add(key)
        before = along.lag.poses[-1].copy()
        found = along.lag.solve(THETA, 60, 1e-12)
        results.append(found.result)
        assert np.array_equal(along.lag.poses, found.poses)
        assert key == 0 or not np.array_equal(along.lag.poses[-1], before)
        if key + 1 >= WINDOW:
            along.drop_oldest(THETA)
    assert Result.MAX_ITERATIONS in results
    assert set(results) <= {Result.CONVERGED, Result.MAX_ITERATIONS}


def test_rows_must_be_about_what_is_there():
    drive = Drive(PLANAR, 0.02)
    along = Along(drive)
    along.add(0)
    along.lag.add(drive.world.stack(Registration, drive.links[3]))
    with pytest.raises(KeyError, match="the variable 3, which is not in the window"):
        along.lag.solve(THETA, 2, 1e-9)


def test_rows_of_another_form_are_refused():
    drive = Drive(PLANAR, 0.02)
    row = drive.world.add(PosePrior, pose=0)
    along = Along(drive)
    along.add(0)
    along.lag.add(drive.world.stack(PosePrior, row))
    with pytest.raises(TypeError, match="PosePrior: a window takes rows between two poses"):
        along.lag.solve(THETA, 2, 1e-9)


def test_keys_must_grow():
    along = Along(Drive(PLANAR, 0.02))
    along.add(0)
    with pytest.raises(ValueError, match="keys of a window must grow"):
        along.lag.add_poses(0, along.lag.poses)


def test_numbers_that_are_not_finite_are_refused():
    along = Along(Drive(PLANAR, 0.02))
    along.add(0)
    lag, poses, voxels = along.lag, len(along.lag.poses), len(along.lag.voxels)
    with pytest.raises(ValueError, match="a pose is seven finite numbers"):
        lag.add_poses(1, [np.nan, 0, 0, 0, 0, 0, 1])
    with pytest.raises(ValueError, match="a pose's quaternion has norm 1"):
        lag.add_poses(1, [0, 0, 0, 0, 0, 0, 2])
    with pytest.raises(ValueError, match="a voxel centre is three finite numbers"):
        lag.add_voxels(99, [0, np.inf, 0])
    with pytest.raises(ValueError, match="2 keys for 1 values"):
        lag.add_poses([1, 2], [[0, 0, 0, 0, 0, 0, 1]])
    assert (len(lag.pose_keys), len(lag.poses)) == (poses, poses)
    assert (len(lag.voxel_keys), len(lag.voxels)) == (voxels, voxels)


@pytest.mark.parametrize("key", [7, -1])
def test_a_prior_must_be_about_a_pose_of_the_window(key):
    along = Along(Drive(PLANAR, 0.02))
    along.add(0)
    along.add(1)
    along.lag.prior = windows.Prior.of_pose(key, along.lag.poses[0], 0.1, PLANAR)
    for call in (lambda: along.lag.solve(THETA, 2, 1e-9), lambda: along.lag.drop_oldest(THETA)):
        with pytest.raises(ValueError, match=f"the prior is about pose {key}, which is not in the window"):
            call()


def test_the_last_pose_cannot_leave():
    along = Along(Drive(PLANAR, 0.02))
    with pytest.raises(ValueError, match="a window of 0 poses has none to take out"):
        FixedLag(PLANAR).drop_oldest(THETA)
    along.add(0)
    with pytest.raises(ValueError, match="a window of 1 poses has none to take out"):
        along.lag.drop_oldest(THETA)
    assert along.lag.pose_keys.tolist() == [0]
    assert along.lag.solve(THETA, 5, 1e-9).result is Result.CONVERGED

import numpy as np
import pytest

from dsg_ros import poses
from dsg_ros.report.derived import metres_driven, nearest, odometry_in_map, voxels_by_odometry, weight


def test_metres_are_the_length_of_the_path():
    trajectory = poses.from_planar([0.0, 3.0, 3.0, 3.0], [0.0, 4.0, 4.0, 6.0], 0.0)
    np.testing.assert_allclose(metres_driven(trajectory), [0.0, 5.0, 5.0, 7.0])


def test_no_pose_is_no_metre():
    assert metres_driven(np.zeros((0, 7))).shape == (0,)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_nearest_agrees_with_exhaustive_search_whatever_the_order(n):
    rng = np.random.default_rng(n)
    stamps = rng.permutation(n).astype(np.int64) * 10
    query = rng.integers(-20, 10 * n + 20, 50)
    found = np.abs(stamps[nearest(stamps, query)] - query)
    np.testing.assert_array_equal(found, np.abs(stamps[:, None] - query).min(axis=0))


def test_odometry_starts_where_the_trajectory_starts_and_keeps_its_shape(runs):
    run = runs.room()
    moved = odometry_in_map(run)
    np.testing.assert_allclose(moved[0], run.trajectory[0], atol=1e-12)
    before = poses.log(poses.between(run.odometry[:-1], run.odometry[1:]))
    np.testing.assert_allclose(poses.log(poses.between(moved[:-1], moved[1:])), before, atol=1e-9)


def test_voxels_carried_by_odometry_keep_their_place_beside_the_robot(runs):
    run = runs.room()
    means, normals = voxels_by_odometry(run)
    seen = nearest(run.stamps, run.voxels.last_seen)
    carrier = odometry_in_map(run)[seen]
    here = poses.rotate(poses.inverse(carrier)[:, 3:], means) + poses.inverse(carrier)[:, :3]
    body = poses.inverse(run.trajectory[seen])
    there = poses.rotate(body[:, 3:], np.asarray(run.voxels.means, float)) + body[:, :3]
    np.testing.assert_allclose(here, there, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), np.linalg.norm(run.voxels.normals, axis=1), atol=1e-6)
    assert np.abs(means - run.voxels.means).max() > 0.3, "the odometry of this run strays, so must the voxels"


def test_weight_grows_with_the_count(runs):
    strength = weight(runs.room().voxels)
    counts = runs.room().voxels.counts
    assert strength.min() >= 0.0
    assert strength.max() == 1.0
    assert np.all(np.diff(strength[np.argsort(counts)]) >= 0.0)

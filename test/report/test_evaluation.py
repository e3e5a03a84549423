import numpy as np
import pytest

from dsg_ros import poses
from dsg_ros.errors import UserError
from dsg_ros.report.evaluation import Track, relative_errors, score


@pytest.fixture
def truth(runs) -> Track:
    run = runs.room()
    return Track(run.stamps, run.trajectory)


def test_a_rigidly_moved_copy_has_no_error(truth):
    moved = poses.compose(poses.exp([3.0, -2.0, 1.0, 0.2, -0.1, 2.0]), truth.poses)
    found = score(Track(truth.stamps, moved), truth)
    assert found.ate_rmse < 1e-9
    np.testing.assert_allclose(found.aligned[:, :3], truth.poses[:, :3], atol=1e-9)
    assert all(r.translation_p90 < 1e-6 and r.rotation_p90 < 1e-6 for r in found.relative)


def test_ate_of_known_noise(truth):
    rng = np.random.default_rng(0)
    noisy = truth.poses.copy()
    noisy[:, :2] += rng.normal(0.0, 0.1, (len(noisy), 2))
    found = score(Track(truth.stamps, noisy), truth)
    assert found.ate_rmse == pytest.approx(0.1 * np.sqrt(2), rel=0.08)
    assert found.ate_max == found.error.max() >= found.ate_rmse >= found.ate_median


def test_relative_error_is_the_scale_error_of_the_odometry():
    straight = poses.from_planar(np.linspace(0.0, 100.0, 501), 0.0, 0.0)
    long = poses.from_planar(np.linspace(0.0, 103.0, 501), 0.0, 0.0)
    found = relative_errors(long, straight)
    assert len(found) == 8
    assert found[0].length == pytest.approx(1.0)
    assert found[-1].length == pytest.approx(25.0)
    for r in found:
        assert r.translation_median == pytest.approx(3.0, abs=1e-6)
        assert r.rotation_median == pytest.approx(0.0, abs=1e-9)


def test_stamps_pair_up_whatever_their_order_and_each_reference_pose_once(truth):
    rng = np.random.default_rng(1)
    order = rng.permutation(len(truth.stamps))
    jitter = rng.integers(-10_000_000, 10_000_000, len(order))
    shuffled = Track(truth.stamps[order] + jitter[order], truth.poses[order])
    found = score(shuffled, truth)
    assert len(found.stamps) == len(truth.stamps)
    assert found.ate_rmse < 1e-9


def test_another_clock_is_told(truth):
    with pytest.raises(UserError, match="same recording and clock"):
        score(Track(truth.stamps + 10**12, truth.poses), truth)


def test_poses_on_one_spot_are_told(truth):
    still = np.tile(poses.IDENTITY, (len(truth.stamps), 1))
    with pytest.raises(UserError, match="cannot be aligned"):
        score(Track(truth.stamps, still), truth)


def test_nothing_to_compare_is_told(truth):
    with pytest.raises(UserError, match="no pose"):
        score(Track(np.zeros(0, np.int64), np.zeros((0, 7))), truth)

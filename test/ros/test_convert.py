"""Messages to arrays and back."""

import numpy as np
import pytest
from sensor_msgs.msg import LaserScan

from dsg_ros import poses
from dsg_ros.io.records import MalformedMessage
from dsg_ros.ros import convert


@pytest.mark.parametrize("stamp", [0, 1, 999_999_999, 1_031_745_824_658_000_000])
def test_stamps_survive(stamp):
    assert convert.nanoseconds(convert.time(stamp)) == stamp


def test_a_pose_survives():
    pose = poses.exp(np.array([1.0, -2.0, 3.0, 0.1, 0.2, -0.3]))
    transform = convert.transform("map", "odom", 5, pose)
    np.testing.assert_array_equal(convert.transform_pose(transform), pose)
    assert (transform.header.frame_id, transform.child_frame_id) == ("map", "odom")


def test_covariance_is_about_the_axes_of_the_map():
    """Monte Carlo: perturb the pose in its own tangent, look at the scatter in the map's axes."""
    rng = np.random.default_rng(1)
    pose = poses.exp(np.array([4.0, -1.0, 0.5, 0.4, -0.3, 2.2]))
    spread = np.diag([0.03, 0.002, 0.01, 0.001, 0.004, 0.02])
    mixing = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    covariance = mixing @ spread**2 @ mixing.T
    samples = poses.compose(pose, poses.exp(rng.multivariate_normal(np.zeros(6), covariance, 200_000)))
    translation = samples[:, :3] - pose[:3]
    rotation = poses.rotation_log(poses.multiply(samples[:, 3:], poses.inverse(pose)[3:]))
    scatter = np.cov(np.hstack([translation, rotation]).T)
    told = np.array(convert.pose_with_covariance("map", 0, pose, covariance).pose.covariance).reshape(6, 6)
    scale = np.sqrt(np.outer(np.diag(told), np.diag(told)))
    np.testing.assert_allclose(scatter / scale, told / scale, atol=0.02)
    # The test can tell: without the rotation it fails.
    assert np.abs((scatter - covariance) / scale).max() > 0.2


def test_a_scan_that_makes_no_sense_is_refused():
    scan = LaserScan(angle_min=-1.0, angle_increment=float("nan"), range_max=10.0, ranges=[1.0, 2.0])
    with pytest.raises(MalformedMessage, match="not all finite"):
        convert.scan_points(scan)


def test_a_voxel_cloud_decodes_to_the_voxels():
    means = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
    normals = np.tile(np.array([0, 1, 0], np.float32), (5, 1))
    cloud = convert.voxel_cloud("map", 7, means, normals, np.arange(1, 6, dtype=np.int32))
    np.testing.assert_array_equal(convert.cloud_points(cloud).points, means)
    rows = np.frombuffer(cloud.data, convert.CLOUD_DTYPE)
    np.testing.assert_array_equal(rows["intensity"], np.arange(1, 6))
    np.testing.assert_array_equal(rows["normal_y"], 1.0)

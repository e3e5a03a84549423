"""What ~/graph draws of a pose's covariance and of theta; that it comes over DDS is in test_end_to_end."""

from __future__ import annotations

import numpy as np

from dsg_ros import poses
from dsg_ros.interface import Parameter
from dsg_ros.ros.graph_output import ellipsoid, told


def test_an_ellipsoid_has_the_covariance_it_was_made_of() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        root = rng.normal(size=(6, 6))
        pose, covariance = poses.exp(rng.normal(size=6)), root @ root.T
        lengths, quaternion = ellipsoid(pose, covariance)
        turn = poses.matrix(np.r_[0.0, 0.0, 0.0, quaternion])[:3, :3]
        in_map = poses.matrix(pose)[:3, :3]
        expected = in_map @ covariance[:3, :3] @ in_map.T
        np.testing.assert_allclose(turn @ np.diag(lengths**2) @ turn.T, expected, atol=1e-9)
    flat, _ = ellipsoid(poses.IDENTITY, np.diag([0.04, 0.01, 0.0, 0, 0, 0]))
    np.testing.assert_allclose(np.sort(flat), [0.0, 0.1, 0.2], atol=1e-12)


def test_parameters_in_a_line() -> None:
    assert told(Parameter("odometry.scale", 0.96214, 0.0031, "ratio", "learned")) == "odometry.scale 0.9621 +- 0.0031"
    hidden = Parameter("odometry.turn_per_metre", 0.0, 0.05, "rad/m", "unobservable", "3 m of driving")
    assert told(hidden) == "odometry.turn_per_metre 0 rad/m (unobservable)"

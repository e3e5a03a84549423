"""The learned mounting as a static transform: what it is made of, and when it is sent."""

from __future__ import annotations

import numpy as np
import pytest
from dds import Graph, wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from dsg_ros import poses
from dsg_ros.interface import Parameter
from dsg_ros.processes import free_domain
from dsg_ros.ros import convert
from dsg_ros.ros.extrinsic_tf import ExtrinsicTf, lever_of
from dsg_ros.ros.sensors import Mounting

TOLD = Mounting("base_link", "laser", poses.from_planar(0.2, 0.0, 0.0))


def lever(x: float, y: float, rz: float) -> list[Parameter]:
    values = {"x": x, "y": y, "rz": rz}
    return [Parameter("odometry.scale", 1.01, 0.001, "ratio", "learned")] + [
        Parameter(f"odometry.lever.{name}", value, 0.001, "m", "frozen") for name, value in values.items()
    ]


def test_a_lever_of_the_values_in_use() -> None:
    np.testing.assert_array_equal(lever_of([]), poses.IDENTITY)
    np.testing.assert_allclose(lever_of(lever(0.05, -0.03, 0.035)), poses.from_planar(0.05, -0.03, 0.035), atol=1e-12)


def test_it_is_sent_when_wanted_and_again_when_it_has_moved() -> None:
    graph = Graph(free_domain())
    wanted, mounting = [False], [TOLD]
    try:
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        graph.listen("/tf_static", TFMessage, latched)
        broadcast = ExtrinsicTf(graph.node, lambda: wanted[0], lambda: mounting[0], lambda: 7)
        broadcast.take(lever(0.05, -0.03, 0.035))  # not wanted
        wanted[0] = True
        broadcast.take(lever(0.0, 0.0, 0.0))  # as told
        for x in (0.05, 0.0502, 0.08):
            broadcast.take(lever(x, -0.03, 0.035))
        mounting[0] = Mounting("base_link", "lidar", poses.from_planar(0.0, 0.1, 0.0))
        broadcast.take(lever(0.08, -0.03, 0.035))
        mounting[0] = TOLD
        broadcast.take(lever(0.0, 0.0, 0.0))  # given up again: it is followed back
        messages = wait_until(lambda: len(graph.messages("/tf_static")) >= 4 and graph.messages("/tf_static"), "all")
        assert len(messages) == 4
        for message, x in zip(messages, (0.05, 0.08, 0.08, 0.0), strict=True):
            stamped = message.transforms[0]
            assert (stamped.header.frame_id, stamped.child_frame_id) == ("base_link", "laser_learned")
            moved = poses.from_planar(x, -0.03, 0.035) if x else poses.IDENTITY
            assert convert.transform_pose(stamped) == pytest.approx(poses.compose(moved, TOLD.pose), abs=1e-12)
        assert [t.child_frame_id for t in messages[-1].transforms] == ["laser_learned", "lidar_learned"]
    finally:
        graph.close()

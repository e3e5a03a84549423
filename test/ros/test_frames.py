"""Transforms between frames, on both sides of the seam."""

import numpy as np
import pytest
from tf2_msgs.msg import TFMessage

from dsg_ros import poses
from dsg_ros.ros import convert, frames


@pytest.fixture(params=["own", "tf2_ros"])
def tree(request):
    if request.param == "own":
        own = frames.TransformTree()
        yield own, lambda transform: own.take(TFMessage(transforms=[transform]))
        return
    tf2_ros = pytest.importorskip("tf2_ros", reason="tf2_ros is not on PyPI; this side runs in a ROS installation")
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("frames", context=context)
    theirs = frames.Tf2Frames(node, tf2_ros)
    yield theirs, lambda transform: theirs.buffer.set_transform_static(transform, "test")
    node.destroy_node()
    rclpy.shutdown(context=context)


A = poses.exp(np.array([1.0, 2.0, 3.0, 0.3, -0.2, 0.9]))
B = poses.exp(np.array([-0.5, 0.1, 0.4, 1.0, 0.5, -0.3]))
C = poses.exp(np.array([0.2, 0.0, 0.7, 0.0, 0.0, 1.5]))


def test_chains_in_every_direction(tree):
    found, tell = tree
    tell(convert.transform("base", "mast", 0, A))
    tell(convert.transform("mast", "lidar", 0, B))
    tell(convert.transform("base", "wheel", 0, C))
    np.testing.assert_allclose(found.lookup("base", "lidar"), poses.compose(A, B), atol=1e-12)
    np.testing.assert_allclose(found.lookup("lidar", "base"), poses.inverse(poses.compose(A, B)), atol=1e-12)
    np.testing.assert_allclose(found.lookup("wheel", "mast"), poses.compose(poses.inverse(C), A), atol=1e-12)
    np.testing.assert_allclose(found.lookup("/base", "/mast"), A, atol=1e-12)


def test_what_is_missing_is_named(tree):
    found, tell = tree
    tell(convert.transform("base", "mast", 0, A))
    assert found.lookup("base", "lidar") is None
    assert "lidar" in found.explain("base", "lidar")
    tell(convert.transform("island", "lidar", 0, B))
    assert found.lookup("base", "lidar") is None
    assert "connect" in found.explain("base", "lidar")


def test_transforms_that_are_none_are_left_out():
    own = frames.TransformTree()
    own.take(TFMessage(transforms=[convert.transform("base", "a", 0, np.zeros(7))]))
    own.take(TFMessage(transforms=[convert.transform("base", "b", 0, np.full(7, np.nan))]))
    own.take(TFMessage(transforms=[convert.transform("c", "c", 0, A)]))
    assert own.lookup("base", "a") is own.lookup("base", "b") is own.lookup("base", "c") is None


def test_a_loop_ends():
    own = frames.TransformTree()
    own.take(TFMessage(transforms=[convert.transform("a", "b", 0, A), convert.transform("b", "a", 0, B)]))
    assert own.lookup("elsewhere", "a") is None

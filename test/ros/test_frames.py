"""Transforms between frames, on both sides of the seam."""

import numpy as np
import pytest
from tf2_msgs.msg import TFMessage

from dsg_ros import poses
from dsg_ros.ros import convert, frames
from dsg_ros.ros.inputs import Refused


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


def test_what_is_above_a_frame_is_named_the_nearest_first(tree):
    found, tell = tree
    assert found.above("lidar") == ["lidar"]
    tell(convert.transform("base", "mast", 0, A))
    tell(convert.transform("mast", "lidar", 0, B))
    assert found.above("/lidar") == ["lidar", "mast", "base"]


def test_what_is_missing_is_named(tree):
    found, tell = tree
    tell(convert.transform("base", "mast", 0, A))
    assert found.lookup("base", "lidar") is None
    assert "lidar" in found.explain("base", "lidar")
    tell(convert.transform("island", "lidar", 0, B))
    assert found.lookup("base", "lidar") is None
    assert "connect" in found.explain("base", "lidar")


@pytest.mark.parametrize(
    ("child", "pose"),
    [
        ("a", np.zeros(7)),
        ("a", np.full(7, np.nan)),
        ("a", [0, 0, 0, 1e200, 1e200, 0, 0]),  # its norm is no number
        ("a", [1e8, 0, 0, 0, 0, 0, 1]),
        ("base", A),
        ("", A),
        ("a" * 1000, A),
    ],
)
def test_transforms_that_are_none_are_left_out_and_the_others_used(child, pose):
    own = frames.TransformTree()
    bad = convert.transform("base", child, 0, np.array(pose, float))
    with pytest.raises(Refused, match="1 of 2 transforms are none"):
        own.take(TFMessage(transforms=[bad, convert.transform("base", "good", 0, A)]))
    assert child == "base" or own.lookup("base", child) is None
    np.testing.assert_allclose(own.lookup("base", "good"), A, atol=1e-12)


def test_memory_is_bounded_whatever_is_published():
    own = frames.TransformTree()
    for i in range(frames.MOST_FRAMES):
        own.take(TFMessage(transforms=[convert.transform("base", str(i), 0, A)]))
    with pytest.raises(Refused, match="frames are known already"):
        own.take(TFMessage(transforms=[convert.transform("base", "more", 0, A)]))
    own.take(TFMessage(transforms=[convert.transform("base", "7", 0, B)]))  # those that are known still move
    np.testing.assert_allclose(own.lookup("base", "7"), B, atol=1e-12)


def test_a_loop_ends():
    own = frames.TransformTree()
    own.take(TFMessage(transforms=[convert.transform("a", "b", 0, A), convert.transform("b", "a", 0, B)]))
    assert own.lookup("elsewhere", "a") is None

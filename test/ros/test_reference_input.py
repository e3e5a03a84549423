"""The topic reference: over DDS into the frames, in the frame of the base, and what is refused of it."""

from __future__ import annotations

import math
import time
from pathlib import Path

import fake_pipeline
import numpy as np
import pytest
from dds import Graph, NodeProgram, wait_until
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import LaserScan, NavSatFix
from tf2_msgs.msg import TFMessage

from dsg_ros import config, poses
from dsg_ros.geodesy import LocalFrame
from dsg_ros.interface import ReferencePosition
from dsg_ros.io.records import FixRecord, MalformedMessage
from dsg_ros.processes import free_domain
from dsg_ros.ros import convert
from dsg_ros.ros.frames import TransformTree
from dsg_ros.ros.reference_input import ReferenceInput, reference_pose

START = 1_000_000_000_000


def message(stamp: int, pose: np.ndarray, covariance: np.ndarray | None = None) -> PoseWithCovarianceStamped:
    return convert.pose_with_covariance("mocap", stamp, pose, np.zeros((6, 6)) if covariance is None else covariance)


def test_a_pose_comes_back_with_its_covariance() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    pose, covariance = poses.exp(rng.normal(size=6)), root @ root.T
    found = reference_pose(7, message(7, pose, covariance).pose)
    np.testing.assert_allclose(found.pose, pose, atol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-9)


@pytest.mark.parametrize(("odometry", "cause"), [("measured", "no_odometry"), ("none", "no_scan")])
def test_before_the_base_is_named_what_is_missing_is(odometry: str, cause: str) -> None:
    settings = config.replace(config.Node(), {"input.odometry": odometry})
    said: list[str] = []
    told = ReferenceInput(lambda: settings, TransformTree(), lambda: "", lambda level, text: said.append(text))
    told.account(Odometry(header=convert.header(5, "mocap"), child_frame_id="marker"))
    assert told.account.refused == {cause: 1}
    assert "has told the base's frame yet" in said[-1]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_what_is_no_pose_is_refused(value: float) -> None:
    wrong = message(7, poses.IDENTITY)
    wrong.pose.pose.position.x = value
    with pytest.raises(MalformedMessage):
        reference_pose(7, wrong.pose)
    wrong = message(7, poses.IDENTITY)
    wrong.pose.covariance[0] = math.nan
    with pytest.raises(MalformedMessage, match="covariance"):
        reference_pose(7, wrong.pose)


def test_odometry_of_another_frame_on_the_robot_is_brought_to_the_base() -> None:
    tree, said = TransformTree(), []
    settings = config.replace(config.Node(), {"learning.teacher": "reference", "reference_message": "odometry"})
    told = ReferenceInput(lambda: settings, tree, lambda: "base_link", lambda level, text: said.append(text))
    marker, base = poses.from_planar(3.0, 1.0, 0.5), poses.from_planar(-0.2, 0.0, 0.0)
    odometry = Odometry(header=convert.header(5, "mocap"), child_frame_id="marker")
    odometry.pose.pose = convert.pose(marker)
    told.account(odometry)
    assert told.account.refused["no_transform"] == 1
    assert "marker" in said[-1]
    tree.take(TFMessage(transforms=[convert.transform("marker", "base_link", 0, base)]))
    told.account(odometry)
    frame = told.attached(fake_pipeline.frame(1))
    np.testing.assert_allclose(frame.reference[0].pose, poses.compose(marker, base), atol=1e-12)
    assert not told.attached(fake_pipeline.frame(1)).reference


HERE = LocalFrame([48.0, 11.0, 500.0])
ANTENNA = np.array([0.2, 0.1, 1.0, 0.0, 0.0, 0.0, 1.0])


def fix(stamp: int, east: float, north: float, frame: str = "gps") -> NavSatFix:
    place = HERE.geodetic([east, north, 1.0])
    return convert.fix(FixRecord(stamp, place, np.array([0.02, 0.03, 0.1]), ANTENNA, frame))


def test_fixes_are_metres_from_the_first_one_at_the_place_of_the_antenna() -> None:
    tree, said = TransformTree(), []
    settings = config.replace(config.Node(), {"learning.teacher": "reference", "reference_message": "navsat"})
    told = ReferenceInput(lambda: settings, tree, lambda: "base_link", lambda level, text: said.append(text))
    told.account(fix(5, 0.0, 0.0))
    assert told.account.refused["no_transform"] == 1
    assert "'gps'" in said[-1]
    tree.take(TFMessage(transforms=[convert.transform("base_link", "gps", 0, ANTENNA)]))
    unknown, none, wild, nowhere, nan = (fix(9, 0.0, 0.0) for _ in range(5))
    unknown.position_covariance_type = NavSatFix.COVARIANCE_TYPE_UNKNOWN
    none.status.status, wild.latitude, nan.longitude, nowhere.header.frame_id = -1, 91.0, math.nan, ""
    for message_ in (fix(6, 100.0, 50.0), fix(7, 103.0, 54.0), unknown, none, wild, nowhere, nan):
        told.account(message_)
    one, other, third = told.attached(fake_pipeline.frame(1)).reference
    assert isinstance(one, ReferencePosition)
    assert isinstance(third, ReferencePosition)
    np.testing.assert_allclose(one.antenna, ANTENNA[:3], atol=1e-12)
    np.testing.assert_allclose(other.position - one.position, [3.0, 4.0, 0.0], atol=1e-3)
    np.testing.assert_allclose(one.covariance, np.diag([0.02, 0.03, 0.1]) ** 2)
    assert not third.covariance.any()
    assert told.account.refused == {"no_transform": 1, "no_fix": 1, "malformed": 2, "no_frame": 1}


def test_a_first_fix_that_is_wrong_does_not_hold_the_frame() -> None:
    said: list[str] = []
    settings = config.replace(config.Node(), {"learning.teacher": "reference", "reference_message": "navsat"})
    told = ReferenceInput(lambda: settings, TransformTree(), lambda: "gps", lambda level, text: said.append(text))
    nowhere, elsewhere = fix(1, 0.0, 0.0), fix(2, 300_000.0, 0.0)
    nowhere.latitude = nowhere.longitude = 0.0
    for message_ in (nowhere, elsewhere, *(fix(3 + k, 10.0 * k, 0.0) for k in range(6)), fix(9, 0.0, 20_000.0)):
        told.account(message_)
    wrong, *others = told.attached(fake_pipeline.frame(1)).reference
    assert told.account.refused == {"no_position": 1, "far": 5}
    assert [each.stamp for each in others] == [7, 8]  # the fifth in a row, and no single one
    assert {each.origin for each in others} != {wrong.origin}
    np.testing.assert_allclose(others[1].position - others[0].position, [10.0, 0.0, 0.0], atol=1e-3)
    assert any("300 km" in text and "begins anew" in text for text in said)


@pytest.mark.parametrize("kind", ["pose", "navsat"])
def test_it_reaches_the_pipeline_over_dds(kind: str, tmp_path: Path) -> None:
    graph = Graph(free_domain())
    program = [str(Path(__file__).with_name("fake_node.py"))]
    parameters = {"learning.teacher": "both", "identity_extrinsic": "true", "reference_message": kind}
    try:
        type_ = NavSatFix if kind == "navsat" else PoseWithCovarianceStamped
        reference = graph.node.create_publisher(type_, "/reference", 100)
        odom = graph.node.create_publisher(Odometry, "/odom", 100)
        scans = graph.node.create_publisher(LaserScan, "/scan", 100)
        with NodeProgram(program, tmp_path / "out", graph.context.get_domain_id(), **parameters) as node:
            node.wait(lambda s: s["state"] == "ready", "ready node")
            for publisher in (reference, odom, scans):
                wait_until(publisher.get_subscription_count, "a subscription")
            time.sleep(1.0)
            for k in range(6):
                stamp = START + k * 100_000_000
                drive = Odometry(header=convert.header(stamp, "odom"), child_frame_id="base_link")
                drive.pose.pose.orientation.w = 1.0
                odom.publish(drive)
                time.sleep(0.05)  # what frame is the base's is told by odometry
                good, bad = told(kind, stamp, k)
                reference.publish(good)
                reference.publish(bad)
                time.sleep(0.05)
                scans.publish(scan(stamp))
                time.sleep(0.05)
            node.wait(lambda s: s["scans"]["processed"] >= 5, "scans")
            status = node.wait(lambda s: s["other_inputs"]["reference"]["received"] >= 12, "the reference")
            account = status["other_inputs"]["reference"]
            assert account["refused"] == {"malformed": 6}
            node.wait(lambda s: s["counts"].get("reference_poses", 0) >= 5, "what was told in the pipeline")
    finally:
        graph.close()


def told(kind: str, stamp: int, k: int) -> tuple[object, object]:
    """A message that makes sense, and one that does not."""
    if kind == "navsat":
        good, bad = fix(stamp, 0.1 * k, 0.0, "base_link"), fix(stamp, 0.0, 0.0, "base_link")
        bad.latitude = math.nan
        return good, bad
    pose, none = message(stamp, poses.from_planar(0.1 * k, 0.0, 0.0)), message(stamp, poses.IDENTITY)
    none.pose.pose.orientation.w = 0.0
    return pose, none


def scan(stamp: int) -> LaserScan:
    made = LaserScan(header=convert.header(stamp, "base_link"))
    made.angle_min, made.angle_max, made.angle_increment = -1.0, 1.0, 0.1
    made.range_min, made.range_max, made.ranges = 0.1, 10.0, [2.0] * 21
    return made

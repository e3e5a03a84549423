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
from sensor_msgs.msg import LaserScan
from tf2_msgs.msg import TFMessage

from dsg_ros import config, poses
from dsg_ros.io.records import MalformedMessage
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


def test_it_reaches_the_pipeline_over_dds(tmp_path: Path) -> None:
    graph = Graph(free_domain())
    program = [str(Path(__file__).with_name("fake_node.py"))]
    parameters = {"learning.teacher": "both", "identity_extrinsic": "true"}
    try:
        reference = graph.node.create_publisher(PoseWithCovarianceStamped, "/reference", 100)
        odom = graph.node.create_publisher(Odometry, "/odom", 100)
        scans = graph.node.create_publisher(LaserScan, "/scan", 100)
        with NodeProgram(program, tmp_path / "out", graph.context.get_domain_id(), **parameters) as node:
            node.wait(lambda s: s["state"] == "ready", "ready node")
            for publisher in (reference, odom, scans):
                wait_until(publisher.get_subscription_count, "a subscription")
            time.sleep(1.0)
            for k in range(6):
                stamp = START + k * 100_000_000
                reference.publish(message(stamp, poses.from_planar(0.1 * k, 0.0, 0.0)))
                bad = message(stamp, poses.IDENTITY)
                bad.pose.pose.orientation.w = 0.0
                reference.publish(bad)
                time.sleep(0.05)
                drive = Odometry(header=convert.header(stamp, "odom"), child_frame_id="base_link")
                drive.pose.pose.orientation.w = 1.0
                odom.publish(drive)
                scans.publish(scan(stamp))
                time.sleep(0.05)
            node.wait(lambda s: s["scans"]["processed"] >= 5, "scans")
            status = node.wait(lambda s: s["other_inputs"]["reference"]["received"] >= 12, "the reference")
            account = status["other_inputs"]["reference"]
            assert account["refused"] == {"malformed": 6}
            node.wait(lambda s: s["counts"].get("reference_poses", 0) >= 5, "poses in the pipeline")
    finally:
        graph.close()


def scan(stamp: int) -> LaserScan:
    made = LaserScan(header=convert.header(stamp, "base_link"))
    made.angle_min, made.angle_max, made.angle_increment = -1.0, 1.0, 0.1
    made.range_min, made.range_max, made.ranges = 0.1, 10.0, [2.0] * 21
    return made

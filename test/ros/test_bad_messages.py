"""Messages that make no sense: each is named in the log, counted in /diagnostics, and the node goes on."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest
from dds import wait_until
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointCloud2, PointField
from tf2_msgs.msg import TFMessage

from dsg_ros import poses
from dsg_ros.ros import convert

START = 1_000_000_000_000
STATIC = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope="module")
def robot(graph, node):
    return Robot(graph, node)


class Robot:
    """Publishes odometry and clouds, one by one, and waits a moment after each."""

    def __init__(self, graph, node) -> None:
        self.node = node
        self.odom = graph.node.create_publisher(Odometry, "/odom", 100)
        self.points = graph.node.create_publisher(PointCloud2, "/points", 100)
        static = graph.node.create_publisher(TFMessage, "/tf_static", STATIC)
        static.publish(TFMessage(transforms=[convert.transform("base_link", "lidar", 0, poses.from_planar(0.2, 0, 0))]))
        graph.listen("/diagnostics", DiagnosticArray, 10)
        self.graph = graph
        wait_until(lambda: self.odom.get_subscription_count() and self.points.get_subscription_count(), "subscriptions")
        node.wait(lambda s: s["inputs"]["odom"]["publishers"] and s["inputs"]["points"]["publishers"], "discovery")
        time.sleep(1.0)  # each side has seen the other; the connection itself takes a moment more
        self.stamp = START

    def later(self, seconds: float = 0.1) -> int:
        self.stamp += int(seconds * 1e9)
        return self.stamp

    def send(self, publisher, message) -> None:
        publisher.publish(message)
        time.sleep(0.05)  # two topics have no order between them: let this one arrive first

    def drive(self, stamp: int, pose=(1.0, 0, 0, 0, 0, 0, 1), frame: str = "odom") -> None:
        message = Odometry(header=convert.header(stamp, frame), child_frame_id="base_link")
        message.pose.pose = convert.pose(np.array(pose, float))
        self.send(self.odom, message)

    def scan(self, cloud: PointCloud2, stamp: int) -> None:
        cloud.header = convert.header(stamp, cloud.header.frame_id or "lidar")
        self.send(self.points, cloud)

    def scan_and_drive(self, cloud: PointCloud2) -> None:
        stamp = self.later()
        self.scan(cloud, stamp)
        self.drive(stamp)

    def expect(self, subject: str, key: str, count: int = 1) -> None:
        """The counter is in status.json and in /diagnostics."""
        self.node.wait(lambda s: dig(s[subject], key) >= count, f"{subject} {key}")
        name = f"/hero: {subject}"

        def told():
            for message in self.graph.messages("/diagnostics"):
                values = {v.key: v.value for s in message.status if s.name == name for v in s.values}
                if float(values.get(key, 0)) >= count:
                    return True
            return False

        wait_until(told, f"{key} in /diagnostics")


def dig(values, key):
    for part in key.split("."):
        values = values.get(part, {}) if isinstance(values, dict) else {}
    return values or 0


def cloud(points, names="xyz", datatype=PointField.FLOAT32, order="<") -> PointCloud2:
    points = np.asarray(points, float).reshape(-1, len(names))
    kind = f"{order}f{4 if datatype == PointField.FLOAT32 else 8}"
    size = np.dtype(kind).itemsize
    message = PointCloud2(height=1, width=len(points), is_bigendian=order == ">")
    message.fields = [PointField(name=n, offset=size * i, datatype=datatype, count=1) for i, n in enumerate(names)]
    message.point_step = size * len(names)
    message.row_step = message.point_step * len(points)
    message.data = points.astype(kind).tobytes()
    return message


GOOD = [(1.0, 0, 0), (0, 2.0, 0), (0, 0, 3.0)]


def used(robot) -> int:
    return robot.node.status()["scans"]["processed"]


def test_points_before_the_first_odometry(robot):
    robot.scan(cloud(GOOD), robot.later())
    robot.drive(robot.later())
    robot.expect("scans", "dropped.scans_without_odometry")


def test_points_that_are_not_finite_are_left_out(robot):
    before = used(robot)
    robot.scan_and_drive(cloud([*GOOD, (np.nan, 1, 1), (1, np.inf, 1)]))
    robot.expect("points", "points_not_finite", 2)
    status = robot.node.wait(lambda s: s["scans"]["processed"] > before, "the rest of the cloud")
    assert status["counts"]["points"] == 3


def test_an_empty_cloud_is_a_scan_without_points(robot):
    before = used(robot)
    robot.scan_and_drive(cloud(np.zeros((0, 3))))
    robot.expect("scans", "without_points")
    status = robot.node.wait(lambda s: s["scans"]["processed"] > before, "the empty cloud")
    assert status["counts"]["points"] == 0
    assert "it has no point: nothing is seen in it" in robot.node.text


def test_a_cloud_without_coordinates(robot):
    before = dig(robot.node.status(), "scans.dropped.points_malformed")
    robot.scan_and_drive(cloud(GOOD, "abc"))
    robot.expect("scans", "dropped.points_malformed", before + 1)
    assert "/points at" in robot.node.text


def test_a_cloud_of_contradictory_size(robot):
    before = dig(robot.node.status(), "scans.dropped.points_malformed")
    wrong = cloud(GOOD)
    wrong.point_step = 16
    robot.scan_and_drive(wrong)
    robot.expect("scans", "dropped.points_malformed", before + 1)


@pytest.mark.parametrize("datatype", [PointField.FLOAT32, PointField.FLOAT64])
def test_a_big_endian_cloud_is_read(robot, datatype):
    before = used(robot)
    robot.scan_and_drive(cloud(GOOD, datatype=datatype, order=">"))
    status = robot.node.wait(lambda s: s["scans"]["processed"] > before, "a big-endian cloud")
    assert status["counts"]["points"] == 3


@pytest.mark.parametrize(
    ("pose", "cause"),
    [
        ((np.nan, 0, 0, 0, 0, 0, 1), "odometry_not_finite"),
        ((0, 0, np.inf, 0, 0, 0, 1), "odometry_not_finite"),
        ((0, 0, 0, 0, 0, 0, 0), "odometry_zero_quaternion"),
        ((0, 0, 0, 0, 0, 0, 1e200), "odometry_huge_quaternion"),
    ],
)
def test_odometry_that_is_no_pose(robot, pose, cause):
    before = robot.node.status()["odometry"]["refused"].get(cause, 0)
    robot.drive(robot.later(), pose)
    robot.expect("odometry", f"refused.{cause}", before + 1)
    assert cause in robot.node.text


def test_odometry_stamps_that_repeat_or_run_backwards(robot):
    now = robot.later()
    robot.drive(now)
    robot.drive(now)
    robot.expect("odometry", "refused.odometry_repeated_stamp")
    robot.drive(now - 50_000_000)
    robot.expect("odometry", "refused.odometry_backwards")


def test_a_frame_that_changes(robot):
    robot.drive(robot.later(), frame="other_odom")
    robot.drive(robot.later())
    robot.expect("inputs", "odom.frame_changes", 2)
    assert "frame_id changed from 'odom' to 'other_odom'" in robot.node.text


def test_a_sensor_without_transform_waits_and_says_what_is_missing(robot):
    strange = cloud(GOOD)
    strange.header.frame_id = "unknown_lidar"
    stamp = robot.later()
    before = used(robot)
    robot.scan(strange, stamp)
    robot.drive(stamp)
    wait_until(lambda: "waiting for the transform from 'base_link' to 'unknown_lidar'" in robot.node.text, "a message")
    assert robot.node.wait(lambda s: s["scans"]["waiting"] == 1, "a waiting scan")["scans"]["processed"] == before
    late = robot.graph.node.create_publisher(TFMessage, "/tf", 10)
    wait_until(late.get_subscription_count, "subscription of /tf")
    time.sleep(1.0)  # as above: a best-effort message that is sent too early is lost
    late.publish(TFMessage(transforms=[moved("unknown_lidar")]))
    robot.drive(robot.later())
    robot.node.wait(lambda s: s["scans"]["processed"] == before + 1, "the scan that waited")


def moved(frame: str) -> TransformStamped:
    return convert.transform("base_link", frame, START, poses.from_planar(0.0, 0.1, 0.3))


def test_a_clock_that_jumps_back_begins_a_new_map(robot):
    robot.stamp = START - int(3600e9)
    robot.drive(robot.stamp)
    robot.node.wait(lambda s: s["clock_jumps"] == 1, "a counted jump")
    robot.scan_and_drive(cloud(GOOD))
    robot.node.wait(lambda s: s["counts"].get("scans") == 1, "a new map")


def test_everything_is_accounted_for_and_the_node_is_well(robot):
    robot.scan_and_drive(cloud(GOOD))
    time.sleep(1.5)
    status = robot.node.wait(lambda s: s["scans"]["waiting"] == 0, "an empty queue")
    scans = status["scans"]
    assert scans["received"] == scans["processed"] + sum(scans["dropped"].values())
    assert status["worker"] == {"state": "ready", "restarts": 0}
    assert "Traceback" not in robot.node.text
    levels = [s.level for m in robot.graph.messages("/diagnostics")[-1:] for s in m.status]
    assert struct.pack("B", 2) not in levels

"""Quality of service: what the standard overrides do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from dds import Graph, NodeProgram, wait_until
from geometry_msgs.msg import PoseWithCovarianceStamped
from map_msgs.msg import OccupancyGridUpdate
from nav_msgs.msg import Path as PathMessage
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import LaserScan
from standing import Robot

from dsg_ros.processes import free_domain

BEST_EFFORT, TRANSIENT_LOCAL = ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.TRANSIENT_LOCAL
OVERRIDES = {
    "qos_overrides./scan.subscription.depth": 700,
    "qos_overrides./scan.subscription.reliability": "reliable",
    "qos_overrides./odom.subscription.reliability": "reliable",
    "qos_overrides./hero/pose.publisher.reliability": "best_effort",
    "qos_overrides./hero/path.publisher.depth": 3,
    "qos_overrides./tf.publisher.durability": "transient_local",
    "qos_overrides./scans.subscription.depth": 9,
}


@pytest.fixture(scope="module")
def robot(fake_node: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    folder, domain = tmp_path_factory.mktemp("qos"), free_domain()
    graph = Graph(domain)
    with NodeProgram(fake_node, folder / "out", domain, **OVERRIDES) as node:
        node.wait(lambda s: s["state"] == "ready", "active node")
        robot = Robot(graph, node)
        robot.wait()
        yield robot
        assert node.interrupt() == 0
        assert "Traceback" not in node.text
    graph.close()


def test_overrides_are_what_the_graph_sees(robot: Robot) -> None:
    node = robot.graph.node
    for topic in ("/scan", "/odom"):
        (found,) = node.get_subscriptions_info_by_topic(topic)
        assert found.qos_profile.reliability is ReliabilityPolicy.RELIABLE, topic
    (pose,) = node.get_publishers_info_by_topic("/hero/pose")
    assert pose.qos_profile.reliability is ReliabilityPolicy.BEST_EFFORT
    (tf,) = node.get_publishers_info_by_topic("/tf")
    assert tf.qos_profile.durability is DurabilityPolicy.TRANSIENT_LOCAL
    (cloud,) = node.get_publishers_info_by_topic("/hero/voxel_cloud")  # one that is not overridden, of one profile
    assert cloud.qos_profile.durability is DurabilityPolicy.TRANSIENT_LOCAL


def test_a_deeper_history_is_what_a_late_listener_gets(robot: Robot) -> None:
    for number in range(1, 6):
        robot.scan()
        robot.node.wait(lambda s, n=number: s["scans"]["processed"] == n, "every scan")
        time.sleep(0.7)  # paths go out twice a second
    late = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    robot.graph.listen("/hero/path", PathMessage, late)

    def lengths() -> list[int]:
        return [len(path.poses) for path in robot.graph.messages("/hero/path")]

    wait_until(lambda: lengths()[:3] == [3, 4, 5], "three paths, the oldest first", details=lambda: str(lengths()))


def test_overrides_are_parameters_that_cannot_change(robot: Robot) -> None:
    names = [name for name in OVERRIDES if "/scans" not in name]
    found = robot.graph.call("/hero/get_parameters", GetParameters, GetParameters.Request(names=names)).values
    assert [value.string_value or value.integer_value for value in found] == [OVERRIDES[name] for name in names]
    wishes = [Parameter(name, value=OVERRIDES[name]).to_parameter_msg() for name in names]
    results = robot.graph.call("/hero/set_parameters", SetParameters, SetParameters.Request(parameters=wishes)).results
    assert not any(result.successful for result in results)
    assert all("read-only" in result.reason for result in results)


def test_an_override_of_no_topic_is_told(robot: Robot) -> None:
    assert "qos_overrides./scans.subscription.depth has no effect" in robot.node.text
    assert robot.node.text.count("has no effect") == 1


def test_what_does_not_fit_is_told_with_both_sides_settings(robot: Robot) -> None:
    """A publisher that promises less than is asked for, and listeners that ask for more than is offered."""
    graph, text = robot.graph, lambda: robot.node.text
    scans = graph.node.create_publisher(LaserScan, "/scan", QoSProfile(depth=1, reliability=BEST_EFFORT))
    wait_until(lambda: "/scan: incompatible" in text(), "a word about the publisher", details=text)
    assert "/scan: incompatible reliability: this node asks for reliable, /witness offers best_effort; " in text()
    assert "Set qos_overrides./scan.subscription.reliability to best_effort, or have the publisher offer " in text()
    graph.listen("/hero/pose", PoseWithCovarianceStamped, QoSProfile(depth=1))
    wait_until(lambda: "/hero/pose: incompatible" in text(), "a word about the listener", details=text)
    assert "/hero/pose: incompatible reliability: this node offers best_effort, /witness asks for reliable; " in text()
    assert "Set qos_overrides./hero/pose.publisher.reliability to reliable, or have the subscription ask " in text()
    graph.listen("/map_updates", OccupancyGridUpdate, QoSProfile(depth=1, durability=TRANSIENT_LOCAL))
    wait_until(lambda: "/map_updates: incompatible" in text(), "a word about the listener", details=text)
    assert "this node offers volatile, /witness asks for transient_local; " in text()
    graph.node.destroy_publisher(scans)


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("/scan.subscription.depth", "0", "from 1 to 10000"),
        ("/scan.subscription.depth", "many", "from 1 to 10000"),
        ("/scan.subscription.reliability", "sometimes", "reliable, best_effort"),
        ("/scan.subscription.history", "keep_all", "keep_last"),
        ("/scan.subscription.deadline", "5", "expected one of the policies"),
        ("/scan.listener.depth", "5", "expected qos_overrides./TOPIC"),
    ],
)
def test_overrides_that_make_no_sense_are_refused(name: str, value: str, word: str) -> None:
    words = [sys.executable, "-m", "dsg_ros", "node", "--ros-args", "-p", f"qos_overrides.{name}:={value}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert f"qos_overrides.{name}: " in done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stderr

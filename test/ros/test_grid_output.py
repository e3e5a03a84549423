"""`map` over real DDS: for whom it is made, what it says, and that a listener that comes late gets it."""

from __future__ import annotations

import time

import numpy as np
import pytest
from dds import Graph, NodeProgram, wait_until
from map_msgs.msg import OccupancyGridUpdate
from nav_msgs.msg import OccupancyGrid, Odometry
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import LaserScan
from std_srvs.srv import Trigger

from dsg_ros import poses
from dsg_ros.processes import free_domain
from dsg_ros.ros import convert

SECOND = 1_000_000_000
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Robot:
    """Drives a node with the small pipeline, whose grid has a tile of 4 x 4 cells of 0.5 m a scan, side by side."""

    def __init__(self, graph: Graph, node: NodeProgram) -> None:
        self.node, self.count = node, 0
        self.odom = graph.node.create_publisher(Odometry, "/odom", 100)
        self.scans = graph.node.create_publisher(LaserScan, "/scan", 100)
        wait_until(lambda: self.odom.get_subscription_count() and self.scans.get_subscription_count(), "subscriptions")
        time.sleep(1.0)  # each side has seen the other; the connection itself takes a moment more

    def map_tiles(self, count: int) -> None:
        """``count`` scans more, and wait until they are processed."""
        for _ in range(count):
            self.count += 1
            header = convert.header((1000 + self.count) * SECOND, "odom")
            odometry = Odometry(header=header, child_frame_id="base_link")
            odometry.pose.pose = convert.pose(poses.from_planar(0.1 * self.count, 0, 0))
            self.odom.publish(odometry)
            header = convert.header((1000 + self.count) * SECOND, "base_link")
            scan = LaserScan(header=header, angle_increment=0.1, range_min=0.1, range_max=50.0)
            scan.ranges = np.full(10, 2.0, np.float32)
            self.scans.publish(scan)
        self.node.wait(lambda s: s["scans"]["processed"] >= self.count, "processed scans")


@pytest.fixture(scope="module")
def robot(graph, node) -> Robot:
    return Robot(graph, node)


def tiles(message: OccupancyGrid) -> int:
    """Tiles that are known in a map of the small pipeline; what is told of them is right."""
    info = message.info
    cells = np.array(message.data, np.int8).reshape(info.height, info.width)
    assert (info.height, info.width % 4) == (4, 0)
    assert (info.origin.position.x, info.origin.position.y, info.origin.orientation.w) == (0.0, 0.0, 1.0)
    known = int(np.count_nonzero(cells != -1)) // 16
    for tile in range(known):
        expected = np.zeros((4, 4), np.int8)
        expected[tile // 4 % 4, tile % 4] = 100
        np.testing.assert_array_equal(cells[:, 4 * tile : 4 * tile + 4], expected)
    assert np.all(cells[:, 4 * known :] == -1)
    return known


def latest(graph: Graph) -> int:
    """Tiles in the latest map heard."""
    maps = graph.messages("/map")
    return tiles(maps[-1]) if maps else 0


def test_a_listener_that_comes_late_gets_the_map(graph, node, robot, domain):
    """The robot has mapped and stands still, and nobody listened."""
    robot.map_tiles(3)
    (told,) = graph.node.get_publishers_info_by_topic("/map")
    assert told.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    assert told.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    graph.listen("/map", OccupancyGrid, LATCHED)
    wait_until(lambda: latest(graph) == 3, "the map", details=lambda: node.text)
    message = graph.messages("/map")[-1]
    assert message.header.frame_id == "map"
    assert message.info.resolution == 0.5
    now = time.time_ns()
    assert now - 60 * SECOND < convert.nanoseconds(message.info.map_load_time) <= now
    late = Graph(domain)
    try:
        late.listen("/map", OccupancyGrid, LATCHED)
        wait_until(lambda: latest(late) == 3, "the map, for one more", details=lambda: node.text)
    finally:
        late.close()


def test_who_listens_to_the_map_alone_gets_it_whole_when_it_changed(graph, node, robot):
    wait_until(lambda: latest(graph) == 3, "the map")
    time.sleep(2.5)
    heard = len(graph.messages("/map"))
    time.sleep(2.5)
    assert len(graph.messages("/map")) == heard, "nothing changed"
    robot.map_tiles(2)
    wait_until(lambda: latest(graph) == 5, "the map with two tiles more", details=lambda: node.text)
    assert graph.messages("/map")[-1].info.width == 4 * (5 + 4), "with room for what comes"


def test_with_updates_only_what_changed_is_sent(graph, node, robot):
    wait_until(lambda: latest(graph) == 5, "the map")
    graph.listen("/map_updates", OccupancyGridUpdate, 10)
    wait_until(lambda: graph.node.count_publishers("/map_updates"), "the publisher of updates")
    time.sleep(2.5)
    whole = len(graph.messages("/map"))
    robot.map_tiles(1)
    (part,) = wait_until(lambda: graph.messages("/map_updates"), "an update", details=lambda: node.text)
    assert (part.x, part.y, part.width, part.height, part.header.frame_id) == (20, 0, 4, 4, "map")
    cells = np.array(part.data).reshape(4, 4)
    assert cells[5 // 4, 5 % 4] == 100
    assert np.count_nonzero(cells) == 1
    assert len(graph.messages("/map")) == whole


def test_a_new_map_replaces_the_old_one(graph, node, robot):
    """The last of the module: the old map is gone."""
    assert graph.call("/hero/reset", Trigger, Trigger.Request()).success
    before = len(graph.messages("/map"))
    robot.map_tiles(1)
    wait_until(lambda: len(graph.messages("/map")) > before and latest(graph) == 1, "the new map")
    assert "Traceback" not in node.text


def test_without_listeners_the_worker_is_not_asked(tmp_path, fake_node):
    """A pipeline that fails when asked for its grid is not asked; then somebody listens, and it is."""
    domain = free_domain()
    graph = Graph(domain)
    reliable = {f"qos.{topic}.reliability": "reliable" for topic in ("odom", "scan")}
    program = [fake_node[0].replace("fake_node.py", "gridless_node.py")]
    with NodeProgram(program, tmp_path / "out", domain, **reliable) as node:
        node.wait(lambda s: s["state"] == "ready", "active node")
        robot = Robot(graph, node)
        robot.map_tiles(2)
        time.sleep(2.0)
        assert "no grid today" not in node.text
        graph.listen("/map", OccupancyGrid, LATCHED)
        wait_until(lambda: "no grid today" in node.text, "a question", details=lambda: node.text)
        robot.map_tiles(1)
        assert node.status()["scans"]["processed"] == 3, "the rest goes on"
    graph.close()

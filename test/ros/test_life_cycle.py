"""What is published again, and what is forgotten, when the node goes through its states."""

from __future__ import annotations

import time

import numpy as np
import standing
from dds import Graph, NodeProgram, wait_until
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import LaserScan
from tf2_msgs.msg import TFMessage

from dsg_ros import poses
from dsg_ros.processes import free_domain
from dsg_ros.ros import convert

SECOND = 1_000_000_000
START = 1000 * SECOND
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Robot:
    """A node with the small pipeline, moved through its states and driven by hand."""

    def __init__(self, graph: Graph, node: NodeProgram) -> None:
        self.graph, self.node = graph, node
        self.odom = graph.node.create_publisher(Odometry, "/odom", 100)
        self.scans = graph.node.create_publisher(LaserScan, "/scan", 100)
        graph.listen("/tf", TFMessage, 1000)
        graph.listen("/hero/path", PathMessage, LATCHED)

    def change(self, *transitions: int) -> None:
        for transition in transitions:
            request = ChangeState.Request(transition=Transition(id=transition))
            assert self.graph.call("/hero/change_state", ChangeState, request).success, self.node.text

    def configure_and_activate(self) -> None:
        self.change(Transition.TRANSITION_CONFIGURE)
        self.node.wait(lambda s: s["state"] == "ready", "ready worker")
        self.change(Transition.TRANSITION_ACTIVATE)

    def drive(self, stamp: int) -> None:
        message = Odometry(header=convert.header(stamp, "odom"), child_frame_id="base_link")
        message.pose.pose = convert.pose(poses.from_planar(1.0, 0, 0))
        self.odom.publish(message)

    def map_something(self) -> None:
        """One scan at `START` with odometry, sent when the connection stands."""
        wait_until(lambda: self.odom.get_subscription_count() and self.scans.get_subscription_count(), "subscriptions")
        time.sleep(1.0)  # each side has seen the other; the connection itself takes a moment more
        self.drive(START)
        scan = LaserScan(header=convert.header(START, "base_link"), angle_increment=0.1, range_min=0.1, range_max=50.0)
        scan.ranges = np.full(10, 2.0, np.float32)
        self.scans.publish(scan)
        wait_until(self.paths, "a path", details=lambda: self.node.text)

    def paths(self) -> int:
        """Paths with a pose heard so far."""
        return sum(bool(message.poses) for message in self.graph.messages("/hero/path"))


def test_a_node_that_is_to_stop_when_the_clock_jumps_waits_for_a_word(tmp_path, fake_node):
    domain = free_domain()
    graph = Graph(domain)
    parameters = {**standing.RELIABLE, "input.on_clock_jump": "stop"}
    with NodeProgram(fake_node, tmp_path / "out", domain, **parameters) as node:
        node.wait(lambda s: s["state"] == "ready", "active node")
        robot = standing.Robot(graph, node)
        robot.wait()
        scans = processed = 0
        for word, kept in (("resume", True), ("reset", False)):
            robot.scan()
            processed += 1
            node.wait(lambda s, n=processed: s["scans"]["processed"] == n, "a scan in the map")
            scans = node.status()["counts"]["scans"]
            robot.scan(robot.stamp - 100 * SECOND)
            node.wait(lambda s: s["state"] == "clock jumped", "the state")
            wait_until(lambda: "no scan is used until" in robot.told("state")[-1], "the word of diagnostics")
            robot.scan()
            status = node.wait(lambda s, n=robot.sent: s["scans"]["received"] == n, "scans that come")
            assert status["scans"]["processed"] == processed
            assert status["scans"]["processed"] + sum(status["scans"]["dropped"].values()) == robot.sent
            assert robot.ask(word)[0].success
            robot.scan()
            processed += 1
            status = node.wait(lambda s, n=processed: s["scans"]["processed"] == n, "a scan after the word")
            assert status["state"] == "running"
            assert status["counts"]["scans"] == (scans + 1 if kept else 1)
        assert node.interrupt() == 0
        assert "Traceback" not in node.text
    graph.close()


def test_an_active_node_shows_its_map_again_and_a_new_one_forgets_it(tmp_path, fake_node):
    domain = free_domain()
    graph = Graph(domain)
    parameters = {"qos.odom.reliability": "reliable", "qos.scan.reliability": "reliable", "autostart": "false"}
    jump = {"input.on_clock_jump": "continue"}
    with NodeProgram(fake_node, tmp_path / "out", domain, **parameters, **jump) as node:
        robot = Robot(graph, node)
        robot.configure_and_activate()
        robot.map_something()
        wait_until(lambda: graph.messages("/tf"), "map->odom")

        heard = robot.paths()
        robot.drive(START - 100 * SECOND)
        wait_until(lambda: robot.paths() > heard, "the path after the clock jumped", details=lambda: node.text)

        robot.change(Transition.TRANSITION_DEACTIVATE)
        heard = robot.paths()
        robot.change(Transition.TRANSITION_ACTIVATE)
        wait_until(lambda: robot.paths() > heard, "the path of a node that is active again", details=lambda: node.text)

        robot.change(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
        published = node.status()["map_to_odom"]["published"]
        (tmp_path / "out" / "status.json").unlink()
        robot.configure_and_activate()
        node.wait(lambda s: s["state"] == "ready" and s["inputs"]["odom"]["publishers"], "an active node")
        heard = len(graph.messages("/tf"))
        time.sleep(1.0)
        assert len(graph.messages("/tf")) == heard
        assert node.wait(lambda s: s, "a status")["map_to_odom"]["published"] == published
        assert "Traceback" not in node.text
        graph.close()
        assert node.interrupt() == 0

"""A robot that stands before a wall and the node that hears it, over DDS."""

from __future__ import annotations

import time

import numpy as np
from dds import Graph, NodeProgram, wait_until
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import GetParameters
from sensor_msgs.msg import LaserScan
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from dsg_ros import poses
from dsg_ros.ros import convert

SECOND = 1_000_000_000
RELIABLE = {"qos.odom.reliability": "reliable", "qos.scan.reliability": "reliable", "qos.scan.depth": 1000}


class Robot:
    """Stands before a wall; each `scan` is a tenth of a second later than the one before."""

    def __init__(self, graph: Graph, node: NodeProgram, namespace: str = "", laser: str = "base_link") -> None:
        self.graph, self.node, self.name, self.laser = graph, node, f"{namespace}/hero", laser
        self.odom = graph.node.create_publisher(Odometry, f"{namespace}/odom", 200)
        self.scans = graph.node.create_publisher(LaserScan, f"{namespace}/scan", 1000)
        for topic, kind, depth in (("/tf", TFMessage, 1000), ("/diagnostics", DiagnosticArray, 100)):
            if topic not in graph.heard:  # another robot's, too
                graph.listen(topic, kind, depth)
        self.stamp, self.sent = 1000 * SECOND, 0

    def wait(self) -> None:
        wait_until(lambda: self.odom.get_subscription_count() and self.scans.get_subscription_count(), "subscriptions")
        time.sleep(1.0)  # each side has seen the other; the connection itself takes a moment more

    def scan(self, stamp: int | None = None) -> None:
        self.stamp = self.stamp + SECOND // 10 if stamp is None else stamp
        odometry = Odometry(header=convert.header(self.stamp, "odom"), child_frame_id="base_link")
        odometry.pose.pose = convert.pose(poses.from_planar(self.stamp / 1e9 - 1000.0, 0, 0))
        self.odom.publish(odometry)
        scan = LaserScan(header=convert.header(self.stamp, self.laser), angle_increment=0.1)
        scan.range_min, scan.range_max, scan.ranges = 0.1, 50.0, np.full(10, 2.0, np.float32)
        self.scans.publish(scan)
        self.sent += 1

    def ask(self, service: str) -> tuple[Trigger.Response, float]:
        """The answer, and how long it took [s]."""
        began = time.monotonic()
        return self.graph.call(f"{self.name}/{service}", Trigger, Trigger.Request()), time.monotonic() - began

    def change(self, transition: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert self.graph.call(f"{self.name}/change_state", ChangeState, request).success, self.node.text

    def told(self, subject: str) -> list[str]:
        """What diagnostics said of it, oldest first."""
        messages = self.graph.messages("/diagnostics")
        return [s.message for m in messages for s in m.status if s.name == f"{self.name}: {subject}"]

    def learning(self) -> bool:
        """The parameter's value."""
        found = self.graph.call(
            f"{self.name}/get_parameters", GetParameters, GetParameters.Request(names=["learning.enabled"])
        )
        return bool(found.values[0].bool_value)

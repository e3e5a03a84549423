"""Somebody else who publishes map->odom, or another parent of odom: named once, and in /diagnostics while it lasts."""

from __future__ import annotations

import time
from pathlib import Path

from callbacks import Robot as Callbacks
from dds import Graph, NodeProgram, wait_until
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from standing import RELIABLE, Robot
from tf2_msgs.msg import TFMessage

from dsg_ros import poses
from dsg_ros.processes import free_domain
from dsg_ros.ros import convert, tf_others

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def transform(parent: str, child: str, stamp: int = 0) -> TransformStamped:
    return convert.transform(parent, child, stamp, poses.IDENTITY)


def test_another_map_to_odom_and_another_parent_are_told(tmp_path: Path, fake_node: list[str]) -> None:
    domain = free_domain()
    graph = Graph(domain)
    with NodeProgram(fake_node, tmp_path / "out", domain, **RELIABLE) as node:
        node.wait(lambda s: s["state"] == "ready", "active node")
        robot = Robot(graph, node)
        robot.wait()
        robot.scan()
        wait_until(lambda: len(graph.messages("/tf")) > 100, "map->odom of the node")
        assert robot.told("map_to_odom")[-1] == ""
        assert node.status()["map_to_odom"]["other_parent"] == ""

        localiser = graph.node.create_publisher(TFMessage, "/tf", 100)
        for number in range(60):
            localiser.publish(TFMessage(transforms=[transform("map", "odom", number)]))
            time.sleep(0.05)
        wait_until(lambda: "somebody else also publishes" in robot.told("map_to_odom")[-1], "the word of diagnostics")
        assert level(graph, "map_to_odom") == DiagnosticStatus.WARN
        assert node.text.count("somebody else also publishes 'map' -> 'odom'") == 1
        assert "Other publishers on /tf: /witness" in node.text

        latched = graph.node.create_publisher(TFMessage, "/tf_static", LATCHED)
        latched.publish(TFMessage(transforms=[transform("earth", "odom")]))
        status = node.wait(lambda s: s["map_to_odom"]["other_parent"] == "earth", "another parent")
        assert "/tf has 'earth' above 'odom', which 'map' is to be the parent of" in status["map_to_odom"]["conflict"]
        wait_until(lambda: "'earth' above 'odom'" in node.text, "a word in the log")
        assert node.interrupt() == 0
        assert "Traceback" not in node.text
    graph.close()


def level(graph: Graph, subject: str) -> bytes:
    message: DiagnosticArray = graph.messages("/diagnostics")[-1]
    return next(bytes(s.level) for s in message.status if s.name == f"/hero: {subject}")


def test_what_was_there_before_the_odometry_is_found_and_what_has_ended_is_not(monkeypatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    robot = Callbacks()
    robot.tree.take_static(TFMessage(transforms=[transform("map", "odom")]))
    robot.sensors.complain()
    assert robot.sensors.above.conflict == ""  # of which frame is to be told by the odometry
    robot.drive(convert.nanoseconds(transform("", "", 10**12).header.stamp))
    robot.sensors.complain()
    assert "somebody else" in robot.sensors.above.conflict
    now[0] += 1e6
    robot.sensors.complain()
    assert "somebody else" in robot.sensors.above.conflict  # a static transform stays

    others = tf_others.Others()
    others.sending("map", "odom", 5)
    others.heard(transform("/map", "odom", 5))
    assert others.parent("odom") == ""
    others.heard(transform("utm", "odom", 5))
    assert others.parent("/odom") == "utm"
    now[0] += tf_others.RECENT + 1.0
    assert others.parent("odom") == ""


def test_what_is_remembered_is_bounded() -> None:
    others = tf_others.Others()
    for number in range(2 * tf_others.MOST):
        others.sending("map", "odom", number)
        others.heard(transform("a", str(number)))
    assert len(others._heard) == tf_others.MOST
    assert len(others._ours) == tf_others.OURS
    others.heard(transform("map", "odom", 0))  # sent too long ago to be known again, and no room
    assert others.parent("odom") == ""

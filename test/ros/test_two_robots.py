"""Two robots in one ROS graph, whose drivers name the same frames: each has its topics and its part of /tf."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from callbacks import START
from callbacks import Robot as Callbacks
from dds import Graph, NodeProgram, wait_until
from nav_msgs.msg import Path as PathMessage
from rclpy.qos import DurabilityPolicy, QoSProfile
from standing import RELIABLE, Robot
from tf2_msgs.msg import TFMessage

from dsg_ros import poses
from dsg_ros.processes import free_domain
from dsg_ros.ros import convert, frame_names

NAMES = ("robot1", "robot2")
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def pairs(graph: Graph, since: int = 0) -> set[tuple[str, str]]:
    """Parent and child of what was heard on /tf."""
    return {(t.header.frame_id, t.child_frame_id) for m in graph.messages("/tf")[since:] for t in m.transforms}


def test_two_robots_in_one_graph(tmp_path: Path, fake_node: list[str]) -> None:
    domain = free_domain()
    graph = Graph(domain)
    nodes = {}
    for name in NAMES:
        program = [*fake_node, "--ros-args", "-r", f"__ns:=/{name}"]
        more = {"frame_prefix": f"{name}/", "publish_odom_tf": "true"}
        nodes[name] = NodeProgram(program, tmp_path / name, domain, **RELIABLE, **more)
    with nodes["robot1"], nodes["robot2"]:
        robots = {name: Robot(graph, node, f"/{name}", laser="laser") for name, node in nodes.items()}
        static = graph.node.create_publisher(
            TFMessage, "/tf_static", QoSProfile(depth=1, durability=LATCHED.durability)
        )
        mounts = [convert.transform(f"{n}/base_link", f"{n}/laser", 0, poses.from_planar(0.1, 0, 0)) for n in NAMES]
        static.publish(TFMessage(transforms=mounts))
        for name, robot in robots.items():
            nodes[name].wait(lambda s: s["state"] == "ready", "active node")
            robot.wait()
            graph.listen(f"/{name}/hero/path", PathMessage, LATCHED)
        for number in range(1, 4):
            robots["robot1"].scan()
            if number < 3:
                robots["robot2"].scan()
            for name, robot in robots.items():
                nodes[name].wait(lambda s, n=robot.sent: s["scans"]["processed"] == n, "the robot's own scans")
        for name, length in (("robot1", 3), ("robot2", 2)):
            topic = f"/{name}/hero/path"
            wait_until(lambda t=topic, n=length: [m for m in graph.messages(t) if len(m.poses) == n], "the path")
            assert graph.messages(topic)[-1].header.frame_id == f"{name}/map"
            assert nodes[name].status()["map_to_odom"]["conflict"] == ""
        wait_until(lambda: len(pairs(graph)) >= 4, "the transforms of both", details=lambda: str(pairs(graph)))
        expected = {(f"{n}/{a}", f"{n}/{b}") for n in NAMES for a, b in (("map", "odom"), ("odom", "base_link"))}
        assert pairs(graph) == expected

        nodes["robot1"].process.kill()
        nodes["robot1"].process.wait()
        time.sleep(1.0)
        heard = len(graph.messages("/tf"))
        robots["robot2"].scan()
        status = nodes["robot2"].wait(lambda s: s["scans"]["processed"] == 3, "a scan of the robot that is left")
        assert status["worker"] == {"state": "ready", "restarts": 0}
        wait_until(lambda: len(graph.messages("/tf")) > heard + 50, "its map->odom")
        assert {parent.split("/")[0] for parent, _ in pairs(graph, heard)} == {"robot2"}
        assert nodes["robot2"].interrupt() == 0
        assert "Traceback" not in nodes["robot2"].text
    graph.close()


@pytest.mark.parametrize(
    ("prefix", "frame", "of_message", "of_parameter"),
    [
        ("robot1/", "odom", "robot1/odom", "robot1/odom"),
        ("robot1/", "robot1/odom", "robot1/odom", "robot1/odom"),
        ("robot1/", "/odom", "robot1/odom", "odom"),
        ("robot1_", "odom", "robot1_odom", "robot1_odom"),
        ("robot1/", "", "", ""),
        ("", "/odom", "/odom", "/odom"),
    ],
)
def test_prefixes(prefix: str, frame: str, of_message: str, of_parameter: str) -> None:
    assert frame_names.told(prefix, frame) == of_message
    assert frame_names.given(prefix, frame) == of_parameter


def test_without_odometry_the_base_is_found_by_its_name_behind_the_prefix() -> None:
    robot = Callbacks(**{"input.odometry": "none", "frame_prefix": "robot1_"})
    robot.stand("robot1_base_link", "robot1_laser")
    robot.scan(START, "laser")
    assert robot.sensors.odom_frame == robot.sensors.base_frame == "robot1_base_link"
    assert len(robot.frames) == 1

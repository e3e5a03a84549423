"""A robot that publishes scans and nothing else, mapped by the node over DDS."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import worlds
from dds import Graph, NodeProgram, wait_until
from geometry_msgs.msg import PoseWithCovarianceStamped
from sensor_msgs.msg import LaserScan
from tf2_msgs.msg import TFMessage

from dsg_ros import poses
from dsg_ros.processes import free_domain
from dsg_ros.ros import convert

TRUTH = worlds.drive([(-2.5, 2.2), (1.2, 2.2), (1.2, -1.5), (-2.0, -1.0), (-2.5, 2.2)], step=0.1, turn=0.1)
SETTINGS = {"input.odometry": "none", "qos.scan.reliability": "reliable", "qos.scan.depth": 500, "queue": 500}


def test_scans_alone_make_a_map_that_is_the_parent_of_the_sensor(tmp_path: Path) -> None:
    domain = free_domain()
    graph = Graph(domain)
    graph.listen("/tf", TFMessage, 1000)
    graph.listen("/hero/pose", PoseWithCovarianceStamped, 1000)
    scans = graph.node.create_publisher(LaserScan, "/scan", 500)
    with NodeProgram(["-m", "dsg_ros", "node"], tmp_path / "out", domain, **SETTINGS) as node:
        node.wait(lambda s: s["state"] == "ready", "ready node")
        assert graph.node.count_subscribers("/odom") == 0
        wait_until(scans.get_subscription_count, "subscription")
        time.sleep(1.0)  # each side has seen the other; the connection itself takes a moment more
        for number, pose in enumerate(TRUTH):
            message = LaserScan(header=convert.header(1000 * worlds.SECOND + number * worlds.SECOND // 10, "laser"))
            message.range_min, message.range_max = 0.1, 50.0
            message.angle_min, message.angle_increment = float(worlds.BEAMS[0]), float(np.diff(worlds.BEAMS)[0])
            noise = np.random.default_rng(number).normal(0.0, 0.01, len(worlds.BEAMS))
            found = worlds.ranges(worlds.room(), pose[:2], worlds.BEAMS + poses.yaw(pose)) + noise
            message.ranges = found.astype(np.float32)
            scans.publish(message)
            time.sleep(0.01)
        status = node.wait(lambda s: s["scans"]["processed"] == len(TRUTH), "every scan processed")
        told = wait_until(lambda: graph.messages("/hero/pose")[len(TRUTH) - 1 :], "every pose")[-1]
        place = convert.pose_values(told.pose.pose)
        sent = wait_until(lambda: graph.messages("/tf"), "transform")[-1].transforms[0]
        assert node.interrupt() == 0
    graph.close()
    np.testing.assert_allclose(place[:2], poses.between(TRUTH[0], TRUTH[-1])[:2], atol=0.05)
    assert (sent.header.frame_id, sent.child_frame_id) == ("map", "laser")
    assert (status["odometry"]["used"], status["odometry"]["received"]) == (False, 0)
    assert not any("odom" in name for name in status["inputs"])
    assert "listening to /scan, /points" in node.text
    assert status["scans"]["dropped"] == {}
    assert status["compilations_after_warm_up"] == 0
    odometry = [p for p in status["parameters"] if p["name"].startswith("odometry.")]
    assert odometry
    assert all(p["status"] == "unobservable" for p in odometry)
    assert (tmp_path / "out" / "trajectory.tum").read_text().count("\n") >= len(TRUTH)

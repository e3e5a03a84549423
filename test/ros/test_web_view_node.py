"""The node's web view: a real node over real DDS, seen through a browser's connection."""

from __future__ import annotations

import socket
import time

import numpy as np
from dds import Graph, NodeProgram, wait_until
from nav_msgs.msg import Odometry
from sensor_msgs.msg import LaserScan
from view_client import Client

from dsg_ros import poses
from dsg_ros.processes import free_domain
from dsg_ros.ros import convert, web_view

SECOND = 1_000_000_000
RELIABLE = {"qos.odom.reliability": "reliable", "qos.scan.reliability": "reliable"}


def drive(graph: Graph, node: NodeProgram, scans: int) -> None:
    """One scan each second, with odometry along x."""
    odom = graph.node.create_publisher(Odometry, "/odom", 100)
    laser = graph.node.create_publisher(LaserScan, "/scan", 100)
    wait_until(lambda: odom.get_subscription_count() and laser.get_subscription_count(), "subscriptions")
    time.sleep(1.0)
    for k in range(scans):
        stamp = (1000 + k) * SECOND
        message = Odometry(header=convert.header(stamp, "odom"), child_frame_id="base_link")
        message.pose.pose = convert.pose(poses.from_planar(float(k), 0, 0))
        odom.publish(message)
        scan = LaserScan(header=convert.header(stamp, "base_link"), angle_increment=0.1, range_min=0.1, range_max=50.0)
        scan.ranges = np.full(10, 2.0, np.float32)
        laser.publish(scan)
    node.wait(lambda s: s["scans"]["processed"] == scans, "processed scans")


def test_a_browser_sees_what_the_node_maps_and_how_it_fares(tmp_path, fake_node):
    domain = free_domain()
    graph = Graph(domain)
    with NodeProgram(fake_node, tmp_path / "out", domain, view="web", view_port=0, **RELIABLE) as node:
        url = node.wait(lambda s: s["state"] == "ready" and s["view"], "page")["view"]
        assert url.startswith("http://127.0.0.1:")
        drive(graph, node, 4)
        with Client(url) as client:
            client.until(lambda c: c.voxels and len(c.lines.get("/map/mapped", ())), "map and path")
            client.until(lambda c: len(c.chart("odometry.scale")["data"][0]) == 4, "four values of the scale")
            assert np.allclose(client.chart("odometry.scale")["data"][1], [1.01, 1.02, 1.03, 1.04])
            client.until(lambda c: c.chart("rates") and c.chart("dropped"), "rates and drops")
        assert node.interrupt() == 0
    graph.close()
    port = int(url.rpartition(":")[2])
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))  # nobody is left there


def test_a_node_whose_port_is_taken_says_so_and_stays_unconfigured(tmp_path, fake_node):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with NodeProgram(fake_node, tmp_path / "out", free_domain(), view="web", view_port=port) as node:
            wait_until(lambda: "not configured" in node.text, "refusal", details=lambda: node.text)
            assert f"cannot listen on 127.0.0.1, port {port}" in node.text
            assert node.interrupt() == 0


def test_rates_and_drops_of_the_figures():
    def figures(received: int, processed: int, full: int, used: bool = True) -> dict:
        return {
            "scans": {"received": received, "processed": processed, "dropped": {"queue_full": full}, "lost": 1},
            "odometry": {"used": used, "refused": {"odometry_not_finite": 2} if used else {}, "lost": 3},
            "map_to_odom": {"rate_hz": 50.0},
        }

    told = web_view.health(figures(30, 25, 4), figures(10, 15, 0), since=7.0, period=2.0)
    assert told.seconds == 7.0
    assert told.rates == {"scans in": 10.0, "scans mapped": 5.0, "map->odom": 50.0}
    assert told.dropped == {"queue_full": 4, "scans_lost": 1, "odometry_not_finite": 2, "odometry_lost": 3}
    assert web_view.health(figures(30, 25, 4), None, 1.0, 1.0).rates["scans in"] == 0.0
    without = web_view.health(figures(30, 25, 4, used=False), None, 1.0, 1.0)
    assert not any("odom" in name for name in (*without.rates, *without.dropped))

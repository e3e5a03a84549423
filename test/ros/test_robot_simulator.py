"""hero_simulator's robot in its building, and a node that listens: clouds through real DDS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dds import Graph, NodeProgram, Program
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import LaserScan, PointCloud2
from tf2_msgs.msg import TFMessage

from dsg_ros import poses
from dsg_ros.processes import free_domain
from dsg_ros.ros import convert

SIMULATOR = ["-m", "dsg_ros.ros.simulator", "--ros-args"]
BUILDING = ["-p", "world:=building", "-p", "drive.metres:=2.2", "-p", "lidar.columns:=200", "-p", "listeners:=2"]
RELIABLE = {"qos.odom.reliability": "reliable", "qos.points.reliability": "reliable"}


class Drive:
    """What was heard of a short drive, and what the node said of it."""

    def __init__(self, graph: Graph, status: dict) -> None:
        self.graph, self.status = graph, status
        self.clouds: list[PointCloud2] = graph.messages("/points")


@pytest.fixture(scope="module")
def drive(fake_node: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drive]:
    folder, domain = tmp_path_factory.mktemp("drive"), free_domain()
    graph = Graph(domain)
    graph.listen("/points", PointCloud2, 1000)
    graph.listen("/odom", Odometry, 1000)
    graph.listen("/reference", PoseWithCovarianceStamped, 1000)
    graph.listen("/tf", TFMessage, 1000)
    graph.listen("/tf_static", TFMessage, QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    with NodeProgram(fake_node, folder / "out", domain, sensors="points", **RELIABLE) as node:
        node.wait(lambda s: s["state"] == "ready", "ready node")
        with Program([*SIMULATOR, *BUILDING], folder / "simulator.log", domain) as simulator:
            assert simulator.process.wait(60) == 0, simulator.text
            assert "the drive is over" in simulator.text
        count = len(graph.messages("/points"))
        status = node.wait(lambda s: s["scans"]["processed"] >= count, "every cloud processed")
    yield Drive(graph, status)
    graph.close()


def test_every_cloud_reaches_the_node(drive: Drive) -> None:
    scans = drive.status["scans"]
    assert len(drive.clouds) > 20
    assert (scans["received"], scans["lost"], scans["dropped"]) == (len(drive.clouds), 0, {})
    assert drive.status["odometry"]["lost"] == 0


def test_clouds_come_in_real_time_with_the_time_of_every_point(drive: Drive) -> None:
    came = np.array([at for at, _ in drive.graph.heard["/points"]])
    stamps = np.array([convert.nanoseconds(cloud.header.stamp) for cloud in drive.clouds])
    assert np.diff(stamps).tolist() == [100_000_000] * (len(stamps) - 1)
    assert 0.5 < (came[-1] - came[0]) / ((stamps[-1] - stamps[0]) / 1e9) < 2  # on a busy machine, too
    decoded = convert.cloud_points(drive.clouds[5])
    assert decoded.points.shape == (200 * 16, 3)
    assert decoded.times is not None
    assert 0.09 < decoded.times.max() < 0.1


def test_reference_and_transforms_fit_the_clouds(drive: Drive) -> None:
    exact = {
        convert.nanoseconds(m.header.stamp): convert.pose_values(m.pose.pose)
        for m in drive.graph.messages("/reference")
    }
    assert {convert.nanoseconds(cloud.header.stamp) for cloud in drive.clouds} <= set(exact)
    (mounted,) = [t for m in drive.graph.messages("/tf_static") for t in m.transforms]
    assert (mounted.header.frame_id, mounted.child_frame_id) == ("base_link", "lidar")
    assert {t.header.frame_id for m in drive.graph.messages("/tf") for t in m.transforms} >= {"odom"}
    odometry = drive.graph.messages("/odom")
    assert {m.child_frame_id for m in odometry} == {"base_link"}
    # Wheels that over-read, from the beginning on.
    told = np.linalg.norm(np.array(convert.odometry_pose(odometry[-1]))[:3])
    truth = np.array([exact[stamp] for stamp in sorted(exact)])
    driven = np.linalg.norm(poses.between(truth[0], truth[-1])[:3])
    assert 1.0 < told / driven < 1.1


def test_a_scanner_in_the_office_sends_scans_as_a_real_one_does(tmp_path: Path) -> None:
    domain = free_domain()
    graph = Graph(domain)
    graph.listen("/scan", LaserScan, 1000)
    graph.listen("/odom", Odometry, 1000)
    words = ["-p", "world:=office", "-p", "drive.metres:=1.0", "-p", "listeners:=1", "-p", "wheels.time_offset:=0.06"]
    with Program([*SIMULATOR, *words], tmp_path / "simulator.log", domain) as simulator:
        assert simulator.process.wait(60) == 0, simulator.text
    scans = graph.messages("/scan")
    graph.close()
    assert len(scans) > 10
    for scan in scans:
        assert (scan.header.frame_id, len(scan.ranges), scan.range_max) == ("laser", 360, 20.0)
        assert scan.angle_max == pytest.approx(scan.angle_min + 359 * scan.angle_increment)
        assert 359 * scan.time_increment == pytest.approx(0.1, rel=0.01)
    decoded = convert.scan_points(scans[3])
    assert 340 < len(decoded.points) <= 360
    assert decoded.times is not None
    first = convert.nanoseconds(graph.messages("/odom")[0].header.stamp)
    assert 0 <= convert.nanoseconds(scans[0].header.stamp) - first <= 20_000_000, "odometry told from before, later"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["-p", "world:=moon"], "not one of tutorial, building, office, corridor"),
        (["-p", "world:=building", "-p", "lidar.colums:=200"], "lidar.columns"),
        (["-p", "world:=building", "-p", "lidar.columns:=2"], "outside"),
        (["-p", "world:=corridor", "-p", "drive.metres:=99.0"], "ends after 60 m"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(words: list[str], reason: str, tmp_path: Path) -> None:
    with Program([*SIMULATOR, *words], tmp_path / "log", free_domain()) as simulator:
        assert simulator.process.wait(60) == 2
        assert reason in simulator.text

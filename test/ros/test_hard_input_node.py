"""What a sensor can do to a run, by the real door: messages over DDS, the node, its synchroniser and its worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import worlds
from dds import Graph, NodeProgram, wait_until
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import LaserScan
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from dsg_ros import poses
from dsg_ros.io.trajectories import read_tum
from dsg_ros.processes import free_domain
from dsg_ros.ros import convert

Array = NDArray[np.float64]
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MOUNTS = {
    "base_link": poses.IDENTITY,
    "front": poses.from_planar(0.2, 0.0, 0.0),
    "back": poses.from_planar(-0.2, 0.05, np.pi),
}
ROUTE = [(-2.5, 2.2), (1.2, 2.2), (1.2, -1.5), (-2.0, -1.0), (-2.5, 2.2)]
TRUTH = worlds.drive(ROUTE, step=0.1, turn=0.1)
RIGHT = 0.1
"""Metres that the last pose may be off; by the odometry it is 0.3 m."""


@dataclass
class Ran:
    """The node's status before and after a drive, and the poses (n, 7) it told, one for each scan."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    poses: Array

    def scans(self, name: str) -> int:
        """How much a figure of the scans has grown."""
        return int(self.after["scans"][name] - self.before["scans"][name])


class Door:
    """Publishes drives through `worlds.room` to a node, one after the other; each begins a new map."""

    def __init__(self, graph: Graph, node: NodeProgram) -> None:
        self.graph, self.node = graph, node
        self._clock = 1000 * worlds.SECOND
        self._odom = graph.node.create_publisher(Odometry, "/odom", 1000)
        self._scan = graph.node.create_publisher(LaserScan, "/scan", 1000)
        static = graph.node.create_publisher(TFMessage, "/tf_static", LATCHED)
        mounted = [convert.transform("base_link", name, 0, mount) for name, mount in list(MOUNTS.items())[1:]]
        static.publish(TFMessage(transforms=mounted))
        graph.listen("/hero/pose", PoseWithCovarianceStamped, 1000)
        node.wait(lambda s: s["inputs"]["odom"]["publishers"] and s["inputs"]["scan"]["publishers"], "discovery")
        time.sleep(1.0)  # each side has seen the other; the connection itself takes a moment more

    def drive(
        self,
        truth: Array,
        seconds: Array,
        change: Callable[[Array, int], Array] = lambda ranges, _: ranges,
        frames: tuple[str, ...] = ("base_link",),
    ) -> Ran:
        """A scan at each of the poses ``truth`` (n, 7) and times ``seconds`` (n,), of every sensor of ``frames``;
        ``change`` makes of a scan's ranges what the sensor tells.
        """
        assert self.graph.call("/hero/reset", Trigger, Trigger.Request()).success
        told, before = len(self.graph.messages("/hero/pose")), self.node.status()
        for number, wheels in enumerate(worlds.biased(truth, scale=1.03, turn_per_metre=0.01)):
            stamp = self._clock + round(seconds[number] * worlds.SECOND)
            message = Odometry(header=convert.header(stamp, "odom"), child_frame_id="base_link")
            message.pose.pose = convert.pose(wheels)
            self._odom.publish(message)
            for frame in frames:
                at = poses.compose(truth[number], MOUNTS[frame])
                noise = np.random.default_rng(number).normal(0.0, 0.01, len(worlds.BEAMS))
                found = worlds.ranges(worlds.room(), at[:2], worlds.BEAMS + poses.yaw(at)) + noise
                self._scan.publish(laser_scan(stamp, frame, change(found, number)))
            time.sleep(0.01)
        self._clock = stamp + worlds.SECOND // 10
        count = len(truth) * len(frames)
        arrived = before["scans"]["received"] + count
        wait_until(lambda: len(self.graph.messages("/hero/pose")) >= told + count, "every pose", 60.0, self.tell)
        after = self.node.wait(lambda s: s["scans"]["received"] == arrived and not s["scans"]["waiting"], "figures")
        found = [convert.pose_values(message.pose.pose) for message in self.graph.messages("/hero/pose")[told:]]
        return Ran(before, after, np.array(found))

    def tell(self) -> str:
        return f"{self.node.status()}\n{self.node.text[-6000:]}"


def laser_scan(stamp: int, frame: str, ranges: Array) -> LaserScan:
    message = LaserScan(header=convert.header(stamp, frame), range_min=0.1, range_max=50.0)
    message.angle_min, message.angle_increment = float(worlds.BEAMS[0]), float(np.diff(worlds.BEAMS)[0])
    message.ranges = ranges.astype(np.float32)
    return message


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    domain, folder = free_domain(), tmp_path_factory.mktemp("door") / "out"
    reliable = {f"qos.{topic}.{name}": value for topic in ("odom", "scan") for name, value in QOS.items()}
    graph = Graph(domain)
    with NodeProgram(["-m", "dsg_ros", "node"], folder, domain, queue=1000, **reliable) as node:
        node.wait(lambda s: s["state"] == "ready", "ready node")
        yield Door(graph, node)
    graph.close()


QOS = {"reliability": "reliable", "depth": 1000}


def off(ran: Ran, truth: Array, sensors: int = 1) -> float:
    """How far the poses told are from the truth [m], both from the first on, where it is most."""
    away = ran.poses[:, :2] - poses.between(truth[0], np.repeat(truth, sensors, axis=0))[:, :2]
    return float(np.linalg.norm(away, axis=1).max())


def test_scans_of_invalid_ranges_have_poses_by_the_odometry(door: Door) -> None:
    blind = range(30, 50)
    ran = door.drive(TRUTH, 0.1 * np.arange(len(TRUTH)), lambda r, n: np.full_like(r, np.inf) if n in blind else r)
    assert ran.scans("without_points") == len(blind)
    assert ran.after["scans"]["dropped"] == ran.before["scans"]["dropped"]
    assert ran.after["counts"]["scans_on_odometry_alone"] == len(blind)
    assert off(ran, TRUTH) < RIGHT
    assert "it has no point: nothing is seen in it, it goes on by odometry alone" in door.node.text
    assert door.graph.call("/hero/save", Trigger, Trigger.Request()).success
    saved = door.node.folder / "trajectory.tum"
    wait_until(saved.exists, "the trajectory", details=lambda: door.node.text)
    stamps, _ = read_tum(saved)
    assert len(stamps) == len(TRUTH)


def test_two_sensors_on_one_topic_stamp_alike(door: Door) -> None:
    ran = door.drive(TRUTH, 0.1 * np.arange(len(TRUTH)), frames=("front", "back"))
    assert ran.after["scans"]["dropped"] == ran.before["scans"]["dropped"]
    assert ran.after["counts"]["scans"] == 2 * len(TRUTH)
    assert ran.after["inputs"]["scan"]["frame_changes"] <= 2  # said where the second is new
    assert off(ran, TRUTH, 2) < RIGHT


@pytest.mark.parametrize("rate", [1.0, 100.0])
def test_any_rate_will_do(door: Door, rate: float) -> None:
    truth = worlds.drive(ROUTE[:3], step=0.3 if rate == 1.0 else 0.02, turn=0.2 if rate == 1.0 else 0.05)
    ran = door.drive(truth, np.arange(len(truth)) / rate)
    assert ran.after["scans"]["dropped"] == ran.before["scans"]["dropped"]
    assert ran.after["counts"]["scans"] == len(truth)
    assert off(ran, truth) < RIGHT


def test_a_gap_of_a_minute_is_bridged_by_the_odometry(door: Door) -> None:
    """A meter is driven in it, of which nothing comes."""
    kept = np.r_[0:60, 70 : len(TRUTH)]
    seconds = 0.1 * np.arange(len(kept)) + 60.0 * (kept >= 70)
    ran = door.drive(TRUTH[kept], seconds)
    assert ran.after["scans"]["dropped"] == ran.before["scans"]["dropped"]
    assert ran.after["clock_jumps"] == ran.before["clock_jumps"]
    assert off(ran, TRUTH[kept]) < RIGHT

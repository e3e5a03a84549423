"""Somebody else on the robot's ROS graph: drives the node with a recorded drive, and hears when what comes back."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import rclpy
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import LaserScan, PointCloud2
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from dsg_ros.io.records import CloudRecord, OdometryRecord, Record
from dsg_ros.ros import convert
from dsg_ros.simulation.sensors import MOUNT

BASE = "base_link"
LATCHED = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Participant:
    """A node with a thread that runs its callbacks; as a context manager it leaves the graph."""

    def __init__(self, name: str, domain: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return


class Cubes(Participant):
    """Listens to ~/voxels; what came is looked into afterwards, for that takes longer than sending it."""

    def __init__(self, name: str, domain: int) -> None:
        super().__init__(name, domain)
        self.heard: list[tuple[float, bytes]] = []
        self.node.create_subscription(MarkerArray, "/hero/voxels", self._take, LATCHED, raw=True)

    def bytes_between(self, begin: float, end: float) -> int:
        """Sum of the messages that came from ``begin`` until ``end`` [s, monotonic]."""
        return sum(len(data) for when, data in self.heard if begin <= when < end)

    def growth(self) -> list[tuple[float, int]]:
        """When each message came, and how many cubes were on the screen then."""
        cubes: dict[int, int] = {}
        grown = []
        for when, data in self.heard:
            cubes |= cubes_of(data)
            grown.append((when, sum(cubes.values())))
        return grown

    def _take(self, data: bytes) -> None:
        self.heard.append((time.monotonic(), data))


def cubes_of(data: bytes) -> dict[int, int]:
    """How many cubes each marker of a visualization_msgs/MarkerArray has, by its id: rclpy takes seconds for a map.

    Reads what `dsg_ros.ros.cdr.cube_lists` writes, by the same rules.
    """
    place, body = 0, memoryview(data)[4:]

    def take(kind: str, count: int = 1) -> int:
        nonlocal place
        if not count:
            return 0
        size = struct.calcsize(f"<{kind}")
        place += -place % size
        value: int = struct.unpack_from(f"<{kind}", body, place)[0]
        place += size * count
        return value

    def skip(kind: str, width: int = 1) -> int:
        """A sequence of rows of ``width``; how many."""
        count = take("I")
        take(kind, count * width)
        return count

    found = {}
    for _ in range(take("I")):
        take("i", 2)  # stamp
        skip("B")  # frame_id
        skip("B")  # namespace
        number = take("i", 1)
        take("i", 1)  # type
        take("i", 1)  # action
        take("d", 10)  # pose and scale
        take("f", 4)
        take("i", 2)  # lifetime
        take("B")
        found[number] = skip("d", 3)
        skip("f", 4)
        skip("B")  # texture_resource
        take("i", 2)
        skip("B")
        skip("B")
        skip("B")  # texture
        skip("f", 2)
        for _ in range(3):  # text, mesh_resource, the name of its file
            skip("B")
        skip("B")
        take("B")
    return found


class Witness(Participant):
    """Sends a drive, and follows /tf.

    ``corrections`` are the stamps [s] of map->odom: the node's clock when each was sent, and a constant.  ``delays``
    [s] are the times from sending an odometry message until the node's answer to it, odom->base on /tf, is here.
    """

    def __init__(self, domain: int, *, planar: bool) -> None:
        super().__init__("witness", domain)
        self.corrections: list[float] = []
        self.delays: list[float] = []
        self._sent: dict[int, float] = {}
        self._odom = self.node.create_publisher(Odometry, "/odom", 200)
        kind, topic = (LaserScan, "/scan") if planar else (PointCloud2, "/points")
        self._laser = self.node.create_publisher(kind, topic, 20)
        self._static = self.node.create_publisher(TFMessage, "/tf_static", LATCHED)
        self._static.publish(TFMessage(transforms=[convert.transform(BASE, f, 0, MOUNT) for f in ("laser", "lidar")]))
        self.node.create_subscription(TFMessage, "/tf", self._take, 1000)
        self._optimize = self.node.create_client(Trigger, "/hero/optimize")

    def wait(self, seconds: float = 60.0) -> None:
        """Until the node listens."""
        until(lambda: self._odom.get_subscription_count() and self._laser.get_subscription_count(), "a node", seconds)
        time.sleep(1.0)  # each side has seen the other; the connection itself takes a moment more

    def drive(self, records: Sequence[tuple[int, Record]], meanwhile: Callable[[], None] = lambda: None) -> None:
        """Send ``records`` in real time, each stamp as far from the present as it was when it became known."""
        began, first = time.time_ns(), records[0][0]
        for due, record in records:
            ahead = (began + due - first - time.time_ns()) * 1e-9
            if ahead > 0:
                time.sleep(ahead)
            self._publish(record, record.stamp + began - first)
            meanwhile()

    def optimize(self) -> Any:
        """Ask for a global solve; the future of the answer."""
        return self._optimize.call_async(Trigger.Request())

    def gaps(self, since: int = 0) -> NDArray[np.float64]:
        """Seconds between broadcasts of map->odom from number ``since`` on."""
        return np.diff(self.corrections[since:])

    def _publish(self, record: Record, stamp: int) -> None:
        if isinstance(record, OdometryRecord):
            message = convert.odometry(record.frame, BASE, stamp, record.pose)
            self._sent[stamp] = time.monotonic()
            self._odom.publish(message)
        elif isinstance(record, CloudRecord):
            self._laser.publish(convert.point_cloud(record.frame, stamp, record.points, record.times))
        else:
            self._laser.publish(convert.laser_scan(replace(record, stamp=stamp)))

    def _take(self, message: TFMessage) -> None:
        now = time.monotonic()
        for transform in message.transforms:
            stamp = convert.nanoseconds(transform.header.stamp)
            if transform.header.frame_id == "map":
                self.corrections.append(stamp * 1e-9)
            elif (sent := self._sent.pop(stamp, None)) is not None:
                self.delays.append(now - sent)


def until(condition: Callable[[], Any], what: str, seconds: float) -> float:
    """Wait for ``condition``; after how many seconds it came.  `RuntimeError` where it does not."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise RuntimeError(f"no {what} within {seconds:.0f} s")
        time.sleep(0.005)
    return time.monotonic() - began

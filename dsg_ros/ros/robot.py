"""`hero_simulator` in any world but the tutorial: a robot with a laser drives, in real time, with exact truth.

Publishes ``odom``, ``points`` or ``scan``, ``reference`` (the exact pose), with ``receiver.rate`` also ``fix``
(NavSatFix), and TF odom -> base_link -> lidar or laser and gps, in the relative names that hero_node listens to.  Its
parameters are those of `dsg_ros.config.Simulation`.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import LaserScan, NavSatFix, PointCloud2
from tf2_msgs.msg import TFMessage

from dsg_ros import config
from dsg_ros.io.records import CloudRecord, FixRecord, OdometryRecord
from dsg_ros.ros import convert, parameters
from dsg_ros.simulation.robot import ANTENNA, Record, Reference, Robot
from dsg_ros.simulation.sensors import MOUNT

WORLD, BASE = "world", "base_link"
AHEAD = 64
"""Records that are made before they are due: half a second of odometry, and the next sweeps."""
LATE = 0.05
"""Seconds behind which it says so."""
EXACT = np.zeros((6, 6))
PATIENCE = 600.0
"""Longest wait [s] for somebody who takes the sweeps: a node listens when it has compiled everything."""


class RobotSimulator(Node):
    """Sets off when somebody listens, and sets ``ended`` when the drive is over."""

    def __init__(self, ended: threading.Event) -> None:
        super().__init__("hero_simulator", automatically_declare_parameters_from_overrides=True)
        self._world = parameters.declare(self, config.SimulatorNode())
        self._ended, self._stop = ended, threading.Event()
        self._odom = self.create_publisher(Odometry, "odom", 200)
        # Compiled, and the drive's length checked, before anybody waits for it.
        robot = Robot(self._world)
        self._planar, self._frame = robot.planar, robot.sweep(0).frame
        kind, topic = (LaserScan, "scan") if self._planar else (PointCloud2, "points")
        self._laser = self.create_publisher(kind, topic, 20)
        self._reference = self.create_publisher(PoseWithCovarianceStamped, "reference", 200)
        receives = self._world.receiver.rate > 0
        self._fix = self.create_publisher(NavSatFix, "fix", 50) if receives else None
        self._tf = self.create_publisher(TFMessage, "/tf", 100)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._static = self.create_publisher(TFMessage, "/tf_static", latched)
        self._thread = threading.Thread(target=self._run, name="drive", daemon=True)
        self.sent: Counter[str] = Counter()
        self.failed = False

    def start(self) -> None:
        """Begin to drive."""
        mounts = {self._frame: MOUNT} | ({"gps": ANTENNA} if self._fix else {})
        told = [convert.transform(BASE, frame, self._now(), mount) for frame, mount in mounts.items()]
        self._static.publish(TFMessage(transforms=told))
        self._thread.start()

    def stop(self) -> None:
        """Stop where it is."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._drive()
        except Exception:  # noqa: BLE001 - the thread's end must be the program's, with the reason
            self.get_logger().error(traceback.format_exc())
            self.failed = True
        finally:
            self._ended.set()

    def _drive(self) -> None:
        self._wait_for_listeners()
        delay = 1.0
        began, robot = time.monotonic() + delay, Robot(self._world, self._now() + int(delay * 1e9))
        self.get_logger().info(f"the robot sets off: {robot.metres:.0f} m, {robot.sweeps} sweeps")
        start, said = None, -60.0
        for due, record in _ahead(robot.records(), self._stop):
            start = due if start is None else start
            remaining = began + (due - start) / 1e9 - time.monotonic()
            if self._stop.wait(max(0.0, remaining)):
                return
            if remaining < -LATE and time.monotonic() - said > 5.0:
                said = time.monotonic()
                self.get_logger().warning(f"{-remaining:.2f} s late: this machine is too slow for this laser")
            self._publish(record)
        self.get_logger().info(f"the drive is over: {', '.join(f'{k} {n}' for k, n in sorted(self.sent.items()))}")

    def _publish(self, record: Record) -> None:
        if isinstance(record, OdometryRecord):
            self._odom.publish(convert.odometry(record.frame, BASE, record.stamp, record.pose))
            self._tf.publish(TFMessage(transforms=[convert.transform(record.frame, BASE, record.stamp, record.pose)]))
            self.sent["odom"] += 1
        elif isinstance(record, Reference):
            self._reference.publish(convert.pose_with_covariance(WORLD, record.stamp, record.pose, EXACT))
            self.sent["reference"] += 1
        elif isinstance(record, FixRecord):
            assert self._fix is not None, "there are fixes where there is a receiver"
            self._fix.publish(convert.fix(record))
            self.sent["fix"] += 1
        elif isinstance(record, CloudRecord):
            self._laser.publish(convert.point_cloud(record.frame, record.stamp, record.points, record.times))
            self.sent["points"] += 1
        else:
            self._laser.publish(convert.laser_scan(record))
            self.sent["scan"] += 1

    def _wait_for_listeners(self) -> None:
        wanted, deadline = self._world.listeners, time.monotonic() + PATIENCE
        self.get_logger().info(
            f"waiting for {wanted} that listen to odometry and {'scan' if self._planar else 'points'}"
        )
        while min(self._odom.get_subscription_count(), self._laser.get_subscription_count()) < wanted:
            if self._stop.wait(0.05):
                return
            if time.monotonic() > deadline:
                self.get_logger().warning("not so many listen; setting off all the same")
                return

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds


def _ahead(records: Iterator[tuple[int, Record]], stop: threading.Event) -> Iterator[tuple[int, Record]]:
    """The same records, made by a thread of their own a little before they are asked for."""
    made: queue.Queue[tuple[int, Record] | BaseException | None] = queue.Queue(AHEAD)

    def put(item: tuple[int, Record] | BaseException | None) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                made.put(item, timeout=0.1)
                return

    def make() -> None:
        try:
            for item in records:
                put(item)
                if stop.is_set():
                    return
            put(None)
        except Exception as error:  # noqa: BLE001 - raised where the records are taken
            put(error)

    threading.Thread(target=make, name="sweeps", daemon=True).start()
    while not stop.is_set():
        try:
            item = made.get(timeout=0.1)
        except queue.Empty:
            continue
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item
        yield item

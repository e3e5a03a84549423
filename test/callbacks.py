"""The callbacks between messages and frames, called as rclpy calls them, with what they hand on and say."""

from __future__ import annotations

from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from sensor_msgs.msg import LaserScan
from tf2_msgs.msg import TFMessage

from dsg_ros import config
from dsg_ros.interface import Frame
from dsg_ros.ros import convert
from dsg_ros.ros.frames import TransformTree
from dsg_ros.ros.sensors import Sensors

SECOND = 1_000_000_000
START = 1000 * SECOND
BASE = (1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 1.0)


class Robot:
    """`Sensors` with what it hands over and says."""

    def __init__(self, **settings: Any) -> None:
        self.config = config.replace(config.Node(), settings)
        self.frames: list[Frame] = []
        self.broadcast: list[tuple[int, np.ndarray]] = []
        self.jumps: list[bool] = []
        self.said: list[tuple[str, str]] = []
        self.tree = TransformTree()
        self.sensors = Sensors(
            lambda: self.config,
            self.tree,
            self.submit,
            lambda stamp, pose: self.broadcast.append((stamp, pose)),
            self.jumps.append,
            lambda level, text: self.said.append((level, text)),
        )

    def submit(self, frame: Frame) -> None:
        self.frames.append(frame)

    def take(self, name: str, message: object) -> None:
        self.sensors.inputs[name]._take(message, {})

    def drive(self, stamp: int, pose=BASE, child: str = "base_link") -> None:
        message = Odometry(header=convert.header(stamp, "odom"), child_frame_id=child)
        message.pose.pose = convert.pose(np.array(pose))
        self.take("odom", message)

    def scan(self, stamp: int, frame: str = "base_link") -> None:
        message = LaserScan(header=convert.header(stamp, frame), angle_increment=0.1, range_min=0.1, range_max=50.0)
        message.ranges = [2.0] * 10
        self.take("scan", message)

    def stand(self, parent: str, child: str, pose=BASE) -> None:
        """On /tf, ``child`` at ``pose`` (7,) in ``parent``."""
        self.tree.take(TFMessage(transforms=[convert.transform(parent, child, 0, np.array(pose))]))

    def text(self) -> str:
        return "\n".join(text for _, text in self.said)

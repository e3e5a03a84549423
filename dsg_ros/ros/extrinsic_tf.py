"""Where the sensor really sits, as learned: a static transform beside the one that was told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from tf2_msgs.msg import TFMessage

from dsg_ros import poses
from dsg_ros.interface import Parameter
from dsg_ros.ros import convert
from dsg_ros.ros.sensors import Mounting

SUFFIX = "_learned"
"""Of the sensor's frame; the frame itself keeps the parent that it has."""
MOVED = 1e-3
"""It is sent again when it has moved by so much [m, rad]."""
_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class ExtrinsicTf:
    """``base -> SENSOR_learned`` on /tf_static while ``wanted``: the told mounting moved by the learned lever.

    The base is then the frame whose motion the odometry tells.  ``mounting`` is that of the newest scan.
    """

    def __init__(
        self,
        node: Node,
        wanted: Callable[[], bool],
        mounting: Callable[[], Mounting | None],
        now: Callable[[], int],
    ) -> None:
        self._wanted, self._mounting, self._now = wanted, mounting, now
        self._publisher = node.create_publisher(TFMessage, "/tf_static", _QOS)
        self._sent: tuple[str, NDArray[np.float64]] | None = None

    def take(self, parameters: Sequence[Parameter]) -> None:
        """What is learned as of now."""
        mounting, lever = self._mounting(), learned_lever(parameters)
        if not self._wanted() or mounting is None or lever is None:
            return
        child, pose = f"{mounting.frame}{SUFFIX}", poses.compose(lever, mounting.pose)
        if self._sent and self._sent[0] == child:
            moved = poses.log(poses.between(self._sent[1], pose))
            if float(np.abs(moved).max()) < MOVED:
                return
        self._publisher.publish(TFMessage(transforms=[convert.transform(mounting.base, child, self._now(), pose)]))
        self._sent = child, pose


def learned_lever(parameters: Sequence[Parameter]) -> NDArray[np.float64] | None:
    """The pose (7,) of the told base in the frame of the odometry, of numbers that are learned or given; None while
    none is.
    """
    found = {p.name.removeprefix("odometry.lever."): p for p in parameters if p.name.startswith("odometry.lever.")}
    if not any(p.status == "learned" for p in found.values()):
        return None
    x, y, z, rx, ry, rz = (found[name].value if name in found else 0.0 for name in ("x", "y", "z", "rx", "ry", "rz"))
    return np.concatenate([[x, y, z], poses.rotation_exp(np.array([rx, ry, rz]))])

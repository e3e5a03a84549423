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
from dsg_ros.ros import convert, qos
from dsg_ros.ros.sensors import Mounting

SUFFIX = "_learned"
"""Of the sensor's frame; the frame itself keeps the parent that it has."""
MOVED = 1e-3
"""It is sent again when it has moved by so much [m, rad]."""
_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class ExtrinsicTf:
    """``base -> SENSOR_learned`` on /tf_static while ``wanted``: the told mounting moved by the lever in use.

    The base is then the frame whose motion the odometry tells.  ``mounting`` is that of the newest scan.  Nothing is
    sent before the lever is other than none; from then on it is followed, back to none too.
    """

    def __init__(
        self,
        node: Node,
        wanted: Callable[[], bool],
        mounting: Callable[[], Mounting | None],
        now: Callable[[], int],
    ) -> None:
        self._wanted, self._mounting, self._now = wanted, mounting, now
        self._publisher = node.create_publisher(
            TFMessage, "/tf_static", qos.own(_QOS), qos_overriding_options=qos.OVERRIDING
        )
        self._sent: dict[str, tuple[str, NDArray[np.float64]]] = {}

    def take(self, parameters: Sequence[Parameter]) -> None:
        """The parameters in use as of now."""
        mounting, lever = self._mounting(), lever_of(parameters)
        if not self._wanted() or mounting is None:
            return
        child, pose = f"{mounting.frame}{SUFFIX}", poses.compose(lever, mounting.pose)
        before = self._sent[child][1] if child in self._sent else mounting.pose
        if float(np.abs(poses.log(poses.between(before, pose))).max()) < MOVED:
            return
        self._sent[child] = mounting.base, pose
        # All there are: the topic keeps one message for who comes late.
        now = self._now()
        transforms = [convert.transform(base, name, now, there) for name, (base, there) in self._sent.items()]
        self._publisher.publish(TFMessage(transforms=transforms))


def lever_of(parameters: Sequence[Parameter]) -> NDArray[np.float64]:
    """The pose (7,) of the told base in the frame of the odometry, by the values in use."""
    found = {p.name.removeprefix("odometry.lever."): p for p in parameters if p.name.startswith("odometry.lever.")}
    x, y, z, rx, ry, rz = (found[name].value if name in found else 0.0 for name in ("x", "y", "z", "rx", "ry", "rz"))
    return np.concatenate([[x, y, z], poses.rotation_exp(np.array([rx, ry, rz]))])

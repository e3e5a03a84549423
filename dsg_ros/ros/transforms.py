"""What the node broadcasts: map->odom and, where they are wanted, odom->base and base->SENSOR_learned."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from tf2_msgs.msg import TFMessage

from dsg_ros import config as cfg
from dsg_ros.interface import Estimate
from dsg_ros.ros import convert
from dsg_ros.ros.extrinsic_tf import ExtrinsicTf
from dsg_ros.ros.frame_names import map_frame
from dsg_ros.ros.qos import OVERRIDING
from dsg_ros.ros.sensors import Sensors
from dsg_ros.ros.tf_broadcaster import Correction, TfBroadcaster
from dsg_ros.ros.tf_others import Others
from dsg_ros.throttle import Say, Throttle


class Transforms:
    """All of them, from the node's beginning to its end; ``sensors`` are asked for once there are estimates.

    ``others`` is told what map->odom is sent, ``on_error`` is told of what failed in `take`, ``say`` logs.
    """

    def __init__(
        self,
        node: Node,
        config: Callable[[], cfg.Node],
        sensors: Callable[[], Sensors],
        others: Others,
        now: Callable[[], int],
        on_error: Callable[[Exception], None],
        say: Say,
    ) -> None:
        self._config, self._sensors, self._others, self._on_error = config, sensors, others, on_error
        self._throttled = Throttle(say)
        self._publisher = node.create_publisher(
            TFMessage, "/tf", QoSProfile(depth=100), qos_overriding_options=OVERRIDING
        )
        self.map_to_odom = TfBroadcaster(
            self._broadcast,
            now,
            rate=lambda: config().tf_rate,
            tolerance=lambda: config().transform_tolerance,
            on_error=self._trouble,
        )
        self._learned = ExtrinsicTf(node, lambda: config().publish_extrinsic_tf, lambda: sensors().mounting, now)

    def start(self) -> None:
        """Begin to broadcast map->odom, as soon as it is known."""
        self.map_to_odom.start()

    def stop(self) -> None:
        """Broadcast it no more."""
        self.map_to_odom.stop()

    def take(self, estimate: Estimate) -> None:
        """Broadcast what an estimate says from now on; quick, and raises nothing."""
        if estimate.known:
            correction = Correction(map_frame(self._config()), self._sensors().odom_frame, estimate.map_from_odom)
            self.map_to_odom.set(correction)
        try:
            self._learned.take(estimate.parameters)
        except Exception as error:  # noqa: BLE001 - the thread that reads from the worker must live
            self._on_error(error)

    def forget(self) -> None:
        """The map is gone, and where odom is in it."""
        self.map_to_odom.set(None)

    def odometry(self, stamp: int, pose: NDArray[np.float64]) -> None:
        """The base in odom (7,) at ``stamp`` [ns], for bags without that transform."""
        if self._config().publish_odom_tf:
            sensors = self._sensors()
            transform = convert.transform(sensors.odom_frame, sensors.base_frame, stamp, pose)
            self._publisher.publish(TFMessage(transforms=[transform]))

    def _broadcast(self, correction: Correction, stamp: int) -> None:
        transform = convert.transform(correction.parent, correction.child, stamp, correction.pose)
        self._others.sending(correction.parent, correction.child, stamp)
        self._publisher.publish(TFMessage(transforms=[transform]))

    def _trouble(self, error: Exception) -> None:
        trace = "".join(traceback.format_exception(error))
        self._throttled("error", "tf", f"cannot broadcast map->odom:\n{trace}")

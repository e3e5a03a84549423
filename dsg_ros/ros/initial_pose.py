"""The standard topic ``initialpose`` as a hint for localisation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.node import Node
from rclpy.subscription import Subscription

from dsg_ros import poses
from dsg_ros.interface import Hint
from dsg_ros.io.records import MalformedMessage
from dsg_ros.ros import convert
from dsg_ros.ros.inputs import Account
from dsg_ros.ros.qos import OVERRIDING
from dsg_ros.throttle import Say, Throttle

SIGMAS = 3.0
LEAST_RADIUS, LEAST_TURN = 0.5, 0.3
"""A pose set by hand is not nearer than this [m, rad], whatever its covariance says."""


def hint(message: PoseWithCovarianceStamped, map_frame: str) -> Hint:
    """Where to look: three deviations around the pose.  `MalformedMessage` for what is no pose in the map's frame."""
    frame = message.header.frame_id
    if frame not in ("", map_frame):
        raise MalformedMessage(f"it is in the frame {frame!r}, not {map_frame!r}; set the fixed frame of rviz to that")
    pose, covariance = convert.checked_pose(message.pose)
    position = min(poses.FARTHEST, float(np.sqrt(max(covariance[0, 0], covariance[1, 1], 0.0))))
    heading = float(np.sqrt(max(covariance[5, 5], 0.0)))
    return Hint(pose, max(LEAST_RADIUS, SIGMAS * position), min(np.pi, max(LEAST_TURN, SIGMAS * heading)))


class InitialPose:
    """Listens while the node localises; ``request`` hands a hint on, ``say`` logs.

    While a hint is not answered the newest of those that come waits for that; those it replaces are counted.
    """

    def __init__(self, map_frame: str, request: Callable[[Hint], Future[Any]], say: Say) -> None:
        self._map_frame, self._request, self._throttled = map_frame, request, Throttle(say, period=1.0)
        self._lock = threading.Lock()
        self._busy = False
        self._waiting: Hint | None = None
        self.account = Account("initialpose", self._take, say)
        self._subscription: Subscription | None = None

    def subscribe(self, node: Node) -> None:
        """Begin to listen."""
        self._subscription = node.create_subscription(
            PoseWithCovarianceStamped, "initialpose", self.account, 10, qos_overriding_options=OVERRIDING
        )

    def unsubscribe(self, node: Node) -> None:
        """Stop listening, if it did."""
        if self._subscription is not None:
            node.destroy_subscription(self._subscription)
            self._subscription = None
        with self._lock:
            self._drop("cleared")

    def _take(self, message: PoseWithCovarianceStamped) -> None:
        """Somebody, most often in rviz, says where the robot is."""
        found = hint(message, self._map_frame)
        with self._lock:
            self._drop("replaced")
            if self._busy:
                self._waiting = found
                return
            self._busy = True
        self._send(found)

    def _drop(self, cause: str) -> None:
        if self._waiting is not None:
            self.account.refused[cause] += 1
            self._waiting = None

    def _send(self, found: Hint) -> None:
        self._throttled("info", "looking", f"initialpose: looking for the robot within {found.radius:.1f} m of it")
        self._request(found).add_done_callback(self._answered)

    def _answered(self, done: Future[Any]) -> None:
        """Called on the thread that reads from the worker."""
        with self._lock:
            found, self._waiting = self._waiting, None
            self._busy = found is not None
        if found is not None:
            self._send(found)

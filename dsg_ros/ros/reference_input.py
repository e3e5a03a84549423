"""The topic ``reference``: poses of the base from elsewhere, such as motion capture, to learn the calibration from."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable

from geometry_msgs.msg import PoseWithCovariance, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from dsg_ros import config as cfg
from dsg_ros import poses
from dsg_ros.interface import Frame, ReferencePose
from dsg_ros.ros import convert
from dsg_ros.ros.frames import Frames
from dsg_ros.ros.inputs import Account, Refused
from dsg_ros.throttle import Say

MOST = 5000
"""Poses that wait for the next scan; the oldest goes first."""
_QOS = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)
_TYPES = {"pose": PoseWithCovarianceStamped, "odometry": Odometry}


class ReferenceInput:
    """Listens while a reference teaches; what came goes along with the next frame.

    ``base`` tells the frame of the base, empty while it is not known.  Odometry may be of another frame on the robot,
    which /tf connects with the base.
    """

    def __init__(self, config: Callable[[], cfg.Node], frames: Frames, base: Callable[[], str], say: Say) -> None:
        self._config, self._frames, self._base = config, frames, base
        self.account = Account("reference", self._take, say)
        self._waiting: deque[ReferencePose] = deque()
        self._subscription: Subscription | None = None

    @property
    def wanted(self) -> bool:
        """Whether it is learned from: in a finished map nothing is."""
        config = self._config()
        return config.learning.teacher != "scans" and not config.localisation

    def subscribe(self, node: Node) -> None:
        """Begin to listen, where it is wanted."""
        if self.wanted:
            kind = _TYPES[self._config().reference_message]
            self._subscription = node.create_subscription(kind, "reference", self.account, _QOS)

    def unsubscribe(self, node: Node) -> None:
        """Stop listening, if it did."""
        if self._subscription is not None:
            node.destroy_subscription(self._subscription)
            self._subscription = None
        self.clear()

    def clear(self) -> None:
        """What waits is of another time: the clock jumped, or another map is made."""
        self.account.refused["cleared"] += len(self._waiting)
        self._waiting.clear()

    def attached(self, frame: Frame) -> Frame:
        """The frame with what came since the one before."""
        if not self._waiting:
            return frame
        told = tuple(self._waiting)
        self._waiting.clear()
        return dataclasses.replace(frame, reference=told)

    def _take(self, message: PoseWithCovarianceStamped | Odometry) -> None:
        child = message.child_frame_id if isinstance(message, Odometry) else ""
        found = reference_pose(convert.nanoseconds(message.header.stamp), message.pose)
        base = self._base()
        if child and not base:
            raise Refused("no_odometry", f"it is of {child!r}, and no odometry has told the base's frame yet")
        if child and child != base:
            there = self._frames.lookup(child, base)
            if there is None:
                raise Refused("no_transform", f"it is of {child!r}: {self._frames.explain(child, base)}")
            back = poses.adjoint(poses.inverse(there))
            covariance = back @ found.covariance @ back.T
            found = ReferencePose(found.stamp, poses.compose(found.pose, there), covariance)
        if len(self._waiting) >= MOST:
            self._waiting.popleft()
            self.account.refused["queue_full"] += 1
        self._waiting.append(found)


def reference_pose(stamp: int, message: PoseWithCovariance) -> ReferencePose:
    """The pose, its quaternion normalised, and its covariance in its own tangent.  `MalformedMessage` for none."""
    pose, covariance = convert.checked_pose(message)
    return ReferencePose(stamp, pose, convert.tangent_covariance(pose, covariance))

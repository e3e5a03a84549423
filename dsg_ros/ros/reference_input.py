"""The topic ``reference``: poses of the base from elsewhere, such as motion capture, or positions of an antenna from a
satellite receiver, to learn the calibration from.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PoseWithCovariance, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import NavSatFix

from dsg_ros import config as cfg
from dsg_ros import poses
from dsg_ros.interface import Frame, ReferencePose, ReferencePosition, Told
from dsg_ros.io.navsat import Anchor, NoPosition, antenna_fix
from dsg_ros.ros import convert, frame_names, qos
from dsg_ros.ros.frames import Frames
from dsg_ros.ros.inputs import Account, Refused
from dsg_ros.throttle import Say

MOST = 5000
"""Poses that wait for the next scan; the oldest goes first."""
_QOS = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)
_TYPES = {"pose": PoseWithCovarianceStamped, "odometry": Odometry, "navsat": NavSatFix}


class ReferenceInput:
    """Listens while a reference teaches; what came goes along with the next frame.

    ``base`` tells the frame of the base, empty while it is not known.  Odometry may be of another frame on the robot,
    which /tf connects with the base; so it does the antenna's, which a NavSatFix names.
    """

    def __init__(self, config: Callable[[], cfg.Node], frames: Frames, base: Callable[[], str], say: Say) -> None:
        self._config, self._frames, self._base = config, frames, base
        self.account = Account("reference", self._take, say)
        self._waiting: deque[Told] = deque()
        self._anchor = Anchor(say)
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
            self._subscription = node.create_subscription(
                kind, "reference", self.account, qos.own(_QOS), qos_overriding_options=qos.OVERRIDING
            )

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

    def _take(self, message: PoseWithCovarianceStamped | Odometry | NavSatFix) -> None:
        found = self._position(message) if isinstance(message, NavSatFix) else self._pose(message)
        if len(self._waiting) >= MOST:
            self._waiting.popleft()
            self.account.refused["queue_full"] += 1
        self._waiting.append(found)

    def _pose(self, message: PoseWithCovarianceStamped | Odometry) -> ReferencePose:
        child = self._named(message.child_frame_id) if isinstance(message, Odometry) else ""
        found = reference_pose(convert.nanoseconds(message.header.stamp), message.pose)
        there = self._there(child)
        if there is None:
            return found
        back = poses.adjoint(poses.inverse(there))
        return ReferencePose(found.stamp, poses.compose(found.pose, there), back @ found.covariance @ back.T)

    def _position(self, message: NavSatFix) -> ReferencePosition:
        try:
            fix = antenna_fix(convert.nanoseconds(message.header.stamp), message)
            return self._anchor.position(fix, self._antenna(self._named(message.header.frame_id)))
        except NoPosition as error:
            raise Refused(error.cause, str(error)) from error

    def _named(self, frame: str) -> str:
        return frame_names.told(self._config().frame_prefix, frame)

    def _antenna(self, frame: str) -> NDArray[np.float64]:
        """Its place (3,) in the base."""
        if not frame:
            raise Refused("no_frame", "its header.frame_id does not say where the antenna is")
        there = self._there(frame)
        return np.zeros(3) if there is None else poses.inverse(there)[:3]

    def _there(self, frame: str) -> NDArray[np.float64] | None:
        """Pose (7,) of the base in ``frame`` on the robot; None where that is the base's own, or none."""
        base = self._base()
        if frame and not base:
            kind = "scan" if self._config().input.odometry == "none" else "odometry"
            raise Refused(f"no_{kind}", f"it is of {frame!r}, and no {kind} has told the base's frame yet")
        if not frame or frame == base:
            return None
        there = self._frames.lookup(frame, base)
        if there is None:
            raise Refused("no_transform", f"it is of {frame!r}: {self._frames.explain(frame, base)}")
        return there


def reference_pose(stamp: int, message: PoseWithCovariance) -> ReferencePose:
    """The pose, its quaternion normalised, and its covariance in its own tangent.  `MalformedMessage` for none."""
    pose, covariance = convert.checked_pose(message)
    return ReferencePose(stamp, pose, convert.tangent_covariance(pose, covariance))

"""Where a sensor sits on the robot: the seam to tf2_ros.

In a ROS installation tf2_ros is used.  Where it is missing (it is not on PyPI) `TransformTree` does what is needed of
it: the latest transform between two frames.  Both answer `lookup` and `explain`; the same tests run on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from tf2_msgs.msg import TFMessage

from dsg_ros import poses
from dsg_ros.ros import convert
from dsg_ros.ros.inputs import LONGEST_FRAME_ID, Account, Refused
from dsg_ros.ros.qos import OVERRIDING
from dsg_ros.ros.tf_others import Others
from dsg_ros.throttle import Say

MOST_FRAMES = 4096
"""Frames that are remembered: no robot has so many, and memory is bounded whatever is published."""


class Frames(Protocol):
    """The latest transforms heard on /tf and /tf_static; ``accounts`` of them, where they come through here.

    ``others`` are the parents that frames have by others than this node, which is to say there what it publishes.
    """

    others: Others

    @property
    def accounts(self) -> Sequence[Account]: ...

    def lookup(self, target: str, source: str) -> NDArray[np.float64] | None:
        """``target_from_source`` (7,), or None while it is not known."""

    def explain(self, target: str, source: str) -> str:
        """Why `lookup` answers None, for the operator."""

    def above(self, frame: str) -> list[str]:
        """``frame`` and those above it, the nearest first."""


class TransformTree:
    """The latest transform of every frame to its parent, fed with TFMessages."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, NDArray[np.float64]]] = {}
        self.others = Others()

    def take_static(self, message: TFMessage) -> None:
        """As `take`, of /tf_static."""
        self.take(message, static=True)

    def take(self, message: TFMessage, static: bool = False) -> None:
        """Remember what is a transform; `Refused` where the message has others too, or there is no room."""
        refused = 0
        for transform in message.transforms:
            child, parent = transform.child_frame_id.lstrip("/"), transform.header.frame_id.lstrip("/")
            pose = convert.transform_pose(transform)
            if _named(child, parent) and poses.flaw(pose) is None:
                if child not in self._parents and len(self._parents) >= MOST_FRAMES:
                    raise Refused("too_many_frames", f"{MOST_FRAMES} frames are known already: {child[:20]!r} is not")
                pose[3:] /= np.linalg.norm(pose[3:])
                self._parents[child] = parent, pose
                self.others.heard(transform, static)
            else:
                refused += 1
        if refused:
            raise Refused("no_transforms", f"{refused} of {len(message.transforms)} transforms are none")

    def lookup(self, target: str, source: str) -> NDArray[np.float64] | None:
        of_target, of_source = self._chain(target.lstrip("/")), self._chain(source.lstrip("/"))
        common = next((frame for frame in of_source if frame in of_target), None)
        if common is None:
            return None
        return poses.compose(poses.inverse(of_target[common]), of_source[common])

    def explain(self, target: str, source: str) -> str:
        known = set(self._parents) | {parent for parent, _ in self._parents.values()}
        missing = [frame for frame in (target, source) if frame.lstrip("/") not in known]
        if missing:
            return f"no transform on /tf or /tf_static names the frame {' or '.join(map(repr, missing))}"
        return f"the frames {target!r} and {source!r} are not connected on /tf and /tf_static"

    def above(self, frame: str) -> list[str]:
        return list(self._chain(frame.lstrip("/")))

    def _chain(self, frame: str) -> dict[str, NDArray[np.float64]]:
        """Every frame above ``frame`` with the pose of ``frame`` in it, nearest first; a loop ends it."""
        chain = {frame: poses.IDENTITY}
        while frame in self._parents and self._parents[frame][0] not in chain:
            below = chain[frame]
            frame, pose = self._parents[frame]
            chain[frame] = poses.compose(pose, below)
        return chain


def _named(child: str, parent: str) -> bool:
    return bool(child and parent) and child != parent and max(len(child), len(parent)) <= LONGEST_FRAME_ID


class Listener(TransformTree):
    """A `TransformTree` that subscribes."""

    def __init__(self, node: Node, say: Say) -> None:
        super().__init__()
        self.accounts = [Account("tf", self.take, say), Account("tf_static", self.take_static, say)]
        moving = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
        static = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [
            node.create_subscription(TFMessage, f"/{heard.topic}", heard, profile, qos_overriding_options=OVERRIDING)
            for heard, profile in zip(self.accounts, (moving, static), strict=True)
        ]


class Tf2Frames:
    """tf2_ros behind the same two questions."""

    accounts: Sequence[Account] = ()

    def __init__(self, node: Node, tf2_ros: Any) -> None:
        self._tf2 = tf2_ros
        self.others = others = Others()

        class Watched(tf2_ros.Buffer):
            """Has the listener's transforms pass by `Others`."""

            def set_transform(self, transform: TransformStamped, authority: str) -> None:
                others.heard(transform)
                super().set_transform(transform, authority)

            def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
                others.heard(transform, static=True)
                super().set_transform_static(transform, authority)

        self.buffer = Watched()
        self._listener = tf2_ros.TransformListener(self.buffer, node)

    def lookup(self, target: str, source: str) -> NDArray[np.float64] | None:
        try:
            found = self.buffer.lookup_transform(target.lstrip("/"), source.lstrip("/"), Time())
        except self._tf2.TransformException:
            return None
        return convert.transform_pose(found)

    def explain(self, target: str, source: str) -> str:
        try:
            self.buffer.lookup_transform(target.lstrip("/"), source.lstrip("/"), Time())
        except self._tf2.TransformException as error:
            return str(error)
        return "known by now"

    def above(self, frame: str) -> list[str]:
        import yaml  # of ROS, as tf2_ros is

        known = yaml.safe_load(self.buffer.all_frames_as_yaml()) or {}
        found = [frame.lstrip("/")]
        while (parent := dict(known).get(found[-1], {}).get("parent", "")) and parent not in found:
            found.append(parent)
        return found


def listen(node: Node, say: Say) -> Frames:
    """Frames as the environment offers them; ``say`` logs."""
    try:
        import tf2_ros
    except ImportError:
        return Listener(node, say)
    return Tf2Frames(node, tf2_ros)

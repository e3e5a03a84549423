"""Who else publishes the transform of a frame that is this node's: AMCL, another SLAM, a bag, a launch file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node

from dsg_ros.ros import convert
from dsg_ros.throttle import Say

MOST = 4096
"""Frames of which that is remembered."""

OURS = 2000
"""Newest transforms of this node that are known again when they are heard: ten seconds at the highest rate."""

RECENT = 10.0
"""Seconds for which a transform on /tf counts; one on /tf_static counts for ever."""


@dataclass(frozen=True)
class _Heard:
    parent: str
    until: float


class Others:
    """The newest parent that others than this node give to each frame."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}
        self._ours: dict[tuple[str, str, int], None] = {}

    def sending(self, parent: str, child: str, stamp: int) -> None:
        """This node is about to publish that, at ``stamp`` [ns]."""
        key = parent.lstrip("/"), child.lstrip("/"), stamp
        self._ours.pop(key, None)  # the newest is the last
        self._ours[key] = None
        if len(self._ours) > OURS:
            del self._ours[next(iter(self._ours))]

    def heard(self, transform: TransformStamped, static: bool = False) -> None:
        """What came on /tf, or on /tf_static; this node's own comes as well."""
        parent, child = transform.header.frame_id.lstrip("/"), transform.child_frame_id.lstrip("/")
        if (parent, child, convert.nanoseconds(transform.header.stamp)) in self._ours:
            return
        if child in self._heard or len(self._heard) < MOST:
            self._heard[child] = _Heard(parent, math.inf if static else time.monotonic() + RECENT)

    def parent(self, child: str) -> str:
        """Of the frame ``child``; empty where nobody else has told one lately."""
        found = self._heard.get(child.lstrip("/"))
        return found.parent if found is not None and time.monotonic() < found.until else ""


class Above:
    """Watches what others have above the frame that gets the map as its parent; ``say`` logs it, once."""

    def __init__(self, others: Others, say: Say) -> None:
        self._others, self._say = others, say
        self.publishers: Callable[[], list[str]] = list
        """Names of those who may be it."""
        self.parent = ""
        """What else on /tf is the parent, or the map by somebody else's word; empty for nothing."""
        self.conflict = ""
        """The same in a sentence."""

    def look(self, child: str, map_frame: str, alone: bool) -> None:
        """Above ``child``: the odometry's frame, or of a robot that maps by scans ``alone`` its base; "": not known."""
        before, self.parent = self.conflict, self._others.parent(child) if child else ""
        self.conflict = conflict(child, self.parent, map_frame, alone) if self.parent else ""
        if self.conflict and self.conflict != before:
            names = ", ".join(self.publishers()) or "unknown"
            self._say("warning", f"{self.conflict}. Other publishers on /tf: {names}")


def conflict(child: str, other: str, map_frame: str, alone: bool) -> str:
    """What it means that somebody else has ``other`` as the parent of ``child``, whose parent is to be the map."""
    if other == map_frame.lstrip("/"):
        return (
            f"somebody else also publishes {other!r} -> {child!r} on /tf (AMCL, another SLAM, a launch file, a bag?): "
            "the robot leaps between the two; stop one of them"
        )
    said = f"/tf has {other!r} above {child!r}, which {map_frame!r} is to be the parent of: "
    if alone:
        return (
            f"{said}set base_frame to the frame at the top of the robot, or use the odometry of who publishes that "
            "transform"
        )
    return f"{said}a frame has one parent, and what is asked of /tf depends on whose came last; stop who publishes that"


def publishers(node: Node) -> list[str]:
    """Full names of the other nodes that publish on /tf or /tf_static, as the graph has them."""
    found = [info for topic in ("/tf", "/tf_static") for info in node.get_publishers_info_by_topic(topic)]
    names = {f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in found}
    return sorted(names - {node.get_fully_qualified_name()})

"""What the node publishes: one small class a topic, all named in `OUTPUTS`.

`take` is called with every estimate, on the thread that reads from the worker, and must be quick; `publish` is called
at ``map_rate``, on a thread that may take its time.  To add a topic, write a class and name it in `OUTPUTS`.
"""

from __future__ import annotations

import math
import time

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Path as PathMessage
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from visualization_msgs.msg import MarkerArray

from dsg_ros.interface import Estimate, Path
from dsg_ros.ros import cdr, convert
from dsg_ros.ros.graph_output import GraphOutput
from dsg_ros.ros.grid_output import GridOutput
from dsg_ros.ros.output import Output, World
from dsg_ros.ros.theta_output import ThetaOutput
from dsg_ros.ros.what_if import WhatIfOutput

MOST_CUBES = 20_000
"""Sent a second on ~/voxels, 40 bytes each: wireless links carry that beside everything else."""


class PoseOutput(Output):
    """The base in the map at every scan, with its covariance; while localisation looks for it, nothing."""

    topic, message, qos = "~/pose", PoseWithCovarianceStamped, 10

    def take(self, estimate: Estimate) -> None:
        if not estimate.known:
            return
        self._publisher.publish(
            convert.pose_with_covariance(self._world.frame, estimate.stamp, estimate.pose, estimate.covariance)
        )


class PathOutput(Output):
    """Optimised poses of all keyframes."""

    topic, message = "~/path", PathMessage

    def __init__(self, node: LifecycleNode, world: World) -> None:
        super().__init__(node, world)
        self._path: Path | None = None
        self._sent: Path | None = None

    def take(self, estimate: Estimate) -> None:
        if estimate.path is not None:
            self._path = estimate.path

    def publish(self) -> None:
        path = self._path
        if path is None or path is self._sent:
            return
        stamp = int(path.stamps[-1]) if len(path.stamps) else self._world.now()
        self._publisher.publish(cdr.path(stamp, self._world.frame, path.stamps, path.poses))
        self._sent = path

    def again(self) -> None:
        self._sent = None

    def clear(self) -> None:
        self._path = Path(np.empty(0, np.int64), np.empty((0, 7)), np.empty((0, 2), np.int32))


class VoxelsOutput(Output):
    """Cubes in spatial chunks, coloured as ``voxel_colour`` says; only chunks that changed are sent, emptied ones are
    deleted, and all are sent anew where the colours would come to mean something else.

    A listener that comes late gets all of them at once, else `MOST_CUBES` a second are sent: the chunks that changed
    first come first.
    """

    topic, message = "~/voxels", MarkerArray
    qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)

    def __init__(self, node: LifecycleNode, world: World) -> None:
        super().__init__(node, world)
        self._whole = False
        self._allowed, self._since = float(MOST_CUBES), time.monotonic()

    def publish(self) -> None:
        store, now = self._world.voxels, time.monotonic()
        self._allowed = min(MOST_CUBES, self._allowed + MOST_CUBES * (now - self._since))
        self._since = now
        whole, self._whole = self._whole, False
        colouring = self._world.voxel_colour()
        scale = store.coloured(colouring)
        changes = store.take_changes(math.inf if whole else self._allowed)
        if changes:
            if not whole:
                self._allowed -= sum(len(change.means) for change in changes)
            cubes = [cdr.Cubes(c.id, c.means.astype(np.float64), c.colours(colouring, scale)) for c in changes]
            edge = store.size or 1.0
            self._publisher.publish(cdr.cube_lists(self._world.now(), self._world.frame, "voxels", edge, cubes))

    def again(self) -> None:
        self._world.voxels.touch()
        self._whole = True


class VoxelCloudOutput(Output):
    """All voxels as one cloud."""

    topic, message = "~/voxel_cloud", PointCloud2

    def __init__(self, node: LifecycleNode, world: World) -> None:
        super().__init__(node, world)
        self._sent = world.voxels.version

    def publish(self) -> None:
        version = self._world.voxels.version
        if version != self._sent:
            cloud = convert.voxel_cloud(self._world.frame, self._world.now(), *self._world.voxels.all())
            self._publisher.publish(cloud)
            self._sent = version

    def again(self) -> None:
        self._sent = -1


OUTPUTS: tuple[type[Output], ...] = (
    PoseOutput,
    PathOutput,
    VoxelsOutput,
    VoxelCloudOutput,
    GraphOutput,
    GridOutput,
    ThetaOutput,
    WhatIfOutput,
)

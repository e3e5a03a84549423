"""What the classes of `dsg_ros.ros.outputs` have in common."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from rclpy.event_handler import PublisherEventCallbacks, QoSOfferedIncompatibleQoSInfo, QoSPublisherMatchedInfo
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from dsg_ros.effect import Effect
from dsg_ros.interface import Estimate, GridUpdate
from dsg_ros.ros import qos
from dsg_ros.ros.inputs import Account
from dsg_ros.throttle import Say
from dsg_ros.voxel_colours import Colouring
from dsg_ros.voxel_store import VoxelStore

MAP_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Maps: a listener that comes late still gets the latest."""


@dataclass(frozen=True)
class World:
    """What the outputs share: the frame everything is in, the voxels and their colours, the ROS clock [ns].

    ``ask_grid`` asks the worker for what changed in the occupancy grid after a version, ``grid_rate`` is how often;
    ``ask_what_if`` asks it what a change, as people write it, of the parameter of this name would do.
    ``say`` logs.
    """

    frame: str
    voxels: VoxelStore
    voxel_colour: Callable[[], Colouring]
    now: Callable[[], int]
    ask_grid: Callable[[int], Future[GridUpdate]]
    grid_rate: Callable[[], float]
    ask_what_if: Callable[[str, str], Future[Effect]]
    say: Say


class Output:
    """A topic, by its name as ROS resolves it."""

    topic: str
    message: Any
    qos: QoSProfile | int = MAP_QOS
    account: Account | None = None
    """Of the messages it answers, if it does."""

    def __init__(self, node: LifecycleNode, world: World) -> None:
        self._world = world
        self._node = node
        self._publisher = self._advertised(self.message, self.topic, self.qos)

    def _advertised(self, message: Any, topic: str, profile: QoSProfile | int) -> LifecyclePublisher:
        """A publisher; who comes late to it has everything published again."""
        own = QoSProfile(depth=profile) if isinstance(profile, int) else qos.own(profile)
        incompatible = partial(self._incompatible, self._node.resolve_topic_name(topic), own)
        events = PublisherEventCallbacks(matched=self._matched, incompatible_qos=incompatible)
        return self._node.create_lifecycle_publisher(
            message, topic, own, event_callbacks=events, qos_overriding_options=qos.OVERRIDING
        )

    def _incompatible(self, topic: str, own: QoSProfile, info: QoSOfferedIncompatibleQoSInfo) -> None:
        def tell() -> None:
            said = qos.incompatible(self._node, topic, own, info.last_policy_kind, subscribed=False)
            self._world.say("warning", said)

        qos.later(self._node, tell)

    def destroy(self) -> None:
        self._node.destroy_lifecycle_publisher(self._publisher)

    def take(self, estimate: Estimate) -> None:
        """Note what is to be published, or publish it where it is small."""

    def publish(self) -> None:
        """Publish what changed since the last call."""

    def again(self) -> None:
        """Publish everything at the next `publish`: a listener came late, or the clock jumped and rviz forgot."""

    def clear(self) -> None:
        """The map was reset."""

    def _matched(self, info: QoSPublisherMatchedInfo) -> None:
        if info.current_count_change > 0:
            self.again()

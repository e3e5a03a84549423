"""The occupancy grid on ``map`` and ``map_updates``: asked of the worker while somebody listens, sent as it changes."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

from map_msgs.msg import OccupancyGridUpdate
from nav_msgs.msg import OccupancyGrid
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy

from dsg_ros.grid_store import GridStore, Rectangle
from dsg_ros.interface import GridUpdate
from dsg_ros.ros import cdr
from dsg_ros.ros.output import Output, World

UPDATES_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""Updates: of use only to those who have the map they belong to."""

MARGIN = 4
"""Tiles by which the rectangle grows beyond what is needed: so often does the whole map go out again."""


class GridOutput(Output):
    """The grid at ``grid_rate``.

    While nobody listens the worker is not asked, and draws nothing.  The whole map goes out first, to a newcomer, when
    its rectangle grew, and whenever somebody listens to ``map`` alone; else what changed goes to ``map_updates``.
    """

    topic, message = "map", OccupancyGrid

    def __init__(self, node: LifecycleNode, world: World) -> None:
        super().__init__(node, world)
        self._updates = self._advertised(OccupancyGridUpdate, f"{self.topic}_updates", UPDATES_QOS)
        self._store = GridStore(MARGIN)
        self._lock = threading.Lock()
        self._asked: Future[GridUpdate] | None = None
        self._due = 0.0
        self._again = True
        self._loaded = 0

    def destroy(self) -> None:
        super().destroy()
        self._node.destroy_lifecycle_publisher(self._updates)

    def publish(self) -> None:
        with self._lock:
            self._take_answer()
            self._ask()

    def again(self) -> None:
        self._again, self._due = True, 0.0

    def clear(self) -> None:
        # What is shown stays until there is something to show: navigation has no use for a map of no size.
        with self._lock:
            self._store.clear()
            self._asked = None
            self.again()

    def _ask(self) -> None:
        now = time.monotonic()
        if self._asked is None and now >= self._due and self._listeners:
            self._due = now + 1.0 / self._world.grid_rate()
            self._asked = self._world.ask_grid(self._store.version)

    def _take_answer(self) -> None:
        asked = self._asked
        if asked is None or not asked.done():
            return
        self._asked = None
        if asked.exception() is not None:  # the worker died or failed, which is told elsewhere
            return
        change = asked.result()
        part = self._store.update(change)
        if len(change.tiles):
            self._loaded = self._world.now()
        if not len(self._store):
            return
        if part is None or self._again:
            self._publish_whole()
        elif part.width:
            if self._listen_to_map_alone:
                self._publish_whole()
            self._publish_part(part)

    def _publish_whole(self) -> None:
        self._again = False
        stamp, frame = self._world.now(), self._world.frame
        self._publisher.publish(cdr.occupancy_grid(stamp, frame, self._loaded, self._store.grid))

    def _publish_part(self, part: Rectangle) -> None:
        if self._updates.get_subscription_count():
            stamp, frame = self._world.now(), self._world.frame
            self._updates.publish(cdr.occupancy_grid_update(stamp, frame, self._store.grid, part))

    @property
    def _listeners(self) -> int:
        return int(self._publisher.get_subscription_count())

    @property
    def _listen_to_map_alone(self) -> bool:
        """More listen to ``map`` than to its updates: to those the whole map is the only news."""
        return self._listeners > int(self._updates.get_subscription_count())
